import json

import pytest

from clip_adapter.datasets import descriptions
from clip_adapter.datasets.descriptions import read_descriptions
from clip_adapter.errors import DataError

NAMES = ["tabby cat", "caf\u00e9"]


@pytest.fixture
def write(tmp_path):
    def make(content):
        path = tmp_path / "told.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return make


def test_sentences_come_in_label_order_each_once(write):
    content = {"cafe\u0301": ["Coffee."], "eel": ["Wet."], "tabby cat": ["Soft. ", "Soft.", "Old."]}
    descriptions = read_descriptions(write(content), NAMES)
    assert descriptions.sentences == (("Soft.", "Old."), ("Coffee.",))
    assert descriptions.others == ("eel",)
    facts = descriptions.facts()
    assert facts["file"] == "told.json"
    assert (facts["sentences"], facts["fewest_of_a_class"], facts["most_of_a_class"]) == (3, 1, 2)
    assert len(facts["sha256"]) == 64
    assert (
        read_descriptions(write({**content, "eel": ["Dry."]}), NAMES).digest != descriptions.digest
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tabby": ["x"], "caf\u00e9": ["x"]}, r"2 classes and leaves out 'tabby cat' .*'tabby'"),
        ({"tabby cat": [], "caf\u00e9": ["x"]}, "tabby cat: List should have at least 1 item"),
        (
            {"tabby cat": "Soft.", "caf\u00e9": ["x"]},
            r"tabby cat: .* valid list; there is 'Soft\.'",
        ),
        ({"tabby cat": ["x", 3]}, "tabby cat, 1: .* valid string; there is '3'"),
        ({"tabby cat": ["x", " "]}, "tabby cat, 1: String should have at least 1"),
        ({"tabby cat": {"a": 1}}, "valid list"),
        ({"tabby cat": ["x"] * 1001}, "at most 1000 items"),
        (["tabby cat"], "valid dictionary"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"a": ["x"], "a": ["y"]}', "'a' more than once"),
    ],
)
def test_what_is_wrong_is_said(write, content, message):
    with pytest.raises(DataError, match=message):
        read_descriptions(write(content), NAMES)


def test_files_that_are_missing_or_too_large(write, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be read"):
        read_descriptions(tmp_path / "none.json", NAMES)
    with pytest.raises(DataError, match="cannot be read"):
        read_descriptions(tmp_path, NAMES)
    monkeypatch.setattr(descriptions, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="bytes"):
        read_descriptions(write({n: ["x"] for n in NAMES}), NAMES)
