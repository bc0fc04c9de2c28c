"""Descriptions of classes in sentences, as a language model writes them, from a JSON file.

    {"tabby cat": ["A tabby cat has dark stripes on its coat.", "..."], "beagle": ["..."]}

Source of the format: Pratt et al. 2023 (CuPL, arXiv 2209.03320), whose released files look so.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from clip_adapter.datasets.class_names import by_class, nfc
from clip_adapter.errors import DataError
from clip_adapter.files import read_json, read_text
from clip_adapter.wording import counted, listed, shown

# CuPL's largest file, 1,000 classes of 50 sentences, has 4 MB.
MAX_BYTES = 100_000_000
MAX_SENTENCES = 1000

_Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Sentences = Annotated[list[_Sentence], Field(min_length=1, max_length=MAX_SENTENCES)]
_ALLOWED = 'a JSON object {"class name": ["sentence", ...], ...}'


@dataclass(frozen=True)
class Descriptions:
    """Sentences on each of C classes.

    Attributes:
        sentences: C lists, in label order; each holds 1 to ``MAX_SENTENCES``.
        name: of the file.
        digest: SHA-256 of its text.
        others: classes of the file that are not among the C.
    """

    sentences: tuple[tuple[str, ...], ...]
    name: str
    digest: str
    others: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What a classifier must remember of them."""
        counts = [len(own) for own in self.sentences]
        return {
            "file": self.name,
            "sha256": self.digest,
            "sentences": sum(counts),
            "fewest_of_a_class": min(counts),
            "most_of_a_class": max(counts),
        }


def read_descriptions(path: str | Path, class_names: Sequence[str]) -> Descriptions:
    """The sentences of ``path`` on each of ``class_names``; classes it has beyond them are left.

    The same sentence of a class counts once.

    Raises:
        DataError: the file cannot be read, is too large, is no such JSON, or leaves a class out.
    """
    path = Path(path).expanduser()
    size = path.stat().st_size if path.is_file() else 0
    if size > MAX_BYTES:
        raise DataError(
            f"The descriptions in {shown(path)} have {size:,} bytes.", allowed=f"{MAX_BYTES:,}"
        )
    what, pairs = "The file of descriptions", partial(by_class, path=path, kind=DataError)
    sentences = read_json(path, what, dict[str, _Sentences], _ALLOWED, pairs)
    names = [nfc(name) for name in class_names]
    if missing := [name for name in names if name not in sentences]:
        near = difflib.get_close_matches(missing[0], list(sentences), n=1, cutoff=0.5)
        guess = "".join(f" (the file has {name!r})" for name in near)
        raise DataError(
            f"{shown(path)} describes {counted(len(sentences), 'class', 'classes')} and leaves out "
            f"{listed(missing)}{guess}.",
            allowed="sentences on every class, under its name as 'fit' shows it",
            hint="Write the missing ones, or rename the classes with --class-names.",
        )
    return Descriptions(
        tuple(tuple(dict.fromkeys(sentences[name])) for name in names),
        path.name,
        hashlib.sha256(read_text(path, what).encode()).hexdigest(),
        tuple(name for name in sentences if name not in names),
    )
