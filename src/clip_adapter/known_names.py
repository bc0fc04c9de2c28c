"""Names that a user gives, as far as they are known without importing torch."""

from __future__ import annotations

import functools
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from clip_adapter.errors import unknown_name

METHOD_GROUP = "clip_adapter.methods"
"""The entry points by which other packages register methods."""
Runtime = Literal["torch", "onnx"]
DEVICES = ("auto", "cpu", "cuda", "mps")
# Torch, or a package for it, has these too; whether they are here it says itself.
_OTHER_DEVICES = ("hpu", "meta", "mlu", "mtia", "musa", "npu", "privateuseone", "xla", "xpu")


@functools.cache
def own_methods() -> tuple[str, ...]:
    """Names of the methods of this package, as ``@register(name="..."`` in their files says."""
    files = sorted((Path(__file__).parent / "methods").glob("*.py"))
    text = "".join(file.read_text("utf-8") for file in files)
    return tuple(re.findall(r'^@register\(\s*name="([^"]+)"', text, re.MULTILINE))


def check_method(name: str) -> None:
    """Check that there may be a method ``name``: those of other packages are known once loaded.

    Raises:
        UsageError: there is none; the nearest names are said.
    """
    if name in own_methods():
        return
    if loaded := sys.modules.get("clip_adapter.methods.base"):
        loaded.get_method(name)
    elif not entry_points(group=METHOD_GROUP):
        raise unknown_name("method", name, own_methods())


def check_device(name: str) -> None:
    """Check that torch may have a device ``name``, such as ``cuda:1``.

    Raises:
        UsageError: it has none of that kind; the nearest names are said.
    """
    kinds = "|".join((*DEVICES, *_OTHER_DEVICES))
    if not re.fullmatch(rf"({kinds})(:\d+)?", name):
        raise unknown_name("device", name, (*DEVICES, "cuda:N"), "'auto' takes the best one here.")
