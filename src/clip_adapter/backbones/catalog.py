"""open_clip's tables of architectures and weights, without the seconds of importing it.

A slip in a name, or weights that are out of reach, are told before torch is imported, which
importing open_clip does.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import json
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

_PARTS = {"embed_dim", "vision_cfg", "text_cfg"}  # what makes a file a model configuration


class Catalog(NamedTuple):
    """What open_clip knows by name.

    Attributes:
        configs: the model configuration of every architecture.
        weights: for every architecture that has some, what is known of its pretrained weights, by
            tag: ``hf_hub`` (repository/file), ``url``, ``quick_gelu`` and the preprocessing.
    """

    configs: Mapping[str, dict[str, Any]]
    weights: Mapping[str, Mapping[str, dict[str, Any]]]


def catalog() -> Catalog:
    """The tables of the installed open_clip, or of the imported one with what was added to it."""
    if "open_clip" not in sys.modules:
        # Another version may be laid out otherwise; importing it always works.
        with contextlib.suppress(Exception):
            return _unimported()
    import open_clip
    from open_clip import pretrained

    return Catalog(_Configs(open_clip), _weights(pretrained))


class _Configs(Mapping[str, dict[str, Any]]):
    """The configurations that the imported open_clip has now, each copied when it is asked for."""

    def __init__(self, open_clip: Any) -> None:
        self._open_clip = open_clip

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self:
            raise KeyError(name)
        return self._open_clip.get_model_config(name)

    def __contains__(self, name: object) -> bool:
        return name in self._open_clip.list_models()

    def __iter__(self) -> Iterator[str]:
        return iter(self._open_clip.list_models())

    def __len__(self) -> int:
        return len(self._open_clip.list_models())


@functools.cache
def _unimported() -> Catalog:
    spec = find_spec("open_clip")
    folder = Path(spec.origin or "").parent if spec else Path()
    files = sorted((folder / "model_configs").glob("*.json"))
    configs = {path.stem: json.loads(path.read_text("utf-8")) for path in files}
    return Catalog(
        {name: config for name, config in configs.items() if config.keys() >= _PARTS},
        _weights(_run(folder / "pretrained.py")),
    )


def _weights(pretrained: Any) -> dict[str, dict[str, dict[str, Any]]]:
    weights: dict[str, dict[str, dict[str, Any]]] = {}
    for arch, tag in pretrained.list_pretrained():
        weights.setdefault(arch, {})[tag] = pretrained.get_pretrained_cfg(arch, tag)
    return weights


def _run(path: Path) -> SimpleNamespace:
    """The names of a module that needs its neighbours and the standard library alone."""

    def light(name: str, *rest: Any) -> Any:
        if rest and rest[-1] == 1:
            return _run(path.with_name(f"{name}.py"))
        if name not in {*sys.stdlib_module_names, "tqdm"}:
            raise ImportError(name)  # what it can do without, to fetch weights
        return __import__(name, *rest)

    own = {"__builtins__": {**vars(builtins), "__import__": light}, "__name__": path.stem}
    exec(compile(path.read_bytes(), path, "exec"), own)  # noqa: S102 - an installed package's own
    return SimpleNamespace(**own)
