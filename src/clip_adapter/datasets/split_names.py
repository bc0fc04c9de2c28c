"""``split_names``: which folders beside each other are called like splits, known or not."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from clip_adapter.datasets.dataset import known_split

_WORD = (
    r"(?:training|train|trn|validation|validate|valid|val|development|devel|dev|testing|test|tst"
    r"|evaluation|evaluate|eval|hold_?out|held_?out)"
)
_THING = r"(?:datasets?|data|sets?|images?|imgs?|pictures?|pics?|photos?)"
_AFTER = (
    rf"(?:{_WORD}|{_THING}|jpe?g|png|folders?|splits?|subset|samples?|examples?|(?:un)?labell?ed"
    r"|labels?|full|mini|small|large|raw|clean|orig(?:inal)?|resized|cropped|public|private|new"
    r"|old|final|with|and|_[a-dvxy](?![a-z])|[\d_])"
)
_LIKE = re.compile(rf"(?:{_THING}|my|[xy]_|[\d_])*{_WORD}{_AFTER}*|_*(?:fold|split|cv)_*\d+")
_WORD_ALONE = re.compile(rf"(?<![a-z]){_WORD}(?![a-z])")


def split_names(names: Sequence[str]) -> dict[str, str]:
    """Those of ``names`` that mean a split: which one, or "" where only its look says so.

    ``test_set``, ``trainA`` and ``fold1`` look so by themselves, ``cars_train`` beside
    ``cars_test``; a ``train station`` or a ``test tube`` do not.

    Args:
        names: of folders that lie beside each other.
    """
    plain = {name: _plain(name) for name in names}
    by_rest: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name, words in plain.items():
        if word := _WORD_ALONE.search(words):
            by_rest[_WORD_ALONE.sub("*", words)][name] = known_split(word[0]) or word[0]
    pairs = {
        name for beside in by_rest.values() if len(set(beside.values())) > 1 for name in beside
    }
    return {
        name: known_split(name) or ""
        for name, words in plain.items()
        if known_split(name) or name in pairs or _LIKE.fullmatch(words)
    }


def may_be_class(splits: dict[str, str], names: Sequence[str]) -> bool:
    """Whether the one split among ``names`` may be a class: a train, beside other things."""
    return len(names) > 1 and [name.lower() for name in splits] == ["train"]


def _plain(name: str) -> str:
    """``TestSet-1`` as ``test_set_1``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return re.sub(r"[\W_]", "_", words)
