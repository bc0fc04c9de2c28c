"""Slips in paths are answered with near names."""

import pytest

from clip_adapter import paths


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("photos/train", "photos/test", "Pictures", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("photo", ["photos"]),
        ("phtoso", ["photos"]),
        ("PHOTOS", ["photos"]),
        ("photso/train", ["photos/train"]),
        ("photos/tran", ["photos/train"]),
        ("photso/nothing", ["photos"]),  # what is behind it is not there either
        ("pictures", ["Pictures"]),
        ("w.safetensor", ["w.safetensors"]),
        ("w.safetensors/x", []),
        ("entirely other", []),
        ("photos", []),
        ("", []),
    ],
)
def test_near_paths(given, near, folder):
    assert paths.near_paths(given) == near
    assert paths.near_paths(folder / given) == [str(folder / one) for one in near]


def test_a_folder_that_cannot_be_read_has_no_near_names(monkeypatch):
    monkeypatch.setattr("os.scandir", lambda path: (_ for _ in ()).throw(PermissionError()))
    assert paths.did_you_mean("photo") == ""


def test_a_link_that_leads_nowhere_is_called_one(folder):
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nothing")
    for name in ("loop", "gone"):
        for path in (name, f"{name}/1.jpg", folder / name):
            assert f"{name}' is a link that leads nowhere." in paths.did_you_mean(path)
    assert "leads nowhere" in paths.no_classifier(folder / "loop").found
