"""What a number was measured on, and how much memory the work took."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerator of this machine, and torch's threads."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": name,
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The git commit of the code, with "+" where it was changed since; None outside a clone."""
    here = Path(__file__).resolve()
    # A package that lies inside somebody else's clone is not that clone's code.
    asked = (
        ["ls-files", "--error-unmatch", here.name],
        ["rev-parse", "--short=12", "HEAD"],
        ["status", "--porcelain", "--", "."],
    )
    try:
        _, head, changed = (
            subprocess.check_output(  # noqa: S603 - fixed words
                ["git", *words],  # noqa: S607
                cwd=here.parent,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=10,
            ).strip()
            for words in asked
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def reset_peak() -> bool:
    """Begin to measure the memory anew; whether this system can (Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_mib() -> float:
    """The most memory of this process since :func:`reset_peak`, or since its start, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (peaks[0] if peaks else most / (1024 if sys.platform == "darwin" else 1)) / 1024
