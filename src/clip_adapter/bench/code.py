"""The code of other packages as part of what a run is known by: edited code is another run.

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

from clip_adapter.backbones.names import GROUP, own_names
from clip_adapter.features.store import content_digest
from clip_adapter.files import file_digest
from clip_adapter.methods import get_method

# No package of these is anybody's method.
OURS = {__name__.partition(".")[0], *sys.stdlib_module_names}


def named_in(method: str, options: Mapping[str, Any]) -> list[str]:
    """``method`` and all words of its options, some of which name methods that it builds on."""
    return [method, *re.findall(r"[\w+-]+", " ".join(filter(_is_text, options.values())))]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def method_code(name: str) -> str:
    """Digest of the Python files of the package of the method ``name``; "" for one of this package.

    Those of the packages of its base classes are in it; what they import from yet others is not.

    Raises:
        UsageError: no such method.
    """
    return _digest(cls.__module__ for cls in get_method(name).__mro__)


def backbone_code(name: str) -> str:
    """The same of the package that registered the backbone ``name``; "" for all other backbones."""
    entries = entry_points(group=GROUP) if name in own_names() else ()
    return _digest(entry.module for entry in entries if entry.name == name)


def _digest(modules: Iterable[str]) -> str:
    packages = {module.partition(".")[0] for module in modules} - OURS
    files = [(name, file_digest(path)) for one in sorted(packages) for name, path in _files(one)]
    return content_digest(json.dumps(files).encode()) if files else ""


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """Every Python file of a package, or the one of a module, with its name in it."""
    loaded = sys.modules.get(package)
    spec = None if loaded else find_spec(package)  # a backbone's package may not be loaded yet
    folders = getattr(loaded or spec, "__path__" if loaded else "submodule_search_locations", None)
    file = getattr(loaded or spec, "__file__" if loaded else "origin", None)
    for folder in map(Path, folders or ()):
        for path in sorted(folder.rglob("*.py")):
            yield path.relative_to(folder.parent).as_posix(), path
    if file and not folders:
        yield package, Path(file)
