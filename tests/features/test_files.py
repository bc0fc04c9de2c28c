import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from clip_adapter.datasets.open import feature_spec, load_dataset
from clip_adapter.errors import ClipAdapterError, DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.files import load_features, write_features

NAMES = ["cat", "dog", "köter # 2"]


def features(n=4, d=5, scale=3.0):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, d, generator=generator) * scale


@pytest.fixture
def safetensors_file(tmp_path):
    def make(name="f.safetensors", meta=None, **tensors):
        path = tmp_path / name
        tensors = tensors or {"features": features(), "labels": torch.tensor([0, 1, 2, 0])}
        save_file({k.replace("__", "."): v for k, v in tensors.items()}, path, meta or {})
        return path

    return make


def test_a_file_with_one_set(safetensors_file):
    path = safetensors_file(meta={"classes": json.dumps(NAMES), "logit_scale": "50"})
    precomputed = load_features(path)
    data = precomputed.feature_set
    assert torch.equal(data.plain_view, features())
    assert data.labels.tolist() == [0, 1, 2, 0]
    assert data.class_names == NAMES
    assert data.feature_norm == "raw"
    assert data.names[1] == "f.safetensors[1]"
    assert len(set(data.digests)) == 4
    assert (precomputed.logit_scale, precomputed.text, precomputed.notes) == (50.0, None, [])


def test_what_the_file_does_not_tell_is_said(safetensors_file):
    precomputed = load_features(safetensors_file())
    assert precomputed.logit_scale == 100
    assert precomputed.feature_set.class_names == ["0", "1", "2"]
    assert len(precomputed.notes) == 2
    unlabelled = load_features(safetensors_file("u.safetensors", features=features()))
    assert unlabelled.feature_set.labels.tolist() == [-1] * 4
    assert any("no labels" in note for note in unlabelled.notes)


def test_sets_are_named_after_a_hash(safetensors_file):
    labels = torch.tensor([0, 1, 1, 1])
    path = safetensors_file(
        a__features=features(),
        a__labels=labels,
        b__features=features() * 2,
        b__labels=labels.clone(),
    )
    assert torch.equal(load_features(f"{path}#b").feature_set.plain_view, features() * 2)
    with pytest.raises(UsageError, match="holds 2 sets") as error:
        load_features(path)
    assert error.value.allowed == "a, b"
    with pytest.raises(UsageError, match="Unknown set") as error:
        load_features(f"{path}#")
    assert (error.value.allowed, error.value.hint) == ("a, b", f"Name one: {path}#a")
    with pytest.raises(UsageError, match="Did you mean 'a'"):
        load_features(f"{path}#aa")


def test_a_hash_in_a_file_name(safetensors_file):
    path = safetensors_file("odd#name.safetensors")
    assert len(load_features(path).feature_set) == 4
    assert len(load_features(f"{path}#").feature_set) == 4


@pytest.mark.parametrize(
    ("meta", "scale", "norm"),
    [
        ({}, 3.0, "raw"),
        ({}, None, "unit"),
        ({"feature_norm": "unit"}, 3.0, "unit"),
        ({"feature_norm": "raw"}, None, "raw"),
        ({"image_features": "unit length; train rows are means"}, 3.0, "unit"),
        ({"image_features": "not of unit length"}, 3.0, "raw"),
    ],
)
def test_feature_norm_auto(safetensors_file, meta, scale, norm):
    rows = features() if scale else torch.nn.functional.normalize(features()).half()
    path = safetensors_file(meta=meta, features=rows, labels=torch.zeros(4, dtype=torch.long))
    data = load_features(path).feature_set
    assert data.feature_norm == norm
    if norm == "unit":
        torch.testing.assert_close(data.plain_view.norm(dim=-1), torch.ones(4))
    else:
        assert torch.equal(data.plain_view, rows.float())
    assert load_features(path, feature_norm="raw").feature_set.feature_norm == "raw"
    assert load_features(path, feature_norm="unit").feature_set.feature_norm == "unit"


def test_one_raw_set_makes_all_sets_raw(safetensors_file):
    unit = torch.nn.functional.normalize(features())
    path = safetensors_file(a__features=unit, b__features=features())
    assert load_features(f"{path}#a").feature_set.feature_norm == "raw"


def test_digests_are_of_the_stored_rows(safetensors_file):
    rows = features().half()
    one = load_features(safetensors_file(features=rows)).feature_set
    two = load_features(safetensors_file("g.safetensors", features=rows.flip(0))).feature_set
    assert one.digests == two.digests[::-1]


def test_several_views(safetensors_file):
    rows = torch.stack([features(), features() * 2])
    data = load_features(safetensors_file(features=rows)).feature_set
    assert data.features.shape == (2, 4, 5)
    assert len(data.digests) == 4


def test_npz(tmp_path):
    path = tmp_path / "f.npz"
    rows = features().numpy()
    np.savez(path, features=rows, labels=[2, 0, 1, 0], class_names=NAMES, text=np.eye(3, 5))
    precomputed = load_features(path)
    assert precomputed.feature_set.class_names == NAMES
    assert precomputed.feature_set.labels.tolist() == [2, 0, 1, 0]
    assert torch.equal(precomputed.text, torch.eye(3, 5))
    np.savez(path, **{"a.features": rows, "a.labels": ["x", "y", "x", "z"]}, logit_scale=10.0)
    precomputed = load_features(f"{path}#a")
    assert precomputed.feature_set.class_names == ["x", "y", "z"]
    assert precomputed.feature_set.labels.tolist() == [0, 1, 0, 2]
    assert precomputed.logit_scale == 10


def test_npz_with_pickled_objects_is_refused(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, features=features().numpy(), labels=np.array(["a", 1, None, 2], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load_features(path)


@pytest.mark.parametrize("column", ["features", "embedding"])
def test_parquet(tmp_path, column):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "f.parquet"
    rows = features().double().tolist()
    table = {
        column: rows,
        "label": ["dog", "cat", "dog", "eel"],
        "split": ["train", "train", "test", "test"],
        "path": list("wxyz"),
    }
    pq.write_table(pa.table(table), path)
    assert feature_spec(f"{path}#train")
    data = load_features(f"{path}#test").feature_set
    assert data.class_names == ["cat", "dog", "eel"]
    assert data.labels.tolist() == [1, 2]
    assert data.names == ["y", "z"]
    assert torch.equal(data.plain_view, features()[2:])
    del table["split"]
    table["label"] = [1, 0, None, 1]
    pq.write_table(pa.table(table), path)
    data = load_features(path).feature_set
    assert data.labels.tolist() == [1, 0, -1, 1]
    table[column][1] = [1.0]
    pq.write_table(pa.table(table), path)
    with pytest.raises(DataError, match="differ in length"):
        load_features(path)


def test_a_table_of_pictures_is_no_feature_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": ["a"], "label": ["b"]}), path)
    assert not feature_spec(path)
    assert not feature_spec(tmp_path / "missing.parquet")
    assert feature_spec("x.npz#train")
    assert not feature_spec("folder")
    with pytest.raises(DataError, match="holds no features"):
        load_features(path)


NAN = torch.full((4, 5), float("nan"))
ZEROS = torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("tensors", "meta", "message"),
    [
        ({"features": NAN}, {}, "NaN"),
        ({"features": torch.ones(4, 5, dtype=torch.long)}, {}, "int64"),
        ({"features": torch.ones(5)}, {}, r"shape \(5,\)"),
        ({"features": features(), "labels": ZEROS[:2]}, {}, "2 labels for 4 rows"),
        ({"features": features(), "labels": ZEROS - 2}, {}, "Label -2"),
        ({"features": features(), "labels": ZEROS + 5}, {"classes": '["a"]'}, "Label 5"),
        ({"features": features(), "labels": ZEROS + 0.5}, {}, "whole numbers"),
        ({"features": features(), "labels": ZEROS}, {"classes": "{}"}, "JSON list"),
        ({"features": features(), "labels": ZEROS}, {"classes": "cat"}, "cannot be read"),
        ({"features": features(), "labels": ZEROS}, {"logit_scale": "-1"}, "logit_scale"),
        ({"features": features(), "labels": ZEROS}, {"logit_scale": "x"}, "cannot be read"),
        ({"features": features(), "labels": ZEROS}, {"logit_scale": "4.6052"}, "it is 100.003"),
        ({"features": features(), "labels": ZEROS}, {"logit_scale": "0.01"}, "as tau 100"),
        ({"features": features(), "labels": ZEROS}, {"logit_scale": "2.6593"}, "it is 14.28"),
        ({"features": features(), "labels": ZEROS}, {"logit_scale": "10000"}, "CLIP's is 100"),
        ({"features": features(), "labels": ZEROS}, {"log_logit_scale": "800"}, "scale is 800"),
        ({"features": features(), "labels": ZEROS}, {"feature_norm": "l2"}, "feature_norm='l2'"),
        (
            {"features": features(), "labels": ZEROS, "text": torch.ones(2, 5)},
            {"classes": '["a"]'},
            r"\(2, 5\) for 1 classes",
        ),
        ({"features": features(), "labels": ZEROS, "text": torch.ones(2, 4)}, {}, "size 5"),
        ({"features": features(), "labels": ZEROS, "text": NAN[:1]}, {}, "text weights hold NaN"),
        ({"weights": features()}, {}, "holds no features"),
    ],
)
def test_what_does_not_fit_is_refused(safetensors_file, tensors, meta, message):
    path = safetensors_file(meta=meta, **tensors)
    with pytest.raises(DataError, match=message) as error:
        load_features(path)
    assert str(path) in str(error.value)


def test_a_scale_may_be_stated_by_its_logarithm(safetensors_file, tmp_path):
    path = safetensors_file(meta={"log_logit_scale": "4.60517"})
    assert load_features(path).logit_scale == pytest.approx(100, abs=1e-3)
    np.savez(tmp_path / "f.npz", features=features(), labels=[0] * 4, log_logit_scale=4.60517)
    assert load_features(tmp_path / "f.npz").logit_scale == pytest.approx(100, abs=1e-3)
    with pytest.raises(DataError, match="100") as caught:
        load_features(safetensors_file(meta={"logit_scale": "4.6052"}))
    assert "if 1/tau is 4.6052, write log_logit_scale=1.52719" in caught.value.hint
    kept = load_features(tmp_path / "f.npz").feature_set
    for scale in (4.6052, 10.0):  # a backbone of one's own may have a small one
        write_features(tmp_path / "own.safetensors", {"train": kept}, None, {"logit_scale": scale})
        assert load_features(tmp_path / "own.safetensors").logit_scale == pytest.approx(scale)


def test_labels_that_are_words_of_numbers_are_in_the_order_of_numbers(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = ["10", "9", "2", "0"]
    rows = features().tolist()
    pq.write_table(pa.table({"features": rows, "label": labels}), tmp_path / "f.parquet")
    np.savez(tmp_path / "f.npz", features=features(), labels=labels)
    for name in ("f.parquet", "f.npz"):
        feature_set = load_features(tmp_path / name).feature_set
        assert feature_set.class_names == ["0", "2", "9", "10"]
        assert feature_set.labels.tolist() == [3, 2, 1, 0]


def test_wrong_paths(tmp_path):
    with pytest.raises(DataError, match="No feature file"):
        load_features(tmp_path / "gone.npz")
    with pytest.raises(UsageError, match="not a file of features"):
        load_features(tmp_path / "x.csv")
    with pytest.raises(UsageError, match="feature_norm"):
        load_features(tmp_path / "x.npz", feature_norm="l2")


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from([".safetensors", ".npz", ".parquet"]),
    data=st.binary(max_size=200),
    cut=st.integers(0, 2000),
    whole=st.booleans(),
)
def test_any_bytes_give_features_or_an_error_of_ours(tmp_path_factory, suffix, data, cut, whole):
    path = tmp_path_factory.mktemp("any") / f"f{suffix}"
    if whole:  # a good file that was cut
        one = FeatureSet(features(), torch.tensor([0, 1, 2, 0]), NAMES)
        if suffix == ".npz":
            np.savez(path, features=one.plain_view.numpy(), labels=one.labels.numpy())
        else:
            write_features(path, {"a": one})
        data = path.read_bytes()[:cut]
    path.write_bytes(data)
    try:
        precomputed = load_features(path)
    except ClipAdapterError as error:
        message = str(error)
    else:
        message = path.name if len(precomputed.feature_set) == 4 else "rows were lost"
    assert path.name in message


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / "new folder" / f"out{suffix}"
    names = ["a b.png", "ü'\".png", "日本.png", "d.png"]
    sets = {
        "train": FeatureSet(features(), torch.tensor([0, 1, 2, 0]), NAMES, names, list("abcd")),
        "test": FeatureSet(features(2), torch.tensor([2, -1]), NAMES, names[:2], list("xy")),
    }
    text = features(3)
    write_features(path, sets, text, {"backbone": "demo", "logit_scale": 12.5, "note": None})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    for name, one in sets.items():
        precomputed = load_features(f"{path}#{name}")
        data = precomputed.feature_set
        assert torch.equal(data.features, one.features)
        assert torch.equal(data.labels, one.labels)
        assert (data.names, data.digests) == (one.names, one.digests)
        assert (data.class_names, data.feature_norm) == (NAMES, "raw")
        assert torch.equal(precomputed.text, text)
        assert (precomputed.logit_scale, precomputed.backbone) == (12.5, "demo")
        assert precomputed.notes == []


def test_writing_several_views(tmp_path):
    one = FeatureSet(torch.stack([features(), -features()]), ZEROS, NAMES)
    write_features(tmp_path / "v.safetensors", {"train": one, "again": one})
    precomputed = load_features(f"{tmp_path}/v.safetensors#train").feature_set
    assert torch.equal(precomputed.features, one.features)
    with pytest.raises(UsageError, match="one view"):
        write_features(tmp_path / "v.parquet", {"train": one})
    assert not (tmp_path / "v.parquet").exists()


def test_writing_refuses_what_it_cannot_hold(tmp_path):
    one = FeatureSet(features(), ZEROS, NAMES)
    with pytest.raises(UsageError, match=r"x\.csv"):
        write_features(tmp_path / "x.csv", {"a": one})
    with pytest.raises(DataError, match="no features"):
        write_features(tmp_path / "x.parquet", {})
    with pytest.raises(DataError, match="other classes"):
        write_features(
            tmp_path / "x.parquet", {"a": one, "b": FeatureSet(features(), ZEROS, ["x"])}
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_features(tmp_path / "file" / "x.parquet", {"a": one})


@pytest.mark.parametrize(
    ("names", "spec"),
    [
        (("X", "y"), ""),
        (("x", "y"), ""),
        (("embeddings", "labels"), ""),
        (("X_train", "y_train"), "#train"),
        (("train.X", "train.y"), "#train"),
        (("X_my_set.2", "y_my_set.2"), "#my_set.2"),
        (("features", "y"), ""),
    ],
)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_x_and_y_are_features_and_labels(names, spec, ending, tmp_path, safetensors_file):
    labels = torch.tensor([0, 2, 2, 1])
    arrays = dict(zip(names, (features(), labels), strict=True))
    path = tmp_path / f"f.{ending}"
    if ending == "npz":
        np.savez(path, **{name: array.numpy() for name, array in arrays.items()})
    else:
        save_file(arrays, path)
    one = load_features(f"{path}{spec}").feature_set
    assert torch.equal(one.plain_view, features())
    assert one.labels.tolist() == labels.tolist()


def test_keys_that_only_look_like_x_stay_what_they_are(tmp_path):
    np.savez(tmp_path / "f.npz", features=features().numpy(), Xylophone=np.zeros(2), y=[0, 1, 0, 1])
    file = load_features(tmp_path / "f.npz")
    assert file.sets == [""]
    assert file.feature_set.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["my features.pt", "a.pth", "b.pkl", "c.npy"])
def test_a_pickle_is_not_opened_and_the_way_out_works(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, labels = tmp_path / name, np.array([0, 1, 2, 0])
    if path.suffix.startswith(".pt"):
        torch.save({"features": features(), "labels": torch.from_numpy(labels)}, path)
    elif path.suffix == ".npy":
        np.save(path, features().numpy())
    else:
        path.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    for read in (load_features, load_dataset):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert caught.value.exit_code == 2
        way = caught.value.hint.removeprefix("If it holds features, convert it once: ")
    assert not (tmp_path / "opened").exists()
    if path.suffix != ".pkl":
        exec(way.split(". docs/")[0], {"labels": labels})
        made = next(p for p in tmp_path.iterdir() if p.suffix in (".npz", ".safetensors"))
        one = load_features(made).feature_set
        assert torch.equal(one.plain_view, features())
        assert one.labels.tolist() == labels.tolist()
