"""Names that a user gives, as far as they are known without importing torch."""

from __future__ import annotations

import re
import sys
from importlib.metadata import entry_points

from clip_adapter.errors import unknown_name

METHOD_GROUP = "clip_adapter.methods"
"""The entry points by which other packages register methods."""
METHODS = (
    *("ape", "ape-t", "auto", "clap", "clip-adapter", "clip-adapter-cache", "clip-adapter-inside"),
    *("clip-lora", "coop", "coop-adapter", "fine-tune", "gda", "houlsby", "l-1p", "l-2p"),
    *("linear-adapter", "linear-probe", "lp++", "parallel-adapter", "prolip", "r-2p", "taskres"),
    *("tip-adapter", "tip-adapter-f", "wise-ft", "wise-ft-tower", "zero-shot"),
)
"""Names of the methods of this package; a test holds them equal to what is registered."""
DEVICES = ("auto", "cpu", "cuda", "mps")
# Torch, or a package for it, has these too; whether they are here it says itself.
_OTHER_DEVICES = ("hpu", "meta", "mlu", "mtia", "musa", "npu", "privateuseone", "xla", "xpu")


def check_method(name: str) -> None:
    """Check that there may be a method ``name``: those of other packages are known once loaded.

    Raises:
        UsageError: there is none; the nearest names are said.
    """
    if name in METHODS:
        return
    if loaded := sys.modules.get("clip_adapter.methods.base"):
        loaded.get_method(name)
    elif not entry_points(group=METHOD_GROUP):
        raise unknown_name("method", name, METHODS)


def check_device(name: str) -> None:
    """Check that torch may have a device ``name``, such as ``cuda:1``.

    Raises:
        UsageError: it has none of that kind; the nearest names are said.
    """
    kinds = "|".join((*DEVICES, *_OTHER_DEVICES))
    if not re.fullmatch(rf"({kinds})(:\d+)?", name):
        raise unknown_name("device", name, (*DEVICES, "cuda:N"), "'auto' takes the best one here.")
