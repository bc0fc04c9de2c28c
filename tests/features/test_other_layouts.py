"""Files of features as others keep them: turned, one-hot, or as a table; and what is said."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import clip_adapter
from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.files import load_features


def features(n=4, d=5):
    return 3 * torch.randn(n, d, generator=torch.Generator().manual_seed(n))


@pytest.fixture
def file(tmp_path):
    def make(**tensors):
        path = tmp_path / "f.safetensors"
        save_file(tensors or {"features": features(), "labels": torch.tensor([0, 1, 2, 0])}, path)
        return path

    return make


def tip_adapter(n=12, d=5, classes=3, seed=0):
    """Arrays as Tip-Adapter's code keeps them, and what they stand for."""
    shots = torch.nn.functional.normalize(features(n, d), dim=1)
    text = torch.nn.functional.normalize(features(classes, d), dim=1)
    labels = torch.arange(n) % classes
    arrays = {
        "cache_keys": shots.T.contiguous(),
        "cache_values": torch.eye(classes)[labels].half(),
        "clip_weights": text.T.contiguous(),
        "test_features": features(7, d),
        "test_labels": torch.arange(7) % classes,
    }
    return arrays, shots, labels, text


# Of the squares, the lengths of the rows tell.
@pytest.mark.parametrize("n", [12, 5])
@pytest.mark.parametrize("kind", [".safetensors", ".npz"])
def test_files_of_tip_adapter_are_read_as_they_are(n, kind, tmp_path):
    arrays, shots, labels, text = tip_adapter(n)
    path = tmp_path / f"tip{kind}"
    if kind == ".npz":
        np.savez(path, **{name: array.numpy() for name, array in arrays.items()})
    else:
        save_file(arrays, path)
    train, test = load_features(f"{path}#train"), load_features(f"{path}#test")
    torch.testing.assert_close(train.feature_set.plain_view, shots)
    assert train.feature_set.labels.tolist() == labels.tolist()
    assert train.feature_set.class_names == test.feature_set.class_names == ["0", "1", "2"]
    torch.testing.assert_close(train.text, text)
    told = " ".join(train.notes)
    assert "labels are one-hot, of 3 classes" in told
    assert f"features are stored as (D, N) and read as (N, D) {n} x 5" in told
    assert "text weights are stored as (D, C) and read as (C, D) 3 x 5" in told
    classifier = clip_adapter.fit(f"{path}#train", method="tip-adapter")
    assert clip_adapter.evaluate(classifier, f"{path}#test").n == 7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cache_values": torch.rand(12, 3)}, r"shape \(12, 3\) that are not one-hot, in train"),
        ({"cache_values": torch.ones(12, 3)}, "argmax"),
        ({"cache_keys": features(4, 5)}, r"(?s)12 labels for 4 rows.*\(4, 5\).*array\.T"),
        ({"clip_weights": features(4, 7)}, r"(?s)shape \(4, 7\).*array\.T"),
    ],
)
def test_arrays_that_fit_no_way_say_how_to_turn_them(changed, message, tmp_path):
    path = tmp_path / "tip.safetensors"
    save_file(tip_adapter()[0] | changed, path)
    with pytest.raises(DataError, match=message):
        load_features(f"{path}#train")


def test_labels_in_a_column_are_labels(file):
    path = file(features=features(), labels=torch.tensor([[0], [1], [2], [0]]))
    assert load_features(path).feature_set.labels.tolist() == [0, 1, 2, 0]


def test_rows_of_zeros_are_refused(file):
    rows = features()
    rows[2] = 0
    path = file(features=rows, labels=torch.tensor([0, 1, 2, 0]))
    with pytest.raises(DataError, match="1 row of the features are all 0: 2"):
        load_features(path)


def test_features_where_pictures_are_meant_say_how_to_give_them(file, tmp_path, monkeypatch):
    path = file()
    probe = {"method": "linear-probe", "options": {"C": 1.0}}
    classifier = clip_adapter.fit(path, **probe)
    with pytest.raises(DataError, match="holds features, and is no picture") as caught:
        classifier.predict(str(path))
    way = caught.value.hint.removeprefix("Give its features: ").removesuffix(".")
    assert len(classifier.predict(eval(way, {"clip_adapter": clip_adapter}))) == 4

    table = tmp_path / "rows.csv"
    frame = pd.DataFrame(features(8, 20).numpy(), columns=[f"f{i}" for i in range(20)])
    frame.assign(label=list("abab") * 2).to_csv(table, index=False)
    with pytest.raises(DataError, match="most of them numbers: features") as caught:
        clip_adapter.fit(table)
    way = caught.value.hint.removeprefix("If they are features, convert them once: ")
    monkeypatch.chdir(tmp_path)
    exec(way.split(". docs")[0], {})
    assert clip_adapter.fit("rows.npz", **probe).class_names == ["a", "b"]


def test_the_set_that_is_proposed_is_one_to_learn_from(file):
    path = file(**{f"{name}.features": features() for name in ("test", "train_1shot")})
    with pytest.raises(UsageError) as error:
        load_features(path)
    assert error.value.hint == f"Name one: {path}#train_1shot; to test on, {path}#test"
    path = file()
    with pytest.raises(UsageError, match="Unknown set") as error:
        load_features(f"{path}#train")
    assert error.value.allowed == "(nameless)"
    assert error.value.hint == f"Its one set has no name: {path}"
