"""``examine``: is all in place, and do the weights give the numbers that they are known to give?"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clip_adapter.errors import ClipAdapterError
from clip_adapter.files import check_folder
from clip_adapter.hub import ANSWER, ask, in_background, size_of
from clip_adapter.wording import counted, first_line, shown

if TYPE_CHECKING:
    from PIL.Image import Image

State = Literal["well", "off", "not checked"]
LEAST_FREE = 1_000_000_000  # bytes; the default backbone has 605 MB
TOLERANCE = 2e-3  # of probabilities: what devices, number formats and resizing differ by
REPOSITORY, WEIGHTS = "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"
PICTURE_URL = "https://raw.githubusercontent.com/openai/CLIP/main/CLIP.png"
PICTURE_SHA256 = "308a3ca4503f1c7a07803916c369d78c4ef501e5ab7fc727da9b5e1d2f9ec85b"
PICTURE_BYTES = 252_444
PACKAGES = ("torchvision", "pillow", "huggingface_hub", "safetensors")


@dataclass(frozen=True)
class Known:
    """Probabilities that a backbone is known to give to texts on a picture."""

    backbone: str
    texts: tuple[str, ...]
    probabilities: tuple[float, ...]


DEMO = Known(
    "demo", ("a red circle", "a red square", "a red triangle"), (0.44496, 0.51281, 0.04223)
)
# The example in the README of https://github.com/openai/CLIP, on the picture that it shows.
OPENAI = Known(
    "ViT-B-32/openai", ("a diagram", "a dog", "a cat"), (0.9927937, 0.00421068, 0.00299572)
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True)
class Health:
    """What :func:`examine` found.

    Attributes:
        versions: of Python and of the packages that decide a result.
        device: the one that "auto" takes.
        cache: ``folder`` of features, its ``bytes`` and the ``free_bytes`` of its disk.
        hub_cache: the same of the weights that were fetched.
        checks: what was looked at.
    """

    versions: dict[str, str]
    device: str
    cache: dict[str, Any]
    hub_cache: dict[str, Any]
    checks: list[Check]

    @property
    def well(self) -> bool:
        """Whether nothing is off; what was not checked is not."""
        return all(check.state != "off" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"well": self.well, **dataclasses.asdict(self)}


def examine(device: str = "auto") -> Health:
    """Look at the installation: versions, device, caches, and what two backbones compute.

    The small ``demo`` is in the package; ``ViT-B-32/openai`` is fetched where there is a network,
    once, and compared with the example that its makers published.

    Args:
        device: where the backbones run.

    Raises:
        UsageError: there is no such device.
    """
    answer = in_background(ask, REPOSITORY, WEIGHTS)  # while torch loads
    from huggingface_hub.constants import HF_HUB_CACHE

    from clip_adapter._version import installed, versions
    from clip_adapter.backbones import resolve_device
    from clip_adapter.paths import default_root

    root, chosen = default_root(), resolve_device(device)
    cache, hub_cache = _space(root), _space(Path(HF_HUB_CACHE))
    checks = [
        _writable(root),
        _free(cache, hub_cache),
        _computed(DEMO, lambda size: _disc(), chosen),
        _published(answer, root / "doctor" / "CLIP.png", chosen),
    ]
    found = versions() | dict.fromkeys(PACKAGES, "not installed") | installed(PACKAGES)
    return Health(found, chosen, cache, hub_cache, checks)


def _space(folder: Path) -> dict[str, Any]:
    """How large a folder is, and how much its disk has left."""
    files = (Path(here, name) for here, _, names in os.walk(folder) for name in names)
    used = sum(file.lstat().st_size for file in files if file.exists())
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return {"folder": str(folder), "bytes": used, "free_bytes": shutil.disk_usage(there).free}


def _free(*spaces: dict[str, Any]) -> Check:
    detail = ", ".join(f"{size_of(s['free_bytes'])} for {s['folder']}" for s in spaces)
    if min(space["free_bytes"] for space in spaces) < LEAST_FREE:
        return Check("free disk", "off", f"{detail}; weights need {size_of(LEAST_FREE)}")
    return Check("free disk", "well", detail)


def _writable(folder: Path) -> Check:
    try:
        check_folder(folder)
    except ClipAdapterError as error:
        return Check("cache folder", "off", f"{error.found} --cache DIR names another.")
    return Check("cache folder", "well", f"{shown(folder)} can be written")


def _computed(known: Known, picture: Callable[[int], Image], device: str) -> Check:
    """Compare what a backbone computes with what is known of it.

    Args:
        known: the backbone and its numbers.
        picture: makes the picture, for the size in pixels that the backbone takes.
        device: where to compute.
    """
    from clip_adapter.backbones import load_backbone
    from clip_adapter.features.pictures import embed_pictures
    from clip_adapter.nn import cosine_logits

    name = f"values of {known.backbone}"
    try:
        backbone = load_backbone(known.backbone, device=device)
        pixels = picture(backbone.preprocess.image_size)
        image, text = embed_pictures(backbone, [pixels]), backbone.encode_text([*known.texts])
        values = cosine_logits(image, text, backbone.logit_scale).softmax(-1)[0].tolist()
    except ClipAdapterError as error:
        return Check(name, "off", str(error))
    except Exception as error:  # libraries that do not fit each other fail in many ways
        return Check(name, "off", f"{type(error).__name__}: {first_line(error)}")
    off = max(abs(a - b) for a, b in zip(values, known.probabilities, strict=True))
    if off <= TOLERANCE:
        return Check(name, "well", f"{_numbers(values)}, as known (within {TOLERANCE:g})")
    return Check(
        name,
        "off",
        f"{_numbers(values)} instead of {_numbers(known.probabilities)} for "
        f"{', '.join(map(repr, known.texts))}: the weights (fingerprint "
        f"{backbone.fingerprint[:12]}), torch, open_clip or the device {device} compute something "
        "else. Remove the fetched weights, or install the versions in constraints.txt; --device "
        "cpu tells whether it is the device.",
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _disc() -> Image:
    """A red disc on grey."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:60, :60]
    pixels = np.full((60, 60, 3), 40, np.uint8)
    pixels[(x - 30) ** 2 + (y - 30) ** 2 < 400] = (220, 30, 30)
    return Image.fromarray(pixels)


def _published(answer: Future[Any], picture: Path, device: str) -> Check:
    """Compare real weights with the published example, where they are here or can be fetched."""
    from huggingface_hub import try_to_load_from_cache

    from clip_adapter.datasets.download.fetch import download

    name = f"values of {OPENAI.backbone}"
    weights = try_to_load_from_cache(REPOSITORY, WEIGHTS)
    try:
        if not (isinstance(weights, str) and picture.is_file()):
            answer.result(ANSWER)
        download(PICTURE_URL, picture, size=PICTURE_BYTES, sha256=PICTURE_SHA256, tries=1)
    except Exception as error:  # hub and network raise errors of many kinds
        if isinstance(error, ClipAdapterError) and error.__cause__ is None:
            return Check(name, "off", str(error))  # it came, and is another one
        reason = first_line(error) if str(error) else f"no answer in {ANSWER:g} seconds"
        return Check(
            name,
            "not checked",
            f"no network ({reason}). With one this fetches 605 MB, once; '--backbone demo' works "
            "without.",
        )
    return _computed(OPENAI, lambda size: _as_openai(picture, size), device)


def _as_openai(path: Path, size: int) -> Image:
    """The picture as the published example cuts it: transparency goes after the resizing."""
    from PIL import Image

    with Image.open(path) as image:
        width, height = (int(size * side / min(image.size)) for side in image.size)
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size)).convert("RGB")


def summary(health: Health) -> str:
    """How it is, in one sentence."""
    off = sum(check.state == "off" for check in health.checks)
    unchecked = sum(check.state == "not checked" for check in health.checks)
    if off:
        return f"{counted(off, 'check is', 'checks are')} off, see above."
    rest = f", as far as it was checked ({unchecked} was not)" if unchecked else ""
    return f"All is well{rest}."
