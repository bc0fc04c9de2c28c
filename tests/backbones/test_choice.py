"""``auto``: the best backbone that the pictures, the machine and the network allow."""

import json
import threading
from types import SimpleNamespace

import pytest
from PIL import Image

import clip_adapter
from clip_adapter.backbones import choice, load_backbone, rates
from clip_adapter.backbones.choice import choose
from clip_adapter.backbones.table import find, rows
from clip_adapter.backbones.weights import WEIGHTS_FILE
from clip_adapter.errors import BackboneError, UsageError
from clip_adapter.options import SourceOptions
from clip_adapter.sources import open_source

CPU = ("cpu", "float32")
B32, B32_256 = "ViT-B-32/datacomp_xl_s13b_b90k", "ViT-B-32-256/datacomp_s34b_b86k"
SIGLIP2, BEST = "ViT-B-32-SigLIP2-256/webli", "ViT-SO400M-16-SigLIP2-384/webli"


@pytest.fixture(autouse=True)
def machine(monkeypatch, hub):
    """100 pictures a second by ViT-B-32, plenty of memory, transformers, a hub that answers."""
    here = SimpleNamespace(measured=[], memory=2**40, packages={"transformers"}, hub=hub)
    hub.files = {WEIGHTS_FILE: 1}

    def rate(row, device, dtype):
        here.measured.append(row.arch)
        return {"ViT-B-32": 100.0, "ViT-B-16": 90.0}.get(row.arch, 7.0)

    monkeypatch.setattr(rates, "_rate", rate)
    monkeypatch.setattr(rates, "total_memory", lambda device: here.memory)
    monkeypatch.setattr(choice, "find_spec", lambda name: name in here.packages or None)
    return here


def test_the_most_accurate_one_that_takes_at_most_a_minute():
    assert choose(1, *CPU)[0] == BEST
    assert choose(6000, *CPU)[0] == B32
    assert choose(6001, *CPU) == (
        B32,
        "the quickest one: 6,001 pictures take about 1 minute here (100 a second, measured)",
    )
    scaled = int(60 * 100 * find(B32).multiply_adds / find(SIGLIP2).multiply_adds)
    name, reason = choose(scaled, *CPU)
    assert name == SIGLIP2
    assert (
        f"the most accurate one that encodes {scaled:,} pictures in at most a minute here" in reason
    )
    assert "as scaled from ViT-B-32" in reason
    assert choose(scaled + 1, *CPU)[0] == B32


def test_the_machine_is_measured_once(machine):
    first = [choose(number, *CPU)[0] for number in (1, 500, 5000, 50_000)]
    assert machine.measured == ["ViT-B-32"]
    assert [choose(number, *CPU)[0] for number in (1, 500, 5000, 50_000)] == first
    assert machine.measured == ["ViT-B-32"]
    choose(1, "cpu", "bfloat16")  # another number format is another machine
    assert len(machine.measured) == 2


def test_a_measured_rate_goes_before_a_scaled_one(machine):
    rates.measure(rows(), *CPU)
    assert len(machine.measured) == len({row.arch for row in rows()})
    assert choose(60 * 7, *CPU)[0] == BEST
    assert choose(60 * 7 + 1, *CPU)[0] == B32


def test_what_was_interrupted_goes_on(machine, monkeypatch):
    rate = rates._rate

    def stopped(row, *where):
        if len(machine.measured) == 2:
            raise KeyboardInterrupt
        return rate(row, *where)

    monkeypatch.setattr(rates, "_rate", stopped)
    with pytest.raises(KeyboardInterrupt):
        rates.measure(rows(), *CPU)
    assert len(rates.rates(*CPU)) == 2
    monkeypatch.setattr(rates, "_rate", rate)
    known = rates.measure(rows(), *CPU)
    assert sorted(machine.measured) == sorted(known)


def test_a_damaged_file_of_rates_is_told_and_measured_anew(machine, lines):
    choose(1, *CPU)
    rates.rates_file().write_text("{")
    assert choose(1, *CPU)[0] == BEST
    assert "is no JSON" in lines.text
    assert "measured anew" in lines.text
    assert machine.measured == ["ViT-B-32"] * 2
    assert json.loads(rates.rates_file().read_text())


def test_texts_that_no_installed_package_reads_are_passed_over(machine):
    machine.packages.clear()
    assert choose(1, *CPU)[0] == "PE-Core-L-14-336/meta"
    assert choose(4000, *CPU)[0] == B32_256


def test_weights_take_at_most_a_quarter_of_the_memory(machine, lines):
    machine.memory = 16 * 671_100_000
    assert choose(1, *CPU)[0] == "PE-Core-L-14-336/meta"
    machine.memory -= 16_000_000
    assert choose(1, *CPU)[0] == "ViT-L-14/datacomp_xl_s13b_b90k"
    rates.measure(rows(), *CPU)
    assert "too large for the memory here" in lines.text
    assert "ViT-SO400M-16-SigLIP2-384" in lines.text
    assert "ViT-SO400M-16-SigLIP2-384" not in machine.measured
    machine.memory = None  # a system that does not tell
    assert choose(1, *CPU)[0] == BEST


def fetched(machine, name, tokenizer=True):
    from clip_adapter.backbones.names import origin_of
    from clip_adapter.backbones.weights import _on_hub

    folder = machine.hub.cache / _on_hub(origin_of(name))[0].replace("/", "--")
    folder.mkdir(parents=True)
    (folder / WEIGHTS_FILE).touch()
    if tokenizer:
        (folder / "tokenizer_config.json").touch()


def test_without_a_network_what_was_fetched_before_is_taken(machine, monkeypatch):
    monkeypatch.setattr("clip_adapter.hub.ANSWER", 0.05)
    machine.hub.wait = threading.Event()
    assert choose(1, *CPU)[0] == BEST  # nothing is here: what it wants is said by the error
    for name in ("ViT-B-16/openai", "ViT-L-14/openai", "ViT-B-16/dfn2b"):
        fetched(machine, name)
    fetched(machine, SIGLIP2, tokenizer=False)
    name, reason = choose(1, *CPU)
    assert name == "ViT-L-14/openai"
    assert "the hub gives no answer, so those fetched before were looked at" in reason
    assert choose(1000, *CPU)[0] == "ViT-B-16/openai"
    fetched(machine, B32)
    name, reason = choose(6000, *CPU)
    assert name == B32
    assert "no answer" not in reason  # it is what would be taken anyway
    machine.hub.wait.set()


def test_a_repository_that_answers_is_enough(machine):
    machine.hub.files = {"open_clip_pytorch_model.bin": 1}
    assert "no answer" not in choose(1, *CPU)[1]
    machine.hub.error = ConnectionError("no route")
    fetched(machine, B32_256)
    assert choose(1, *CPU)[0] == B32_256


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("red", (200, 9, 9)), ("blue", (9, 9, 200))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            picture = Image.new("RGB", (32, 32), (*colour[:2], colour[2] + i))
            picture.save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def chosen_for(monkeypatch, make_folder):
    """``auto`` takes a tiny CLIP; the numbers of pictures that it was asked about."""
    numbers, tiny = [], f"local-dir:{make_folder()}"

    def take(pictures, device, dtype):
        numbers.append(pictures)
        return tiny, "for a test"

    monkeypatch.setattr(choice, "choose", take)
    return SimpleNamespace(numbers=numbers, name=tiny)


@pytest.mark.parametrize(("options", "number"), [({}, 8), ({"shots": 2}, 4), ({"shots": 9}, 8)])
def test_fit_counts_the_pictures_and_records_the_name(
    folder, chosen_for, options, number, tmp_path, lines
):
    made = clip_adapter.fit(folder, method="zero-shot", backbone="auto", device="cpu", **options)
    assert chosen_for.numbers == [number]
    assert f"Backbone: {chosen_for.name}, for a test." in lines.messages
    made.save(tmp_path / "made")
    info = clip_adapter.Classifier.load(tmp_path / "made").info
    assert info["backbone"] == chosen_for.name
    assert "auto" not in json.dumps({**info, "versions": 0})


def test_views_are_pictures_too(folder, chosen_for):
    source = open_source(folder, SourceOptions(backbone="auto", device="cpu", views=3))
    assert source.backbone.name == source.backbone.name == chosen_for.name
    assert chosen_for.numbers == [24]


def test_no_pictures_no_choice():
    with pytest.raises(UsageError, match="'auto' is chosen for pictures") as caught:
        load_backbone("auto")
    assert "ls backbones" in caught.value.hint


def test_weights_that_cannot_be_fetched_are_named_by_what_was_chosen(folder, machine):
    machine.hub.error = ConnectionError("no route")
    with pytest.raises(BackboneError, match=f"weights of {BEST} could not be fetched"):
        clip_adapter.fit(folder, backbone="auto", device="cpu")
