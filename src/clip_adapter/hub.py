"""Files of the Hugging Face hub: asked for with a time limit, and their size said beforehand."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clip_adapter.errors import ClassifierError
from clip_adapter.paths import CONFIG, HUB, is_classifier, near_paths, no_classifier
from clip_adapter.reporting import log

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

ANSWER = 3.0  # seconds in which a server must begin to answer
T = TypeVar("T")


def in_background(function: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
    """What ``function`` is going to return; the program may end without it."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(function(*args, **options))
        except BaseException as error:  # whoever waits raises it
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def within(seconds: float, function: Callable[..., T], *args: Any, **options: Any) -> T:
    """What ``function`` returns, if it does so in time.

    The limits that clients of the network take are per address and leave the search for the
    address out; this one is for all of it. What comes too late is left to end by itself.

    Raises:
        TimeoutError: it takes longer.
    """
    try:
        return in_background(function, *args, **options).result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer in {seconds:g} seconds") from None


def ask(repo: str, name: str, revision: str | None = None) -> HfFileMetadata:
    """What the hub says of a file, which is not fetched.

    Raises:
        Exception: of any kind; the hub does not answer, or does not have it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    return get_hf_file_metadata(hf_hub_url(repo, name, revision=revision), timeout=ANSWER)


def located(
    repo: str, names: Sequence[str], *, newest: bool = False
) -> tuple[Path | None, str, HfFileMetadata | None]:
    """The first of ``names`` that ``repo`` has: its path if it was fetched before, its name, and
    what the hub says of it if it was asked. Arguments and errors are those of :func:`hub_file`.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    cached = (try_to_load_from_cache(repo, name) for name in names)
    known = next((Path(path) for path in cached if isinstance(path, str)), None)
    if known is not None and not newest:
        return known, known.name, None
    for name in names:
        try:
            return known, name, within(ANSWER, ask, repo, name)
        except EntryNotFoundError:
            continue
        except Exception as error:
            if known is None:
                raise
            log.info(f"{repo} is taken as it was fetched before; the hub gives no answer: {error}")
            return known, known.name, None
    raise FileNotFoundError(f"{repo} has none of {', '.join(names)}")


def hub_file(repo: str, names: Sequence[str], *, newest: bool = False) -> Path:
    """The path of the first of ``names`` that the repository ``repo`` has.

    A file that was fetched before is taken without a question to the hub. Before a large one is
    fetched its size is said.

    Args:
        repo: ORG/REPO.
        names: of files, the best first.
        newest: ask the hub for a newer one; without an answer, take that of before.

    Raises:
        Exception: of any kind; the hub does not answer in time, or has none of them.
    """
    known, name, entry = located(repo, names, newest=newest)
    if known is not None and entry is None:
        return known
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    size = (entry and entry.size) or 0
    if size > 10_000_000 and not isinstance(
        try_to_load_from_cache(repo, name, revision=entry and entry.commit_hash), str
    ):
        log.info(f"Fetching {name} of {repo} once, {size_of(size)}, into {HF_HUB_CACHE}.")
    return Path(hf_hub_download(repo, name))


def classifier_folder(
    name: str | os.PathLike[str],
    revision: str | None = None,
) -> Path:
    """The folder of a saved classifier: ``name`` itself, or the copy of a repository of the hub.

    Args:
        name: a folder, ``user/name``, or ``hf-hub:user/name`` where a folder is called alike.
        revision: of the repository.

    Raises:
        ClassifierError: it is neither.
    """
    text, folder = os.fspath(name), Path(os.path.expanduser(name))
    if is_classifier(folder):
        return folder
    repository = re.fullmatch(rf"({HUB})?\w[\w.-]*/\w[\w.-]*", text)
    if repository and (text.startswith(HUB) or not (os.path.exists(folder) or near_paths(folder))):
        return _fetched(text.removeprefix(HUB), revision)
    error = no_classifier(name)
    other = repository and not os.path.isfile(folder)
    also = f" For a repository of the hub write {HUB}{text}." if other else ""
    raise ClassifierError(error.found, hint=error.hint + also)


def _fetched(name: str, revision: str | None) -> Path:
    import huggingface_hub as hub

    try:
        if not isinstance(hub.try_to_load_from_cache(name, CONFIG, revision=revision), str):
            within(ANSWER, ask, name, CONFIG, revision)
        # What a saved classifier is made of, and no more.
        files = ["*.json", "*.safetensors", "README.md"]
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=files))
    except Exception as error:  # the hub's client raises a dozen unrelated types
        raise ClassifierError(
            f"{name!r} is neither a folder here nor a repository that the hub gives: "
            f"{type(error).__name__}.",
            hint="Check the name and the network, or download it and give the folder.",
        ) from error


def size_of(count: float) -> str:
    """``1.2 MB``, ``605 MB`` or ``1.7 GB`` for a number of bytes."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
