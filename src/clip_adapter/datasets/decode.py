"""``decode``: the bytes of a picture from anywhere into 8-bit RGB, or an error that names it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import re
import struct
import threading
import warnings
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from PIL import Image

from clip_adapter.errors import DataError, DecodeError, how_to_install

# What the library reads. Fewer formats are fewer parsers that hostile bytes can reach.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF", "HEIF")
HEIC_EXTRA = how_to_install("heic")
NEEDS_HEIC = f"HEIC pictures need: {HEIC_EXTRA}"
# Where Pillow itself refuses: 4/3 of a GiB as RGBA.
MAX_PIXELS = 178_956_970

_ORIENTATION_TAG = 0x0112
# What a HEIC file says it is, and what an AVIF file says besides.
_HEIC_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# Of PNG: parts that may be longer than Pillow takes and change no pixel, but for these texts, which
# may tell how to turn the picture.
_ASIDES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_TURNING = (b"XML:com.adobe.xmp", b"Raw profile type exif")
# Of JPEG: the byte before each kind of segment; baseline, extended and progressive frames; the
# segments of EXIF and XMP, and of Adobe.
_MARKER, _FRAMES, _APP1, _ADOBE = 0xFF, (0xC0, 0xC1, 0xC2), 0xE1, 0xEE
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS, *, draft: int = 0) -> Image.Image:
    """Decode one picture into mode RGB, 8 bits a channel.

    The EXIF orientation is applied; transparent pixels lie on white; of several frames the first
    counts; CMYK is converted without a colour profile; 16-bit values keep their high byte, other
    integer and float values are scaled as :func:`_to_8_bit` says. The size is read from the
    header, so a picture that is too large is refused before memory is taken for it. Safe to call
    from several threads at once; no warning gets out.

    Args:
        data: the encoded picture.
        name: what the error calls it.
        max_pixels: the most pixels (width x height); Pillow's own limit also holds.
        draft: a JPEG may come out smaller by 2, 4 or 8, which is faster, with sides of at least
            this many pixels; 0 is the whole picture.

    Raises:
        DecodeError: empty, not a picture, of an unknown format, too large, or damaged.
    """
    if not data:
        raise DecodeError(f"{name}: the file is empty.", hint="Replace it, or remove it.")
    with _faults_of(name, data, max_pixels):
        try:
            return _decode(data, name, max_pixels, draft)
        except ValueError as error:
            if "MAX_TEXT_" not in str(error):
                raise
        with contextlib.suppress(ValueError):
            return _decode(_without_asides(data, _TURNING), name, max_pixels, draft)
        return _decode(_without_asides(data), name, max_pixels, draft)


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """An opened picture as :func:`decode` gives it: upright, mode RGB, 8 bits a channel.

    Raises:
        DecodeError: damaged, or of a mode that cannot be converted.
    """
    with _faults_of(name):
        return _upright_rgb(image, name)


@contextlib.contextmanager
def _faults_of(name: str, data: bytes = b"", max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Inside, no warning gets out, and what Pillow raises becomes an error that names the picture.

    Raises:
        DecodeError: whatever is wrong.
    """
    with no_warnings():
        try:
            yield
        except DecodeError:
            raise
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+", str(error))
            raise DecodeError(
                f"{name}: the picture has {pixels[0] if pixels else 'too many'} pixels; it was not "
                "decoded.",
                allowed=f"at most {min(max_pixels, MAX_PIXELS)} pixels",
                hint="Save it smaller, or remove it.",
            ) from error
        except Image.UnidentifiedImageError as error:
            raise DecodeError(
                f"{name}: {_what_else(data)}.",
                allowed=", ".join(FORMATS),
                hint="Replace it, or remove it.",
            ) from error
        # Pillow's plugins raise nearly anything on damaged bytes.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise DecodeError(
                f"{name}: the picture is damaged ({reason}).",
                hint="Save it again from its source, or remove it.",
            ) from error


def _decode(data: bytes, name: str, max_pixels: int, draft: int) -> Image.Image:
    heic = _is_heic(data)
    if heic and not _reads_heic():
        raise DecodeError(f"{name}: {NEEDS_HEIC}", hint=HEIC_EXTRA)
    formats = ("HEIF",) if heic else _available_formats()
    with Image.open(io.BytesIO(data), formats=formats) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise Image.DecompressionBombError(str(width * height))
        if 0 < draft <= min(image.size) and image.mode in ("L", "RGB") and image.format != "HEIF":
            # By what divides both sides: others would come out stretched.
            smaller = [(width // by, height // by) for by in (8, 4, 2) if not (width | height) % by]
            image.draft(image.mode, next((s for s in smaller if min(s) >= draft), image.size))
        return _upright_rgb(image, name)


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise DecodeError(f"{name}: the picture has no pixels ({image.width} x {image.height}).")
    image.load()
    turn = None
    # A picture with damaged metadata is still a picture. Pillow has already turned a TIFF.
    with contextlib.suppress(Exception):
        turn = _TURN.get(int(image.getexif().get(_ORIENTATION_TAG, 1)))
    rgb = _to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _without_asides(png: bytes, but: Collection[bytes] = ()) -> bytes:
    """A PNG without its texts and colour profile, but for texts of these names."""
    parts, place = [png[:8]], 8
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        name = png[place + 8 : place + 88].split(b"\0")[0]
        if png[place + 4 : place + 8] not in _ASIDES or name in but:
            parts.append(png[place:end])
        place = end
    return b"".join(parts)


def _is_heic(data: bytes) -> bool:
    """Whether a file says at its beginning that it holds HEIC."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return bool(brands & _HEIC_BRANDS) and not brands & _AVIF_BRANDS


@functools.cache
def _available_formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow reads."""
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


@functools.cache
def _reads_heic() -> bool:
    """Whether the extra ``heic`` is installed; Pillow reads HEIC from then on."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    _available_formats.cache_clear()
    return True


def is_plain(data: bytes, longest: int, shortest: int = 0) -> bool:
    """Whether a file is a JPEG that any decoder reads alike, as far as its header tells.

    It is whole, in three colours (YCbCr) of 8 bits, and stands upright. All else is for
    :func:`decode`, which reads or refuses it.

    Args:
        data: the file.
        longest: the most pixels that a side has.
        shortest: the fewest that a side has, unless there is a colour for every pixel: how others
            are filled in differs from decoder to decoder, and is seen where a picture is not cut
            to far fewer pixels.
    """
    if not (data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")):
        return False
    place = 2
    while place + 20 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length] if marker in (_APP1, _ADOBE) else b""
        if data[place] != _MARKER or (body and not _says_nothing(body)):
            return False
        if marker in _FRAMES:
            bits, height, width, colours = struct.unpack_from(">BHHB", data, place + 4)
            names, sampling = (data[place + i : place + i + 9 : 3] for i in (10, 11))
            least = 1 if len(set(sampling)) == 1 else max(shortest, 1)
            fits = least <= min(width, height) <= max(width, height) <= longest
            return fits and bits == 8 and colours == 3 and names != b"RGB"
        place += 2 + length
    return False


def _says_nothing(body: bytes) -> bool:
    """Whether a segment of a JPEG neither turns the picture nor changes what its colours mean."""
    if body.startswith(b"Adobe"):
        return body[11:12] == b"\x01"  # YCbCr
    if body.startswith(b"Exif\0\0"):
        with no_warnings(), contextlib.suppress(Exception):
            exif = Image.Exif()
            exif.load(body)
            return exif.get(_ORIENTATION_TAG, 1) == 1
        return False
    return b"tiff:Orientation" not in body


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(image).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits to 0..255.

    Those known to have 16 bits keep the high byte, as Pillow does it for 16-bit colour. The range
    of 32-bit integers and floats is nowhere written: 0..1 (floats), 0..255 and 0..65535 are taken
    for what they look like, anything else is stretched from its minimum to its maximum.
    """
    values = np.asarray(image)
    # These two formats keep 16-bit values in 32-bit pixels, at full range.
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        return Image.fromarray((np.clip(values, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    # Large pictures pass here: single precision, in place, but where the range itself overflows.
    values = values.astype(np.float32 if high - low < 1e38 else np.float64)
    np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    if low < 0 or high > 65535:
        values -= low
        values *= 255 / max(high - low, 1e-30)
    elif image.mode == "F" and high <= 1:
        values *= 255
    elif high > 255:
        values //= 256
    return Image.fromarray(np.clip(np.rint(values, out=values), 0, 255).astype(np.uint8))


def fault_of(error: OSError | DataError, name: str) -> str:
    """What is wrong with the picture ``name``, without its name."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return error.found.removeprefix(f"{name}: ")


def _what_else(data: bytes) -> str:
    """What bytes that are no picture seem to be."""
    head = data[:512].lstrip().lower()
    # MP4 and QuickTime; Matroska and WebM; AVI.
    film = data[4:8] in (b"ftyp", b"moov") and data[8:12] not in _HEIC_BRANDS | _AVIF_BRANDS
    film = film or data.startswith(b"\x1aE\xdf\xa3") or data[:4] + data[8:12] == b"RIFFAVI "
    guesses = {
        "a Git LFS pointer, not the picture (git lfs pull fetches it)": head.startswith(
            b"version https://git-lfs"
        ),
        "an HTML page, not a picture": head.startswith((b"<!doctype html", b"<html")),
        "an SVG or XML file, not a picture of pixels": head.startswith((b"<svg", b"<?xml")),
        "a video, not a picture": film,
        "only zero bytes, not a picture": not data.strip(b"\0"),
        "a text file, not a picture": head
        and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head),
    }
    unknown = f"not a picture of a known format (it begins with {data[:8].hex(' ')})"
    return next((guess for guess, fits in guesses.items() if fits), unknown)


class _ThisThread(threading.local):
    """Stands where a warning filter keeps its pattern for modules; matches in silenced threads.

    ``warnings.catch_warnings`` swaps a list that all threads share, so two threads that use it at
    once can leave the wrong filters behind. Here one filter is added for good, which matches
    nothing but what a thread says while its own ``silent`` is set.
    """

    silent = False
    # Libraries that hand the filters to their workers (joblib) read it: matches nothing there.
    pattern = "(?!)"

    def match(self, _module: str) -> bool:
        return self.silent


_THREAD = _ThisThread()
_FILTER: Any = ("ignore", None, Warning, _THREAD, 0)


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Drop the warnings that this thread gives inside the block."""
    filters: Any = warnings.filters
    if not filters or filters[0] is not _FILTER:
        # One assignment: other threads see the old list or the new one.
        filters[:] = [_FILTER, *(item for item in filters if item is not _FILTER)]
    _THREAD.silent = True
    try:
        yield
    finally:
        _THREAD.silent = False
