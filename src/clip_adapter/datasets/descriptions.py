"""Descriptions of classes in sentences, as a language model writes them, from a JSON file.

    {"tabby cat": ["A tabby cat has dark stripes on its coat.", "..."], "beagle": ["..."]}

Source of the format: Pratt et al. 2023 (CuPL, arXiv 2209.03320), whose released files look so.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_adapter.datasets.class_names import normal
from clip_adapter.errors import DataError
from clip_adapter.files import read_text
from clip_adapter.wording import counted, listed, shown

# CuPL's largest file, 1,000 classes of 50 sentences, has 4 MB.
MAX_BYTES = 100_000_000
MAX_SENTENCES = 1000

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

    Raises:
        DataError: the file cannot be read, is too large, is no such JSON, or leaves a class out.
    """
    path = Path(path).expanduser()
    size = path.stat().st_size if path.is_file() else 0
    if size > MAX_BYTES:
        raise DataError(
            f"The descriptions in {shown(path)} have {size:,} bytes.", allowed=f"{MAX_BYTES:,}"
        )
    text = read_text(path, "The file of descriptions")
    found = _parse(text, path)
    missing = [name for name in class_names if normal(name) not in found]
    if missing:
        near = difflib.get_close_matches(normal(missing[0]), list(found), n=1, cutoff=0.5)
        guess = f" (the file has {near[0]!r})" if near else ""
        raise DataError(
            f"{shown(path)} describes {counted(len(found), 'class', 'classes')} and leaves out "
            f"{listed(missing)}{guess}.",
            allowed="sentences on every class, under its name as 'fit' shows it",
            hint="Write the missing ones, or rename the classes with --class-names.",
        )
    known = {normal(name) for name in class_names}
    return Descriptions(
        tuple(tuple(found[normal(name)]) for name in class_names),
        path.name,
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        tuple(name for name in found if name not in known),
    )


def _parse(text: str, path: Path) -> dict[str, list[str]]:
    """Sentences by class name; the same sentence counts once."""

    def pairs(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        names = Counter(normal(name) for name, _ in items)
        if twice := [name for name, count in names.items() if count > 1]:
            raise DataError(f"{shown(path)} has {listed(twice)} more than once.", allowed=_ALLOWED)
        return {normal(name): value for name, value in items}

    try:
        found: Any = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(path)} is no JSON: {error}.", allowed=_ALLOWED) from error
    if not isinstance(found, Mapping):
        raise DataError(f"{shown(path)} does not begin with {{.", allowed=_ALLOWED)
    for name, sentences in found.items():
        problem = _problem(sentences)
        if problem:
            raise DataError(f"{shown(path)}, class {name!r}: {problem}.", allowed=_ALLOWED)
    return {name: list(dict.fromkeys(s.strip() for s in own)) for name, own in found.items()}


def _problem(sentences: Any) -> str:
    """What is wrong with the sentences of a class, or nothing."""
    if not isinstance(sentences, list):
        return f"{json.dumps(sentences, ensure_ascii=False)[:40]} is no list of sentences"
    if not 1 <= len(sentences) <= MAX_SENTENCES:
        return f"{len(sentences)} sentences, where 1 to {MAX_SENTENCES} can be"
    for number, sentence in enumerate(sentences, 1):
        if not isinstance(sentence, str):
            return f"sentence {number} is no text but {json.dumps(sentence)[:40]}"
        if not sentence.strip():
            return f"sentence {number} is empty"
    return ""
