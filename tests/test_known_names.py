"""Names that are known without torch, and what an extra adds."""

import sys
from types import SimpleNamespace

import pytest

from clip_adapter import errors
from clip_adapter.errors import UsageError, how_to_install
from clip_adapter.known_names import check_device, check_method, own_methods


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:1", "mps", "xpu:0", "meta"])
def test_devices_that_torch_may_have(name):
    check_device(name)


@pytest.mark.parametrize(
    ("name", "near"), [("gpu", "cpu"), ("CUDA:0", "cuda:N"), ("cuda0", "cuda"), ("cuda:", "cuda")]
)
def test_devices_that_are_none(name, near):
    with pytest.raises(UsageError, match=f"(?s)Unknown device '{name}'.*{near}"):
        check_device(name)


def test_a_method_of_another_package_may_have_any_name(monkeypatch):
    monkeypatch.delitem(sys.modules, "clip_adapter.methods.base", raising=False)
    monkeypatch.setattr("clip_adapter.known_names.entry_points", lambda group: ())
    for name in own_methods():
        check_method(name)
    with pytest.raises(UsageError, match="Did you mean 'clip-adapter'"):
        check_method("clip-adaptr")
    monkeypatch.setattr("clip_adapter.known_names.entry_points", lambda group: ("theirs",))
    check_method("clip-adaptr")


LINES = [
    "numpy>=2.0",
    'pillow-heif>=1.1; extra == "heic"',
    "pandas>=2.2 ; python_version < '4' and extra == 'bench'",
    "jinja2>=3.1; extra == 'bench'",
    "other; extra == 'bench-more'",
]


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("heic", "pip install 'pillow-heif>=1.1' (the extra 'heic')"),
        ("bench", "pip install 'pandas>=2.2' 'jinja2>=3.1' (the extra 'bench')"),
        ("none", "Install the extra 'none' of clip-adapter"),
    ],
)
def test_an_extra_is_installed_by_the_names_of_its_packages(extra, command, monkeypatch):
    installed = [SimpleNamespace(requires=LINES)]
    monkeypatch.setattr("importlib.metadata.distributions", lambda name: installed)
    assert how_to_install(extra) == command
    assert errors.MissingExtraError("x", extra, "It").hint == f"{command}."


def test_a_folder_of_source_still_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.metadata.distributions", lambda name: ())
    assert how_to_install("heic") == "Install the extra 'heic' of clip-adapter"
