"""The catalog of data sets: each file has the record that it is called after."""

import sys

import pytest

from clip_adapter.datasets import catalog
from clip_adapter.errors import DataError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("CONSTANT = 1", "holds no RECORD"),
        ("RECORD = 1", "holds no RECORD"),
        (
            "from dataclasses import replace\n"
            "from clip_adapter.datasets.catalog.eurosat import RECORD\n"
            "RECORD = replace(RECORD, name='other')",
            "holds a RECORD named 'other'",
        ),
    ],
)
def test_a_file_without_a_record_of_its_name_is_named(tmp_path, monkeypatch, text, found):
    (tmp_path / "no_set.py").write_text(text)
    monkeypatch.setattr(catalog, "__path__", [*catalog.__path__, str(tmp_path)])
    module = f"{catalog.__name__}.no_set"
    monkeypatch.setitem(sys.modules, module, None)  # so that it is forgotten afterwards
    del sys.modules[module]
    with pytest.raises(DataError, match=rf"no_set\.py {found}(?s:.*)name='no_set'"):
        catalog._record_of("no_set")
