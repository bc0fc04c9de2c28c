"""How predictions are written: named by ``--format``, or by the ending of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from clip_adapter.errors import UsageError
from clip_adapter.files import is_stream

Format = Literal["table", "json", "jsonl", "csv", "parquet"]
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".txt": "table",
}


def form_of(out: Path | None, given: Format | None = None, flag: str = "--out") -> Format:
    """How predictions are written to ``out``; None is the screen.

    A pipe or a device is written to as the screen is. A ``given`` format counts for an ending that
    says nothing; ``flag`` is the option that named the file.

    Raises:
        UsageError: the ending says nothing and no format is given, or it says another one.
    """
    if out is None and given == "parquet":
        raise UsageError("Parquet is no text for a screen.", hint="Add --out FILE.parquet.")
    by_ending = None if out is None else ENDINGS.get(out.suffix.lower())
    if given is not None and by_ending not in (None, given):
        raise UsageError(
            f"{flag} {out} is for the format {by_ending}, and {given} is asked for.",
            hint="Leave the format away, or give the file another ending.",
        )
    if given is None and by_ending is None and out is not None and not is_stream(out):
        raise UsageError(
            f"{flag} {out} does not say how to write.",
            allowed=f"a name that ends in {', '.join(ENDINGS)}",
            hint="Give the file such an ending" + ", or add --format." * (flag == "--out"),
        )
    return given or by_ending or "table"
