"""From the bytes of a file to RGB pixels: which files count as images, and one rule for every odd kind.

`read` brings the bytes, `decode` the pixels, `load` both; each raises `BadImage` with a reason and never anything else.
What is done with a bad image (stop, or skip and count) is the caller's policy. The rules:

- **Formats** are an allowlist (JPEG, PNG, WebP, GIF, BMP), told by content; the file's name does not matter.
- **Grey** (8-bit, 1-bit, 16-bit) becomes three equal channels; grey files are never dropped.
- **16 bits** per channel are scaled by 1/257, rounded, for grey; of 16-bit colour Pillow keeps the high byte (at most 1 less).
- **CMYK and YCCK** are converted as Pillow does, without a colour profile (no profile is ever applied).
- **Palettes** are looked up. **Transparency** of any kind is composited on white.
- **EXIF orientation** 1 to 8 is applied when `exif` is true and ignored otherwise; a broken tag counts as 1.
- **Animations** give their first frame; the others are not looked at.
- **Size**: more pixels in the header than `max_pixels`, or more than 100 scans in a JPEG, are refused before decoding.
- **Truncated** files are refused, for the whole file is decoded and Pillow's LOAD_TRUNCATED_IMAGES is never set.
  Bits that flipped inside the coded data usually change pixels silently: only a checksum finds those.

Metadata of JPEG and PNG (comments, profiles, previews, animation frames) is cut out before a decoder sees the file.

JPEGs go through simplejpeg in strict mode; what it does not like goes to Pillow, which decides. Both stand on libjpeg-turbo
and give the same pixels. One thread of a Xeon (Sapphire Rapids), 200 ImageNet originals, median of three interleaved rounds:
simplejpeg 843 images/s, torchvision 814, Pillow 570.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Final, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

Pixels = NDArray[np.uint8]

MAX_PIXELS: Final = 50_000_000  # of one image, from its header; 150 MB as RGB
MAX_FILE_BYTES: Final = 256 * 1024**2  # of one file: a BMP of MAX_PIXELS fits
MAX_SCANS: Final = 100  # of a progressive JPEG (ordinary ones have about 10): each costs a pass over all pixels

_READERS: Final[dict[str, type[ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
}
EXTENSIONS: Final = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png", ".apng"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
}


class BadImage(Exception):
    """An image that cannot be used, with the reason in words.

    lasting: False when the file could not be read (permission, input/output error, vanished), so that another try on
    another day may succeed; True when its content is at fault.
    """

    def __init__(self, reason: str, lasting: bool = True) -> None:
        super().__init__(reason, lasting)
        self.reason = reason
        self.lasting = lasting

    def __str__(self) -> str:
        return self.reason


class Header(NamedTuple):
    """What the first bytes of a file promise."""

    width: int
    height: int
    format: str  # a key of the allowlist: JPEG, PNG, WEBP, GIF or BMP


# ---------------------------------------------------------------- reading

_RETRIED = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR, errno.EAGAIN}
_PAUSES_S = (0.05, 0.5)


def read(path: Path | str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a regular file; an input/output error is tried three times.

    Never waits for a FIFO or reads a device. Raises BadImage with the reason.
    """
    return _retried(lambda: _read_once(path, max_bytes))


def read_part(path: Path | str, start: int, size_bytes: int) -> bytes:
    """`size_bytes` of a regular file from byte `start`: an image within an archive. As `read`, with its limit.

    Raises BadImage, also where the file ends before.
    """
    if size_bytes > MAX_FILE_BYTES:
        raise BadImage(f"{size_bytes:,} bytes are more than the limit of {MAX_FILE_BYTES:,}")
    return _retried(lambda: _read_part_once(path, start, size_bytes))


def _retried(once: Callable[[], bytes]) -> bytes:
    for pause_s in (*_PAUSES_S, None):
        try:
            return once()
        except OSError as error:
            if error.errno in _RETRIED and pause_s is not None:
                time.sleep(pause_s)
                continue
            raise BadImage(_why_unreadable(error), lasting=False) from error
        except ValueError as error:  # a NUL in the name
            raise BadImage(f"cannot be opened: {error}") from error
    raise AssertionError("the last try returns or raises")


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[tuple[int, int]]:
    """A regular file's handle and its size. Raises BadImage for anything else."""
    # Non-blocking, for a FIFO without a writer would otherwise hang the open itself.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise BadImage(f"not a file but {_kind(facts.st_mode)}", lasting=False)
        yield handle, facts.st_size
    finally:
        os.close(handle)


def _read_once(path: Path | str, max_bytes: int) -> bytes:
    with _opened(path) as (handle, size_bytes):
        if size_bytes > max_bytes:
            raise BadImage(f"{size_bytes:,} bytes are more than the limit of {max_bytes:,}")
        parts = []
        total = 0
        while part := os.read(handle, max(size_bytes + 1 - total, 65536)):
            parts.append(part)
            total += len(part)
            if total > max_bytes:
                raise BadImage(f"grew past the limit of {max_bytes:,} bytes while being read")
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_part_once(path: Path | str, start: int, size_bytes: int) -> bytes:
    with _opened(path) as (handle, _):
        parts = []
        total = 0
        while total < size_bytes and (part := os.pread(handle, size_bytes - total, start + total)):
            parts.append(part)
            total += len(part)
        if total < size_bytes:
            raise BadImage(f"its file ends {size_bytes - total:,} bytes too early: it was cut off later", lasting=False)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def _why_unreadable(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file (vanished, or a dangling link)"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "no permission to read it"
    if error.errno == errno.ELOOP:
        return "a loop of symbolic links"
    if error.errno == errno.ENXIO:
        return "not a file but a socket"
    return f"cannot be read: {error.strerror or error}"


# ---------------------------------------------------------------- recognising


def sides(content: bytes | Pixels) -> tuple[int, int]:
    """Width and height of what a store holds, decoding nothing. Raises BadImage."""
    if isinstance(content, np.ndarray):
        return content.shape[1], content.shape[0]
    return header(content)[:2]


def header(data: bytes) -> Header:
    """Width, height and format as the first bytes say, decoding nothing. Raises BadImage for anything but the allowlist.

    Of an animation: the size of the first frame's canvas. The EXIF rule is not applied.
    """
    return _recognised(data)[0]


def _recognised(data: bytes) -> tuple[Header, _Jpeg | None]:
    """The header, and for a JPEG what else the walk to it found."""
    jpeg = None
    try:
        if data[:3] == b"\xff\xd8\xff":
            jpeg = _jpeg(data)
            found = Header(jpeg.width, jpeg.height, "JPEG")
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack_from(">II", data, 16)
            found = Header(width, height, "PNG")
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            found = Header(*_webp_sides(data), "WEBP")
        elif data[:6] in {b"GIF87a", b"GIF89a"}:
            found = Header(*_gif_sides(data), "GIF")
        elif data[:2] == b"BM" and len(data) >= 26:
            found = Header(*_bmp_sides(data), "BMP")
        else:
            raise BadImage(_why_unknown(data))
    except (struct.error, IndexError) as error:
        raise BadImage("the file ends within its header") from error
    if found.width < 1 or found.height < 1:
        raise BadImage(f"{found.format}: the header says {found.width} x {found.height} pixels")
    return found, jpeg


class _Jpeg(NamedTuple):
    width: int
    height: int
    components: int
    bits: int
    has_one_scan: bool  # sequential, all components in the first scan: a decoder refuses a second one
    exif: bytes  # the TIFF structure of the first EXIF segment, or nothing
    kept: tuple[tuple[int, int], ...]  # parts of the file that matter for pixels


_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_METADATA_MARKERS = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})  # APP1 to APP13, APP15, comment; APP14 tells the colour space


def _jpeg(data: bytes) -> _Jpeg:
    """Walks the segments up to the first scan. Raises struct.error or IndexError at the end of the file."""
    at = 2
    exif = b""
    frame: tuple[int, int, int, int] | None = None
    is_sequential = False
    kept = []
    begin = 0
    while True:
        start = at
        while data[at] != 0xFF:  # rubbish between segments: decoders skip it with a warning
            at += 1
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in (0xDA, 0xD9):  # the scan begins, or the image ends
            break
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue  # without a length; 0 is no marker, and what follows it is searched by decoders
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _FRAME_MARKERS and frame is None:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 2)
            frame = width, height, components, bits
            is_sequential = marker in (0xC0, 0xC1)
        if marker in _METADATA_MARKERS:
            if marker == 0xE1 and not exif and data[at + 2 : at + 8] == b"Exif\0\0":
                exif = data[at + 8 : at + length]
            kept.append((begin, start))
            begin = at + length
        at += max(length, 2)
    if frame is None:
        raise BadImage("JPEG: no frame header before the first scan")
    kept.append((begin, len(data)))
    has_one_scan = is_sequential and marker == 0xDA and data[at + 2] == frame[2]
    return _Jpeg(*frame, has_one_scan, exif, tuple(kept))


def _webp_sides(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (word,) = struct.unpack_from("<I", data, 21)
        return (word & 0x3FFF) + 1, (word >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise BadImage("WEBP: no image in the file")


def _gif_sides(data: bytes) -> tuple[int, int]:
    """The canvas, or the first frame where that reaches beyond it (Pillow then enlarges the canvas)."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at] != 0x2C:
        if data[at] == 0x21:  # an extension: label, then blocks, each with its length, up to an empty one
            at += 2
            while data[at]:
                at += data[at] + 1
        elif data[at] == 0x3B:
            raise BadImage("GIF: no image in the file")
        at += 1
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def _bmp_sides(data: bytes) -> tuple[int, int]:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height means rows from the top


_KNOWN_STARTS: Final = (
    (b"II*\0", "unsupported: TIFF"),
    (b"MM\0*", "unsupported: TIFF"),
    (b"II+\0", "unsupported: BigTIFF"),
    (b"MM\0+", "unsupported: BigTIFF"),
    (b"%PDF", "unsupported: PDF"),
    (b"%!PS", "unsupported: EPS or PostScript"),
    (b"\xc5\xd0\xd3\xc6", "unsupported: EPS or PostScript"),
    (b"\0\0\0\x0cjP", "unsupported: JPEG 2000"),
    (b"\xff\x4f\xff\x51", "unsupported: JPEG 2000"),
    (b"\0\0\0\x0cJXL", "unsupported: JPEG XL"),
    (b"\xff\x0a", "unsupported: JPEG XL"),
    (b"8BPS", "unsupported: Photoshop"),
    (b"\0\0\1\0", "unsupported: ICO"),
    (b"PK\3\4", "an archive (ZIP), not an image"),
    (b"\x1f\x8b", "an archive (gzip), not an image"),
    (b"version https://git-lfs", "a Git LFS pointer, not an image: run 'git lfs pull'"),
)


def _why_unknown(data: bytes) -> str:
    if not data:
        return "empty file"
    for start, reason in _KNOWN_STARTS:
        if data.startswith(start):
            return reason
    if data[4:8] == b"ftyp":
        if data[8:12] in {b"avif", b"avis"}:
            return "unsupported: AVIF"
        return "unsupported: HEIC" if data[8:10] in {b"he", b"mi", b"ms"} else "a video, not an image"
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "unsupported: SVG"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (HTML), not an image"
    if data[0] in b"P" and data[1:2] in {b"1", b"2", b"3", b"4", b"5", b"6", b"7"} and data[2:3].isspace():
        return "unsupported: Netpbm"
    if not data.strip(b"\0"):
        return f"{len(data):,} NUL bytes"
    return "not an image of a supported format (JPEG, PNG, WebP, GIF, BMP)"


def has_wrong_extension(name: str | PurePath, data: bytes | Pixels) -> bool:
    """Whether the file's name promises another format, while the content is an image; without an extension it promises none."""
    if isinstance(data, np.ndarray):
        return False
    try:
        found = header(data).format
    except BadImage:
        return False
    return PurePath(name).suffix.lower() not in {"", *EXTENSIONS[found]}  # a row of a table has a number for its name


# ---------------------------------------------------------------- decoding


def load(path: Path | str, exif: bool, max_pixels: int = MAX_PIXELS, seen: Counter[str] | None = None) -> Pixels:
    """`read` and `decode`; `seen` also counts "wrong extension" (a PNG named .JPEG is accepted)."""
    data = read(path)
    image_HW3 = decode(data, exif, max_pixels, seen)
    if seen is not None and has_wrong_extension(path, data):
        seen["wrong extension"] += 1
    return image_HW3


def pixels(content: bytes | Pixels, exif: bool, seen: Counter[str] | None = None) -> Pixels:
    """The pixels of what a store holds: stored ones as they are, else `decode`. Raises BadImage."""
    return content if isinstance(content, np.ndarray) else decode(content, exif, seen=seen)


def decode(data: bytes, exif: bool, max_pixels: int = MAX_PIXELS, seen: Counter[str] | None = None) -> Pixels:
    """RGB pixels of one image file by the rules above.

    exif: whether the EXIF orientation is applied. max_pixels: limit on width times height, from the header.
    seen: counts what is odd about the file: "grey", "cmyk", "16-bit", "palette", "alpha", "animated", "exif-rotated",
    "damaged" (a JPEG that only the lenient decoder accepts).
    Returns uint8 [H, W, 3], C-contiguous, writable. Raises BadImage with the reason, and nothing else.
    """
    odd: Counter[str] = Counter()
    image_HW3, orientation = as_stored(data, max_pixels, odd)
    if exif and orientation != 1:
        odd["exif-rotated"] += 1
        image_HW3 = turned(image_HW3, orientation)
    if seen is not None:
        seen.update(odd)
    return image_HW3


def as_stored(data: bytes, max_pixels: int, odd: Counter[str]) -> tuple[Pixels, int]:
    """`decode` without any turning, and the EXIF orientation, 1 to 8, that a viewer would apply; `odd` as its `seen`."""
    first, jpeg = _recognised(data)
    if first.width * first.height > max_pixels:
        raise BadImage(f"{first.format}: {first.width} x {first.height} pixels are more than the limit of {max_pixels:,}")
    try:
        if jpeg is not None:
            image_HW3, orientation = _decode_jpeg(data, jpeg, odd)
        else:
            image_HW3, orientation = _decode_other(data, first, odd)
    except BadImage:
        raise
    except Exception as error:  # decoders answer hostile bytes with any exception they like; each means the same here
        text = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{first.format}: {text}", lasting=not isinstance(error, MemoryError)) from error
    if image_HW3.shape != (first.height, first.width, 3):
        height, width = image_HW3.shape[:2]
        raise BadImage(f"{first.format}: the header says {first.width} x {first.height}, decoded were {width} x {height}")
    return image_HW3, orientation


def _decode_jpeg(data: bytes, facts: _Jpeg, odd: Counter[str]) -> tuple[Pixels, int]:
    # Within coded data 0xFF is always followed by 0, so what is counted are markers (or previews). It takes 0.1 ms.
    if not facts.has_one_scan and data.count(b"\xff\xda") > MAX_SCANS:
        raise BadImage(f"JPEG: more than {MAX_SCANS} scans")
    orientation = _orientation(facts.exif)
    if facts.components == 1:
        odd["grey"] += 1
    if facts.bits == 8 and facts.components in (1, 3):
        try:
            return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True), orientation
        except ValueError:
            pass  # Pillow decides: recoverable damage is an image for it, a truncated file is not
        odd["damaged"] += 1
    elif facts.components == 4:
        odd["cmyk"] += 1
    lean = b"".join(data[begin:end] for begin, end in facts.kept)
    image = JpegImageFile(io.BytesIO(lean))
    return _rgb(image, odd), orientation


def _decode_other(data: bytes, first: Header, odd: Counter[str]) -> tuple[Pixels, int]:
    if first.format == "PNG":
        data = _lean_png(data, odd)
    image = _READERS[first.format](io.BytesIO(data))
    if image.size != (first.width, first.height):  # before any pixel is decoded: the limit was checked on the header's size
        width, height = image.size
        raise BadImage(f"{first.format}: the header says {first.width} x {first.height}, the decoder {width} x {height}")
    if (isinstance(image, WebPImageFile) and image.n_frames > 1) or (first.format == "GIF" and _has_second_frame(data)):
        odd["animated"] += 1
    pixels = _rgb(image, odd)
    return pixels, _orientation(image.info.get("exif", b""))


_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})


def _lean_png(data: bytes, odd: Counter[str]) -> bytes:
    """The file without text, profiles and animation frames: what remains decides the pixels (and the orientation)."""
    parts = [data[:8]]
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name in _PNG_KEPT:
            parts.append(data[at : at + 12 + length])
            if name == b"IEND":
                break
        elif name == b"acTL":
            odd["animated"] += 1
        elif not name.isalpha() or not name[0] & 0x20:  # damage, or a chunk that a decoder must understand: Pillow decides
            parts.append(data[at:])
            break
        at += 12 + length
    return b"".join(parts)


def _has_second_frame(gif: bytes) -> bool:
    """Whether another picture follows the first; looks at block lengths only."""
    try:
        flags = gif[10]
        at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        pictures = 0
        while gif[at] != 0x3B and pictures < 2:
            if gif[at] == 0x2C:
                pictures += 1
                flags = gif[at + 9]
                at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            else:
                at += 2
            while gif[at]:
                at += gif[at] + 1
            at += 1
    except IndexError:
        return False
    return pictures > 1


def _rgb(image: Image.Image, odd: Counter[str]) -> Pixels:
    """Pixels of an opened image, by its mode. Returns uint8 [H, W, 3]."""
    image.load()
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        odd["16-bit"] += 1
        odd["grey"] += 1
        values_HW = np.asarray(image).astype(np.int64)
        grey_HW = ((values_HW * 2 + 257) // 514).clip(0, 255).astype(np.uint8)  # value / 257, rounded
        if "transparency" in image.info:
            odd["alpha"] += 1
            grey_HW = np.where(values_HW == image.info["transparency"], np.uint8(255), grey_HW)
        return np.repeat(grey_HW[:, :, None], 3, axis=2)
    if image.mode in {"1", "L", "LA", "La"} and image.format != "JPEG":
        odd["grey"] += 1
    if image.mode in {"P", "PA"}:
        odd["palette"] += 1
    if image.has_transparency_data:
        odd["alpha"] += 1
        with_alpha = image.convert("RGBA")
        image = Image.new("RGB", image.size, (255, 255, 255))
        image.paste(with_alpha, mask=with_alpha)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


# ---------------------------------------------------------------- EXIF orientation


def orientation(content: bytes | Pixels) -> int:
    """The EXIF orientation, 1 to 8, that `as_stored` tells of what a store holds, decoding nothing; stored pixels have 1.

    Raises BadImage as `header` does.
    """
    if isinstance(content, np.ndarray):
        return 1
    first, jpeg = _recognised(content)
    if jpeg is not None:
        return _orientation(jpeg.exif)
    if first.format == "PNG":
        return _orientation(_png_exif(content))
    if first.format != "WEBP":
        return 1  # GIF and BMP have no place for it
    try:
        return _orientation(WebPImageFile(io.BytesIO(content)).info.get("exif", b""))
    except Exception as error:  # as in `as_stored`
        raise BadImage(f"{first.format}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _png_exif(data: bytes) -> bytes:
    """The TIFF structure of an eXIf chunk, or nothing; it may stand before or after the pixels."""
    found, at = b"", 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"eXIf":
            found = data[at + 8 : at + 8 + length]
        if name == b"IEND":
            break
        at += 12 + length
    return found


def _orientation(exif: bytes) -> int:
    """Tag 0x112 of the first directory of an EXIF block, 1 when absent or out of range.

    Read here and not by Pillow, which parses every tag of a block that anyone may have written.
    """
    if exif[:6] == b"Exif\0\0":
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == 0x112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass  # a broken block says nothing about the orientation
    return 1


def turned(image_HW3: Pixels, orientation: int) -> Pixels:
    """The image as it should be seen, C-contiguous. Source: EXIF 2.32, tag Orientation."""
    if orientation >= 5:
        image_HW3 = image_HW3.transpose(1, 0, 2)  # 5 to 8 are stored by columns
    if orientation in (2, 3, 6, 7):
        image_HW3 = image_HW3[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image_HW3 = image_HW3[::-1]
    return np.ascontiguousarray(image_HW3)
