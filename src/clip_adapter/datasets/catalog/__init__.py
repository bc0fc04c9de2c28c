"""The paper's eleven data sets, its four shifts of ImageNet, and CIFAR: a record each, all closed.

A file of this folder that holds a ``RECORD`` is a data set: nothing else lists it.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

from clip_adapter.datasets.catalog.base import (
    DEFAULT_TEMPLATE,
    Archive,
    Benchmark,
    HubCopy,
    SideFile,
)
from clip_adapter.errors import DataError, unknown_name

__all__ = [
    "DEFAULT_TEMPLATE",
    "RECORDS",
    "Archive",
    "Benchmark",
    "HubCopy",
    "SideFile",
    "benchmark_names",
    "get_benchmark",
    "known_benchmark",
]


def _record_of(file: str) -> Benchmark:
    """The record in ``file.py``.

    Raises:
        DataError: it holds none, one that is called otherwise or has a name that is never found, or
            one that does not say where the pictures lie.
    """
    module = importlib.import_module(f"{__name__}.{file}")
    record = getattr(module, "RECORD", None)
    if not isinstance(record, Benchmark) or record.name != file:
        what = f"a RECORD named {record.name!r}" if isinstance(record, Benchmark) else "no RECORD"
        raise DataError(
            f"{module.__file__} holds {what}.",
            allowed=f"RECORD = Benchmark(name={file!r}, ...): a data set is called as its file",
            hint="Give it that RECORD, or rename the file, or move it out of this folder.",
        )
    for name in (file, *record.aliases):
        bare = _bare(name)
        if bare != (name.replace("_", "") if name == file else name):
            raise DataError(
                f"{module.__file__} holds a RECORD with the name {name!r}, which is never found.",
                allowed="lower case; in aliases letters and digits alone",
                hint=f"Call it {bare!r}{', and its file' * (name == file)}.",
            )
    if not record.picture_folders:
        raise DataError(
            f"{module.__file__} holds a RECORD that does not say where its pictures lie.",
            allowed=f"images, or split_folders: folders inside folder={record.folder!r}",
            hint='Add images=("images",) with the folder that holds the pictures.',
        )
    return record


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


_FILES = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
RECORDS: dict[str, Benchmark] = {
    record.name: record
    for record in sorted(map(_record_of, _FILES), key=lambda r: (r.order, r.name))
}
"""All records by name, in the paper's order."""


def benchmark_names() -> tuple[str, ...]:
    """The names of all records, in the paper's order."""
    return tuple(RECORDS)


def known_benchmark(name: str) -> str | None:
    """The record that ``name`` spells, or None.

    Case, punctuation and CoOp's prefix ``split_zhou_`` do not count; the whole name must match.
    """
    bare = _bare(name.removeprefix("split_zhou_"))
    return next((n for n, r in RECORDS.items() if bare in (n.replace("_", ""), *r.aliases)), None)


def get_benchmark(name: str) -> Benchmark:
    """The record of a data set.

    Raises:
        UsageError: there is none of this name.
    """
    known = known_benchmark(name)
    if known is None:
        raise unknown_name("data set", name, RECORDS, "'clip-adapter data ls' tells what they are.")
    return RECORDS[known]
