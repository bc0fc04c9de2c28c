"""What is said of pictures that are there twice, and of those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clip_adapter.datasets.dataset import Sample
from clip_adapter.datasets.decode import HEIC_EXTRA, NEEDS_HEIC
from clip_adapter.errors import DataError
from clip_adapter.reporting import log, note
from clip_adapter.wording import counted

_SHOWN_TWINS = 3


@dataclass(frozen=True)
class BadPicture:
    """A picture that was skipped, and why."""

    name: str
    reason: str


def report_copies(
    copies: Iterable[list[int]], samples: Sequence[Sample], class_names: list[str]
) -> None:
    """Log which contents are there more than once: under two labels, or within a class.

    ``copies`` holds the places in ``samples`` of each content. Unlabelled pictures are of no class.
    """
    torn: list[str] = []
    files = extra = 0
    for places in copies:
        labelled = [i for i in places if samples[i].label >= 0]
        place_of = {samples[i].label: i for i in reversed(labelled)}
        if len(place_of) == 1:
            extra += len(labelled) - 1
        elif place_of:
            files += len(labelled)
            names = [
                f"{_on_one_line(samples[i].name)} ({class_names[samples[i].label]})"
                for i in sorted(place_of.values())
            ]
            torn.append(" = ".join(names[:2]))
    if torn:
        more = len(torn) - _SHOWN_TWINS
        shown = "; ".join(torn[:_SHOWN_TWINS]) + f"; and {more} more" * (more > 0)
        what = counted(len(torn), "picture is", "pictures are")
        note(f"{what} there under two labels or more ({files} files): {shown}.")
    if extra:
        what = counted(extra, "picture is an exact duplicate", "pictures are exact duplicates")
        note(f"{what} of another one of the same class.")


def _on_one_line(name: str) -> str:
    """``name`` on one line: as it is, or in quotes where it holds line breaks and the like."""
    return name if name.isprintable() else repr(name)


def report_skipped(skipped: list[BadPicture], total: int, strict: bool) -> None:
    """Name the pictures that were skipped, and warn of their number.

    Raises:
        DataError: none is left, or with ``strict`` one was skipped.
    """
    if not total:
        raise DataError("There are no pictures to embed.", hint="Check the path and the split.")
    lines = [f"{_on_one_line(one.name)}: {one.reason}" for one in skipped]
    none = len(skipped) == total
    heic = sum(one.reason == NEEDS_HEIC for one in skipped)
    if none or (skipped and strict):
        which = "None of the pictures can" if none else f"{counted(len(skipped), 'picture')} cannot"
        others = "Replace or remove them" + ("." if none else ", or leave --strict away.")
        raise DataError(
            f"{which} be read ({len(skipped)} of {total}):\n  " + "\n  ".join(lines),
            hint=HEIC_EXTRA if heic == len(skipped) else others,
        )
    for line in lines:
        log.warning(f"Skipped {line}")
    if heic:
        what = counted(heic, ".heic picture needs", ".heic pictures need")
        note(f"{what}: {HEIC_EXTRA}")
    if skipped:
        note(f"{len(skipped)} of {total} pictures skipped.")
