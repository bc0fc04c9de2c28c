"""``Benchmark``: what is known of a data set of the paper, and the registry of all of them.

One file per set holds its record. The layout on disk is that of CoOp (arXiv 2109.01134), whose
files most few-shot papers on CLIP share. Checksums and revisions stand here only where their source
was seen: md5 as torchvision has them, sha256 and sizes as TensorFlow Datasets has them, ids of
Google Drive as CoOp's DATASETS.md has them. What is None is not known.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from clip_adapter.datasets.templates import bare_name, known_dataset, resolve_templates
from clip_adapter.errors import unknown_name

# In the order of the paper's Figure 3, then its four shifts of ImageNet (Table 9).
_NAMES = (
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
    "imagenetv2",
    "imagenet_sketch",
    "imagenet_a",
    "imagenet_r",
)
DRIVE = "https://drive.google.com/file/d/{}/view"
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"


@dataclass(frozen=True)
class Archive:
    """A tar or zip file with pictures.

    Attributes:
        file: its name.
        layout: where the paths in it go, prefix by prefix: ``{"2750/": "eurosat/2750/"}`` is
            relative to the root of all sets. What has no such prefix is left in the archive.
        url: its address; None where it comes out of another archive.
        size: bytes.
        md5: as published.
        sha256: as published.
        inner: an archive inside this one, which ``layout`` puts into ``downloads/``.
    """

    file: str
    layout: Mapping[str, str]
    url: str | None = None
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    inner: Archive | None = None


@dataclass(frozen=True)
class SideFile:
    """A small file that lies beside the pictures: CoOp's split, or the class names of ImageNet.

    Attributes:
        name: its name.
        drive: id on Google Drive.
        digest: of a split file, :func:`~clip_adapter.datasets.coop.rows_digest` of its rows.
    """

    name: str
    drive: str
    digest: str | None = None

    @property
    def link(self) -> str:
        """The page to open in a browser."""
        return DRIVE.format(self.drive)

    @property
    def url(self) -> str:
        """The address to download from."""
        return DRIVE_DOWNLOAD.format(self.drive)


@dataclass(frozen=True)
class HubCopy:
    """A copy on the Hugging Face hub, with its own splits instead of CoOp's.

    Attributes:
        repository: OWNER/NAME.
        revision: a commit; None takes the newest and records which it was.
        splits: a split of the copy → the split that it is read as.
        login: whether it asks for a login and the acceptance of terms.
    """

    repository: str
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    login: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A data set of the paper.

    Attributes:
        name: as in :data:`~clip_adapter.datasets.templates.TEMPLATES`.
        title: as the paper writes it.
        classes: C.
        sizes: pictures in train, val and test, as CoOp splits them.
        folder: its folder in CoOp's layout.
        reader: "split" (a split file of CoOp), "variants" (the lists of FGVC-Aircraft) or
            "folders" (one folder per class, as ImageNet).
        licence: what its owners say, in short.
        citation: where it was published.
        homepage: its own page.
        images: the folder with the pictures, inside ``folder``; "" is ``folder`` itself.
        split_file: CoOp's split.
        class_file: the names of ImageNet's classes by WordNet id.
        split_folders: split → folder, inside ``folder``, for the reader "folders".
        numbered: class folders are called 0, 1, 2, ... and not by WordNet id.
        per_class: split → pictures of every class, where that is one number.
        left_out: folders in ``images`` that CoOp leaves out.
        has_unused: the archive holds pictures that no split names.
        archives: what ``get`` downloads.
        hub: a copy on the hub.
        by_hand: what only a person can do, in words.
        rename: a label of the original set → the class name as CoOp writes it.
    """

    name: str
    title: str
    classes: int
    sizes: Mapping[str, int]
    folder: str
    reader: Literal["split", "variants", "folders"]
    licence: str
    citation: str
    homepage: str
    images: str = ""
    split_file: SideFile | None = None
    class_file: SideFile | None = None
    split_folders: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    numbered: bool = False
    per_class: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    left_out: tuple[str, ...] = ()
    has_unused: bool = False
    archives: tuple[Archive, ...] = ()
    hub: HubCopy | None = None
    by_hand: str = ""
    rename: Callable[[str], str] = field(default=str, repr=False)

    @property
    def template(self) -> str:
        """Its prompt."""
        return resolve_templates(None, self.name)[0]

    @property
    def download_size(self) -> int | None:
        """Bytes of all archives together; None where one is not known or there is none."""
        known = [archive.size for archive in self.archives if archive.size]
        return sum(known) if known and len(known) == len(self.archives) else None

    @property
    def side_files(self) -> tuple[SideFile, ...]:
        """The small files that belong beside the pictures."""
        return tuple(file for file in (self.split_file, self.class_file) if file)

    def to_dict(self) -> dict[str, Any]:
        """What a table of the sets shows, as JSON types."""
        return {
            **{key: getattr(self, key) for key in ("name", "title", "classes")},
            **{split: self.sizes.get(split, 0) for split in ("train", "val", "test")},
            "template": self.template,
            "download_bytes": self.download_size,
            "addresses": [archive.url for archive in self.archives if archive.url],
            "hub": self.hub.repository if self.hub else None,
            "by_hand": self.by_hand or None,
            **{key: getattr(self, key) for key in ("folder", "licence", "citation", "homepage")},
        }


def benchmark_names() -> tuple[str, ...]:
    """The names of all records, in the paper's order."""
    return _NAMES


def known_benchmark(name: str) -> str | None:
    """The record that ``name`` spells, or None; case and punctuation do not count."""
    spelled = {bare_name(known): known for known in _NAMES}
    return spelled.get(bare_name(name)) or known_dataset(name)


def get_benchmark(name: str) -> Benchmark:
    """The record of a data set.

    Raises:
        UsageError: there is none of this name.
    """
    known = known_benchmark(name)
    if known is None:
        hint = "'clip-adapter data ls' tells what they are."
        raise unknown_name("data set", name, _NAMES, hint)
    return importlib.import_module(f"clip_adapter.datasets.catalog.{known}").RECORD
