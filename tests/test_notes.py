"""What the command line says of dropped data, Python says too, and the classifier remembers."""

import json
import logging

import pytest
from PIL import Image

import clip_adapter
from clip_adapter.classifier import Classifier
from clip_adapter.datasets import decode
from clip_adapter.features.dropped import BadPicture, report_skipped
from clip_adapter.reporting import Notes, NotesWarning, log, note

HEIC = b"\0\0\0\x18ftypheic" + bytes(100)


@pytest.fixture(scope="module")
def tiny(make_folder):
    return str(make_folder())


@pytest.fixture
def untidy(tmp_path, monkeypatch):
    """Two classes of two pictures, and of everything that is dropped one."""
    monkeypatch.setattr(decode, "_reads_heic", lambda: False)
    folder = tmp_path / "photos"
    for i, (name, colour) in enumerate({"red": (250, 0, 0), "blue": (0, 0, 250)}.items()):
        (folder / name).mkdir(parents=True)
        for shade in range(2):
            Image.new("RGB", (9, 9), colour).point(lambda v, s=shade + i: v - 9 * s).save(
                folder / name / f"{shade}.png"
            )
    (folder / "red" / "bad.jpg").write_text("no picture")
    (folder / "red" / "IMG_1.HEIC").write_bytes(HEIC)
    (folder / "red" / "again.png").write_bytes((folder / "red" / "0.png").read_bytes())
    (folder / "blue" / "torn.png").write_bytes((folder / "red" / "1.png").read_bytes())
    (folder / "blue" / "list.pdf").write_text("x")
    (folder / "loose.png").write_bytes((folder / "red" / "0.png").read_bytes())
    (folder / "empty").mkdir()
    return folder


EXPECTED = (
    "Class 'empty' has no pictures.",
    "1 picture directly in",
    "1 file left out, not pictures by their ending (1 .pdf).",
    "1 picture is there under two labels",
    "1 picture is an exact duplicate",
    f"1 .heic picture needs: {decode.HEIC_EXTRA}",
    "2 of 8 pictures skipped.",
    "2 training pictures are left out: also there under another label.",
    "1 exact copy counts no second time.",
    "1 class has no training picture: 'empty'.",
)


def test_fit_says_once_what_is_dropped_and_the_classifier_keeps_it(untidy, tiny, lines):
    with pytest.warns(NotesWarning) as warned:
        classifier = clip_adapter.fit(untidy, method="zero-shot", backbone=tiny)
    assert len(warned) == 1
    assert issubclass(warned[0].category, UserWarning)
    assert warned[0].filename == __file__  # the caller's line
    notes = classifier.info["notes"]
    assert str(warned[0].message).split("\n") == notes
    assert len(notes) == len(EXPECTED)
    for words, line in zip(EXPECTED, notes, strict=True):
        assert words in line
    warnings = [r.message for r in lines.records if r.levelno == logging.WARNING]
    assert [line for line in warnings if not line.startswith("Skipped ")] == notes
    assert any(line.startswith("Skipped red/bad.jpg: ") for line in warnings)


def test_the_notes_are_saved_and_on_the_card(untidy, tiny, tmp_path):
    with pytest.warns(NotesWarning):
        classifier = clip_adapter.fit(untidy, method="zero-shot", backbone=tiny)
    folder = classifier.save(tmp_path / "classifier")
    saved = json.loads((folder / "classifier.json").read_text("utf-8"))
    assert saved["info"]["notes"] == classifier.info["notes"]
    assert Classifier.load(folder).info["notes"] == classifier.info["notes"]
    card = (folder / "README.md").read_text("utf-8")
    assert "Of the training data:\n\n- Class 'empty' has no pictures.\n" in card


def test_tidy_data_has_no_notes(untidy, tiny, tmp_path):
    for odd in ("red/bad.jpg", "red/IMG_1.HEIC", "red/again.png", "blue/torn.png"):
        (untidy / odd).unlink()
    (untidy / "blue" / "list.pdf").unlink()
    (untidy / "loose.png").unlink()
    (untidy / "empty").rmdir()
    classifier = clip_adapter.fit(untidy, method="zero-shot", backbone=tiny)
    assert classifier.info["notes"] == []
    folder = classifier.save(tmp_path / "classifier")
    assert "Of the training data" not in (folder / "README.md").read_text("utf-8")


def test_evaluate_warns_once_at_the_line_of_its_caller(untidy, tiny):
    with pytest.warns(NotesWarning):
        classifier = clip_adapter.fit(untidy, method="zero-shot", backbone=tiny, shots=1)
    with pytest.warns(NotesWarning, match="2 of 8 pictures skipped") as warned:
        report = clip_adapter.evaluate(classifier, untidy)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert len(report.skipped) == 2


def work(fail):
    with Notes():
        note("one")
        with Notes() as inner:
            note("two")
        assert inner == ["two"]
        if fail:
            raise ZeroDivisionError


def test_where_nobody_set_logging_up_a_note_is_heard_once(monkeypatch, capsys):
    monkeypatch.setattr(log, "hasHandlers", lambda: False)
    monkeypatch.setattr(log, "propagate", False)
    with pytest.warns(NotesWarning, match="^one\ntwo$"):
        work(fail=False)
    assert capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError):
        work(fail=True)
    assert capsys.readouterr().err == "one\ntwo\n"  # it ended before it could warn
    note("three")
    assert capsys.readouterr().err == "three\n"


def test_where_all_pictures_need_the_extra_the_error_names_it():
    bad = [BadPicture(f"{i}.heic", decode.NEEDS_HEIC) for i in range(3)]
    with pytest.raises(clip_adapter.ClipAdapterError) as caught:
        report_skipped(bad, 3, strict=False)
    assert caught.value.hint == decode.HEIC_EXTRA
