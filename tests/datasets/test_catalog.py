"""The catalog of data sets: each file has the record that it is called after."""

import sys

import pytest

from clip_adapter.datasets import catalog
from clip_adapter.errors import DataError


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Reads the record in a new file of the catalog."""

    def add(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(catalog, "__path__", [*catalog.__path__, str(tmp_path)])
        module = f"{catalog.__name__}.{name}"
        monkeypatch.setitem(sys.modules, module, None)  # so that it is forgotten afterwards
        del sys.modules[module]
        return catalog._record_of(name)

    return add


REPLACED = (
    "from dataclasses import replace\n"
    "from clip_adapter.datasets.catalog.eurosat import RECORD\n"
    "RECORD = replace(RECORD, name='{}', {})"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("CONSTANT = 1", "holds no RECORD"),
        ("RECORD = 1", "holds no RECORD"),
        (REPLACED.format("other", ""), "holds a RECORD named 'other'"),
    ],
)
def test_a_file_without_a_record_of_its_name_is_named(add, text, found):
    with pytest.raises(DataError, match=rf"no_set\.py {found}(?s:.*)name='no_set'"):
        add("no_set", text)


@pytest.mark.parametrize(
    ("name", "more", "found"),
    [
        ("MyBirds", "", "'MyBirds', which is never found(?s:.*)Call it 'mybirds', and its file"),
        (
            "my_birds",
            "aliases=('My-Birds',)",
            "'My-Birds', which is never(?s:.*)Call it 'mybirds'.$",
        ),
        ("my_birds", "images=()", "where its pictures lie(?s:.*)folder='eurosat'(?s:.*)Add images"),
    ],
)
def test_a_record_that_could_not_be_used_says_what_it_lacks(add, name, more, found):
    with pytest.raises(DataError, match=rf"{name}\.py holds a RECORD .*{found}"):
        add(name, REPLACED.format(name, more))
