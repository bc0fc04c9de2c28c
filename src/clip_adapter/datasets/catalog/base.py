"""``Benchmark``: what is known of a data set of the paper. One file per set holds its record.

The layout on disk is that of CoOp (arXiv 2109.01134), whose files most few-shot papers on CLIP
share. Checksums and addresses stand in a record only where their source was seen: md5 as
torchvision has them, sha256 and sizes as TensorFlow Datasets has them, ids of Google Drive as
CoOp's DATASETS.md has them. What is None is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

DEFAULT_TEMPLATE = "a photo of a {}."
DRIVE = "https://drive.google.com/file/d/{}/view"
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"


@dataclass(frozen=True)
class Archive:
    """A tar or zip file with pictures.

    Attributes:
        file: its name.
        layout: where the paths in it go, prefix by prefix: ``{"2750/": "eurosat/2750/"}`` is
            relative to the root of all sets. What has no such prefix is left in the archive.
        url: its address; None where the archive before it, which holds it, puts it into
            ``downloads/``.
        size: bytes.
        md5: as published.
        sha256: as published.
    """

    file: str
    layout: Mapping[str, str]
    url: str | None = None
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class SideFile:
    """A small file that lies beside the pictures: a split as CoOp writes it, or class names.

    Attributes:
        name: its name.
        drive: id on Google Drive; None where that is not known, so that ``get`` asks for the file.
        digest: of a split file, :func:`~clip_adapter.datasets.coop.rows_digest` of its rows.
    """

    name: str
    drive: str | None = None
    digest: str | None = None

    @property
    def link(self) -> str | None:
        """The page to open in a browser."""
        return DRIVE.format(self.drive) if self.drive else None

    @property
    def url(self) -> str | None:
        """The address to download from."""
        return DRIVE_DOWNLOAD.format(self.drive) if self.drive else None


IMAGENET_CLASSES = SideFile("classnames.txt", drive="1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF")
"""CLIP's names for ImageNet's classes, by WordNet id; its shifts share them."""


@dataclass(frozen=True)
class HubCopy:
    """A copy on the Hugging Face hub, with its own splits instead of CoOp's.

    Attributes:
        repository: OWNER/NAME.
        splits: a split of the copy, as ``hub:NAME`` calls it (train, val, test, or all for the
            only one), → the split that it is read as. What is not named is left out.
        login: whether it asks for a login and the acceptance of terms.
        rename: a label of the copy → the class name as CoOp writes it.
    """

    repository: str
    splits: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    login: bool = False
    rename: Callable[[str], str] = field(default=str, repr=False)


@dataclass(frozen=True)
class Benchmark:
    """A data set of the paper.

    What is set says how it is read: with ``split_folders`` it is one folder per class, named by the
    ``side_file``, or called as the class; else the ``side_file`` is CoOp's split; without both
    there are the lists of FGVC-Aircraft.

    Attributes:
        name: what users write, and its prompt goes by; the file of the record is called so.
        title: as the paper writes it.
        classes: C.
        sizes: pictures in train, val and test, as CoOp splits them. What has none in train is only
            tested on.
        folder: its folder in CoOp's layout.
        licence: what its owners say, in short.
        citation: where it was published.
        homepage: its own page.
        order: its place in lists: in the paper's Figure 3, or its Table 9 for shifts of ImageNet.
        template: its prompt.
        aliases: other names of it, without case and punctuation.
        images: the folders with the pictures, inside ``folder``. The paths of its lists start in
            the only one, else in ``folder``.
        side_file: the split as CoOp writes it; with ``split_folders`` the names of the classes, a
            line ``FOLDER class name`` for each.
        split_folders: split → folder, inside ``folder``, where each class has a folder.
        numbered: class folders are called 0, 1, 2, ... in the order of the ``side_file``.
        per_class: split → pictures of every class, where that is one number.
        left_out: folders inside ``folder`` that CoOp leaves out.
        has_unused: the archive holds pictures that no split names.
        archives: what ``get`` downloads.
        hub: a copy on the hub.
        by_hand: what only a person can do, in words.
    """

    name: str
    title: str
    classes: int
    sizes: Mapping[str, int]
    folder: str
    licence: str
    citation: str
    homepage: str
    order: int = 100
    template: str = DEFAULT_TEMPLATE
    aliases: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    side_file: SideFile | None = None
    split_folders: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    numbered: bool = False
    per_class: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    left_out: tuple[str, ...] = ()
    has_unused: bool = False
    archives: tuple[Archive, ...] = ()
    hub: HubCopy | None = None
    by_hand: str = ""

    @property
    def picture_folders(self) -> tuple[str, ...]:
        """The folders with the pictures, inside ``folder``."""
        return self.images or tuple(self.split_folders.values())

    @property
    def prefix(self) -> str:
        """What stands before the paths of its lists to make them relative to ``folder``."""
        return f"{self.images[0]}/" if len(self.images) == 1 else ""

    @property
    def download_size(self) -> int | None:
        """Bytes of all archives together; None where one is not known or there is none."""
        sizes = [archive.size or 0 for archive in self.archives if archive.url]
        return sum(sizes) if sizes and all(sizes) else None

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
