"""Digests of what a name in a run stands for: edited code, or other weights, are another run.

This package's own methods are known by their names: its version and commit stand in each result.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clip_adapter.backbones.names import GROUP, files_of, is_own
from clip_adapter.features.store import content_digest
from clip_adapter.files import file_digest
from clip_adapter.methods import get_method

# No package of these is anybody's method.
OURS = {__name__.partition(".")[0], *sys.stdlib_module_names}


def named_in(method: str, options: Mapping[str, Any]) -> list[str]:
    """``method`` and all words of its options, some of which name methods that it builds on."""
    texts = (value for value in options.values() if isinstance(value, str))
    return [method, *re.findall(r"[\w+-]+", " ".join(texts))]


def method_code(name: str) -> str:
    """Digest of the Python files of the package of the method ``name``; "" for one of this package.

    Those of the packages of its base classes are in it; what they import from yet others is not.

    Raises:
        UsageError: no such method.
    """
    return _digest(_code(cls.__module__ for cls in get_method(name).__mro__))


def weights_of(backbone: str) -> str:
    """Digest of the files of ``backbone``, or of the code of the package that registered it.

    It is "" where the name tells all.
    """
    entries = entry_points(group=GROUP) if is_own(backbone) else ()
    files = [(path.name, path) for path in files_of(backbone)]
    return _digest(files or _code(entry.module for entry in entries if entry.name == backbone))


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    digests = [(name, file_digest(path)) for name, path in files]
    return content_digest(json.dumps(digests).encode()) if digests else ""


def _code(modules: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Every Python file of the packages of ``modules`` that are not ours, with its name in them."""
    for package in sorted({module.partition(".")[0] for module in modules} - OURS):
        loaded = sys.modules.get(package)
        spec = None if loaded else find_spec(package)  # a backbone's may not be loaded yet
        folders = getattr(
            loaded or spec, "__path__" if loaded else "submodule_search_locations", None
        )
        file = getattr(loaded or spec, "__file__" if loaded else "origin", None)
        for folder in map(Path, folders or ()):
            for path in sorted(folder.rglob("*.py")):
                yield path.relative_to(folder.parent).as_posix(), path
        if file and not folders:
            yield package, Path(file)
