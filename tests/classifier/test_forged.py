"""Saved classifiers changed by someone who made the digests fit as well: always "damaged"."""

import hashlib
import json

import pytest
import torch
from example_heads import NAMES, SHOTS, C, D, cache, draw, heads
from safetensors.torch import load_file, save_file

from clip_adapter.classifier import Classifier
from clip_adapter.classifier.saving import MAX_MEMBERS
from clip_adapter.errors import ClassifierError
from clip_adapter.heads import Head, Mixture
from clip_adapter.nn import Projection
from clip_adapter.towers.lora import Lora

NAN, INF = float("nan"), float("inf")
ADAPTER, TOWER, WEIGHTS = (f"{n}.safetensors" for n in ("adapter", "tower", "class_weights"))


def classifier_of(kind):
    return Classifier(heads()[kind], NAMES, text_weights=draw(C, D, seed=4))


def forge(folder, file="", config=None, **tensors):
    """Changes entries of the configuration ("a.b.0": value) and tensors; None removes."""
    if file:
        known = load_file(folder / file) if (folder / file).exists() else {}
        known |= {k.replace("__", "."): v for k, v in tensors.items()}
        save_file({k: v.contiguous() for k, v in known.items() if v is not None}, folder / file)
    path = folder / "classifier.json"
    record = json.loads(path.read_text("utf-8"))
    for place, value in (config or {}).items():
        *way, last = [int(p) if p.isdecimal() else p for p in place.split(".")]
        inner = record
        for step in way:
            inner = inner[step]
        inner[last] = value
    if "sha256" not in (config or {}):
        for name in (ADAPTER, TOWER, WEIGHTS):
            data = (folder / name).read_bytes() if (folder / name).exists() else None
            record["sha256"][name] = data and hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(record), "utf-8")
    return folder


def refused(folder):
    with pytest.raises(ClassifierError, match="damaged") as caught:
        Classifier.load(folder)
    assert "\n" not in caught.value.found
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        ("linear", {"weights": draw(C + 1, D)}),
        ("linear", {"weights": draw(C)}),
        ("linear", {"weights": draw(C, D, 1)}),
        ("linear", {"weights": draw(C, 0)}),
        ("linear", {"weights": torch.full((C, D), NAN)}),
        ("linear", {"weights": torch.ones(C, D, dtype=torch.int64)}),
        ("linear", {"weights": torch.ones(C, D, dtype=torch.complex64)}),
        ("linear", {"bias": draw(C + 1)}),
        ("linear", {"bias": draw(1)}),
        ("linear", {"bias": draw(1, C)}),
        ("linear", {"bias": torch.tensor([0.0, INF, 0.0])}),
        ("linear", {"text": draw(C - 1, D)}),
        ("linear", {"text": draw(C)}),
        ("linear", {"text": draw(C, 0)}),
        ("linear", {"text": torch.full((C, D), INF)}),
        ("linear", {"text": torch.ones(C, D, dtype=torch.int32)}),
        ("linear", {"text": None}),
        ("projection", {"weights": draw(C, 5)}),
        ("adapter", {"weights": draw(C, D + 1)}),
        ("mixture", {"0__weights": draw(C + 1, D)}),
        ("mixture", {"0__weights": draw(C, D + 1)}),
        ("mixture", {"1__weights": None}),
    ],
)
def test_weights(kind, tensors, tmp_path):
    refused(forge(classifier_of(kind).save(tmp_path / "m"), WEIGHTS, **tensors))


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        ("cache", {"cache__keys": draw(SHOTS, D - 1)}),
        ("cache", {"cache__keys": draw(SHOTS - 1, D)}),
        ("cache", {"cache__keys": draw(SHOTS)}),
        ("cache", {"cache__keys": torch.full((SHOTS, D), NAN)}),
        ("cache", {"cache__keys": None}),
        ("cache", {"cache__keys": draw(0, D), "cache__values": draw(0, C)}),
        ("cache", {"cache__values": draw(SHOTS, C + 1)}),
        ("cache", {"cache__values": draw(SHOTS)}),
        ("cache", {"cache__values": draw(2, SHOTS, C)}),
        ("cache", {"cache__values": torch.full((SHOTS, C), INF)}),
        ("cache", {"cache__weight": draw(2)}),
        ("cache", {"cache__weight": torch.tensor(NAN)}),
        ("cache", {"cache__sharpness": draw(1)}),
        ("cache", {"cache__sharpness": torch.tensor(INF)}),
        ("channels", {"cache__channels": torch.tensor([1, 4, D])}),
        ("channels", {"cache__channels": torch.tensor([1, -1, 5])}),
        ("channels", {"cache__channels": torch.tensor([[1, 4, 5]])}),
        ("channels", {"cache__channels": torch.tensor([1, 4])}),
        ("channels", {"cache__channels": torch.tensor([1.0, 4.0, 5.0])}),
        ("channels", {"cache__channels": torch.tensor([1, 4, 5], dtype=torch.int8)}),
        ("channels", {"cache__channels": None}),
        ("adapter", {"bottleneck__down": draw(D, 3)}),
        ("adapter", {"bottleneck__up": None}),
        ("adapter", {"bottleneck__more": draw(1)}),
        ("adapter", {"ratio__value": torch.tensor(NAN)}),
        ("adapter", {"ratio__value": draw(2)}),
        ("projection", {"bias": draw(5)}),
        ("projection", {"matrix": torch.ones(D, 4, dtype=torch.int32)}),
    ],
)
def test_maps_and_caches(kind, tensors, tmp_path):
    refused(forge(classifier_of(kind).save(tmp_path / "m"), ADAPTER, **tensors))


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        *[("linear", "logit_scale", v) for v in (NAN, INF, 0, -1, 1e300, "100", None, True)],
        *[("linear", "class_names", v) for v in ("abc", [1, 2, 3], ["a"], {}, None, 10**9)],
        *[("linear", "unit", v) for v in ("no", 1, None)],
        *[("cache", "cache", v) for v in ("no", 1, None)],
        *[("mixture", "members.0.share", v) for v in (NAN, INF, "1", None, [1])],
        ("mixture", "members.1.logit_scale", -INF),
        ("mixture", "members", {}),
        ("mixture", "members", 5),
        ("mixture", "members.0", None),
        *[("linear", "head", v) for v in (["cosine"], "pickle")],
        ("mixture", "members", []),
        ("mixture", "members", [{"head": "mixture", "members": [], "share": 1.0}]),
        ("linear", "feature_norm", "zzz"),
        ("linear", "image_map", 5),
        ("linear", "text", "bias"),
        ("linear", "text", "nowhere"),
        ("linear", "format", "1"),
        ("linear", "format", 0),
        ("linear", "sha256", {}),
        ("linear", "sha256", []),
        *[("linear", "info", v) for v in (None, 5, [["backbone", "demo"]])],
        *[("linear", "info", {k: [1]}) for k in ("backbone", "dtype", "trained_parameters")],
        *[("linear", "change", v) for v in ([], {}, {"kind": []})],
        ("linear", "change", {"kind": ["lora"]}),
        *[("adapter", "image_map.dim", v) for v in (0, -D, D + 1, 8.0, "8", None, NAN, 10**400)],
        *[("adapter", "image_map.ratio", v) for v in ("other", 0.5, None)],
        ("adapter", "image_map.activation", "relu"),
        *[("adapter", "image_map.kind", v) for v in ([], "os.system")],
        ("projection", "image_map.bias", 0),
    ],
)
def test_the_description(kind, place, value, tmp_path):
    refused(forge(classifier_of(kind).save(tmp_path / "m"), config={place: value}))


@pytest.mark.parametrize("text", ["[]", "null", "5", "[" * 100_000, '{"format": 1}'])
def test_another_description(text, tmp_path):
    folder = classifier_of("linear").save(tmp_path / "m")
    (folder / "classifier.json").write_text(text)
    refused(folder)


@pytest.mark.parametrize("seen", ["5", "[[1]]", "{"])
def test_the_digests_of_pictures(seen, tmp_path):
    folder = classifier_of("linear").save(tmp_path / "m")
    (folder / "seen.json").write_text(seen)
    refused(folder)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("adapter", {"dim": 16_000, "hidden": 16_000}),
        ("adapter", {"dim": 10**6, "hidden": 10**6}),
        ("ratio", {"dim": 60_000, "hidden": 2}),
        ("projection", {"trunk": 16_000, "dim": 16_000}),
        ("projection", {"trunk": 10**6, "dim": 10**6}),
        ("projection", {"trunk": 10**18, "dim": 10**18}),
    ],
)
def test_a_few_bytes_do_not_take_gigabytes(kind, sizes, tmp_path, small_tensors):
    folder = classifier_of(kind).save(tmp_path / "m")
    forge(folder, config={f"image_map.{k}": v for k, v in sizes.items()})
    with small_tensors:
        refused(folder)


def test_a_forged_change_of_the_tower(tmp_path):
    adapter = Lora(2, 16)
    for number, value in enumerate([NAN, INF, 0, -1, 10**9, "2"]):
        folder = Classifier(Head(draw(C, D)), NAMES, tower_adapter=adapter).save(
            tmp_path / str(number)
        )
        refused(forge(folder, config={"change.rank": value}))


def test_what_fits_still_loads(tmp_path):
    """The forging itself is not what is refused; members may differ in what they map to."""
    folder = forge(
        classifier_of("channels").save(tmp_path / "m"), WEIGHTS, weights=draw(C, D, seed=5)
    )
    assert torch.equal(Classifier.load(folder).head.state_dict()["weights"], draw(C, D, seed=5))
    both = [Head(draw(C, 4), Projection(draw(D, 4))), Head(draw(C, D), kind="linear")]
    mixed = Classifier(Mixture(both, [1, 2]), ["a", "a", "b"])  # two classes of one name
    loaded = Classifier.load(mixed.save(tmp_path / "mixed"))
    assert torch.equal(loaded.logits(draw(5, D)), mixed.logits(draw(5, D)))


def test_saving_makes_nothing_that_loading_refuses(tmp_path):
    head = Head(draw(C, D))
    many = Mixture([head] * (MAX_MEMBERS + 1), [1.0] * (MAX_MEMBERS + 1))
    wrong = [
        Classifier(many, NAMES),
        Classifier(head, ["a", "b"]),
        Classifier(Head(draw(1, D)), ["a"]),
        Classifier(Head(draw(C, D), bias=draw(C + 1), kind="linear"), NAMES),
        Classifier(head, NAMES, text_weights=draw(C + 1, D)),
        Classifier(head, NAMES, text_weights=torch.full((C, D), NAN)),
        Classifier(Head(draw(C, D + 1), cache=cache()), NAMES),
        Classifier(Mixture([head, Head(draw(C, D + 1))], [1, 1]), NAMES),
        Classifier(head, [1, 2, 3]),  # pyright: ignore[reportArgumentType]
    ]
    for number, classifier in enumerate(wrong):
        with pytest.raises(ClassifierError, match="cannot be saved"):
            classifier.save(tmp_path / str(number))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [NAN, INF, 0.0, -100.0])
def test_scales_and_shares_are_checked_when_a_classifier_is_made(scale):
    head = Head(draw(C, D))
    with pytest.raises(ClassifierError, match="above 0"):
        Classifier(Head(draw(C, D), logit_scale=scale), NAMES)
    with pytest.raises(ClassifierError, match="above 0"):
        Classifier(Mixture([head], [1.0], scale), NAMES)
    if scale != scale or scale == INF:
        with pytest.raises(ClassifierError, match="shares"):
            Classifier(Mixture([head], [scale]), NAMES)


def test_the_record_is_json_that_every_reader_takes(tmp_path):
    info = {"selection": [{"loss": [0.5, NAN, INF]}], "seconds": -INF, "pair": (1, NAN)}
    folder = Classifier(Head(draw(C, D)), NAMES, info=info).save(tmp_path / "m")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    saved = json.loads((folder / "classifier.json").read_text(), parse_constant=refuse)["info"]
    assert saved == {"selection": [{"loss": [0.5, None, None]}], "seconds": None, "pair": [1, None]}
    assert Classifier.load(folder).info == saved
