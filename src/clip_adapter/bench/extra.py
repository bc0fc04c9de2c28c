"""Imported before the packages of the extra ``bench``, so that one that is missing is told."""

from importlib.util import find_spec

from clip_adapter.errors import MissingExtraError

for _package in ("jinja2", "pandas", "pebble", "tabulate"):
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "bench", "The benchmark")
