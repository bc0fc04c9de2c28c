"""The benchmark: recipes to runs, runs to results, results to tables and figures.

It needs the extra ``bench``; nothing outside this folder and its commands does.
"""

from importlib.util import find_spec

from clip_adapter.errors import MissingExtraError

for _package in ("jinja2", "pandas", "pebble", "pydantic", "tabulate"):
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "bench", "The benchmark")
