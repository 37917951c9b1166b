"""Small sets decoded once: all images of an index as one block of uint8, kept on disk for the next run.

What is stored is said by `Prepare` (photos, perhaps shrunk, for training) or by a `View` (finished network pixels, for
evaluation). The pixels are exactly those that streaming makes. Images that cannot be used have an empty slot and a reason.

On disk: cache_folder()/images/HASH/ with `pixels.bin` (RGB of one image after the other), `sides.bin` (int32 little-endian
height and width of each) and `manifest.json` (sizes, checksums, bad images). The folder appears by one rename, so a reader
finds all or nothing, and two builders do not disturb each other. HASH covers keys, sizes, times and labels of the index,
the preparation and the decoders' versions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
import shutil
import socket
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow_version

from striate import files, machine
from striate.data import decode, views
from striate.data.crew import Failed, Note, Stuck, threads_in_order
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index
from striate.errors import DataError, ResourceError, StriateError, UserError
from striate.view import View

MEMORY_SHARE: Final = 0.25  # of the free memory, that decoded images may take
_FORMAT: Final = 1
_CHUNK: Final = 32  # images of one job
_DEFAULT_CAP_GB: Final = 20.0


@dataclass(frozen=True)
class Prepare:
    """How photos are stored for training: with or without the EXIF rule, shorter side at most shrink_px (0: as they are)."""

    exif: bool
    shrink_px: int

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def prepared(content: bytes | Pixels, prepare: Prepare | View, seen: Counter[str] | None = None) -> Pixels:
    """The stored pixels of one image: decoded, then shrunk or viewed. Raises BadImage."""
    image_HW3 = decode.pixels(content, prepare.exif, seen)
    if isinstance(prepare, View):
        return views.apply(image_HW3, prepare)
    return views.shrink(image_HW3, prepare.shrink_px)


@dataclass(eq=False)
class Resident:
    """All images of an index, decoded. `image` gives one without a copy.

    blob: all pixels, [bytes] uint8; offsets_N1: [N + 1] int64 into it; sides_N2: [N, 2] int32, height and width (0 when bad).
    bad: why an image has no pixels, by row. notes: what was odd, and where the cache lies, for people.
    """

    prepare: Prepare | View
    blob: NDArray[np.uint8]
    offsets_N1: NDArray[np.int64]
    sides_N2: NDArray[np.int32]
    bad: dict[int, str]
    notes: tuple[str, ...] = ()
    is_from_cache: bool = False
    _all_same: NDArray[np.uint8] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        count = len(self.sides_N2)
        if count and not self.bad and bool((self.sides_N2 == self.sides_N2[0]).all()):
            height, width = self.sides_N2[0].tolist()
            self._all_same = self.blob[: count * height * width * 3].reshape(count, height, width, 3)

    def __len__(self) -> int:
        return len(self.sides_N2)

    @property
    def size_bytes(self) -> int:
        """Bytes of pixels."""
        return int(self.offsets_N1[-1])

    def image(self, i: int) -> Pixels:
        """Image i as stored: uint8 [H, W, 3], a window into the block; do not write. Raises BadImage with its reason."""
        if i in self.bad:
            raise BadImage(self.bad[i])
        height, width = self.sides_N2[i].tolist()
        image_HW3: Pixels = self.blob[self.offsets_N1[i] : self.offsets_N1[i + 1]].reshape(height, width, 3)
        return image_HW3

    def on(self, device: torch.device) -> torch.Tensor | None:
        """A copy of every image on a device, uint8 [N, H, W, 3], so that a step sends it row numbers only.

        None where not all images are good and of one size, or where they take more than MEMORY_SHARE of what is free there.
        """
        if self._all_same is None:
            return None
        on_gpu = device.type == "cuda"
        free_bytes = torch.cuda.mem_get_info(device)[0] if on_gpu else machine.free_memory_bytes()
        if self.size_bytes > MEMORY_SHARE * free_bytes:
            return None
        copy_NHW3 = torch.empty(self._all_same.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), _CHUNK):
            copy_NHW3[start : start + _CHUNK] = torch.tensor(self._all_same[start : start + _CHUNK])
        return copy_NHW3

    def all_of(self, size_px: int) -> NDArray[np.uint8] | None:
        """Every image as one array [N, S, S, 3], if all are good and S by S; else None."""
        if self._all_same is not None and self._all_same.shape[1:3] == (size_px, size_px):
            return self._all_same
        return None


def estimate_bytes(index: Index, prepare: Prepare | View, timeout_s: float = 120.0) -> int:
    """Bytes that `build` would need, from the headers of at most 256 images; exact for a View.

    Raises ResourceError when reading hangs.
    """
    if isinstance(prepare, View):
        return len(index) * prepare.size_px**2 * 3

    def work(row: int, note: Note) -> int | None:
        note(row)
        try:
            sides = decode.sides(index.content(row))
        except BadImage:
            return None
        width, height = views.shrunk_sides(*sides, prepare.shrink_px)
        return width * height

    count = len(index)
    rows = range(0, count, max(1, -(-count // 256)))
    with contextlib.closing(_named(index, threads_in_order(work, iter(rows), 1, len(rows), timeout_s))) as results:
        pixels = [found for found in results if found is not None]
    return int(3 * np.mean(pixels) * count) if pixels else 0


def fits(needed_bytes: int) -> bool:
    """Whether images of that size may be kept in memory: at most MEMORY_SHARE of what is free."""
    return needed_bytes <= MEMORY_SHARE * machine.free_memory_bytes()


# ---------------------------------------------------------------- building


def build(
    index: Index,
    prepare: Prepare | View,
    workers: int,
    on_bad: Callable[[int, str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    timeout_s: float = 120.0,
) -> Resident:
    """All images of an index, from the cache if it has them, else decoded by `workers` threads and then cached.

    on_bad(row, reason) is told of every image that cannot be used, also of those known to the cache, in the order of rows;
    it may raise to stop. progress(done, total) is called now and then.
    A cache that cannot be read or written costs time, never the run: the notes say what happened.
    Raises ResourceError when memory ends or reading hangs.
    """
    notes: list[str] = []
    folder = _images_folder() / cache_key(index, prepare)
    found = _read_cache(folder, index, prepare, notes)
    if found is not None:
        for row, reason in sorted(found.bad.items()):
            if on_bad is not None:
                on_bad(row, reason)
        if progress is not None:
            progress(len(index), len(index))
        return dataclasses.replace(found, notes=(*found.notes, *notes))
    resident, is_lasting, oddities = _decode_all(index, prepare, workers, on_bad, progress, timeout_s)
    notes[:0] = oddities
    if is_lasting:
        _write_cache(folder, resident, tuple(oddities), notes)
    else:
        notes.append("not cached on disk: some files could not be read this time")
    return dataclasses.replace(resident, notes=tuple(notes))


def _decode_all(
    index: Index,
    prepare: Prepare | View,
    workers: int,
    on_bad: Callable[[int, str], None] | None,
    progress: Callable[[int, int], None] | None,
    timeout_s: float,
) -> tuple[Resident, bool, list[str]]:
    """The images, whether every failure is lasting, and what was odd about them."""
    count = len(index)
    # Pages of an empty array are not taken before they are written, so a generous first size costs nothing.
    blob = np.empty(max(1, int(1.15 * estimate_bytes(index, prepare, timeout_s))), dtype=np.uint8)
    offsets_N1 = np.zeros(count + 1, dtype=np.int64)
    sides_N2 = np.zeros((count, 2), dtype=np.int32)
    bad: dict[int, str] = {}
    seen: Counter[str] = Counter()
    is_lasting = True

    def work(rows: range, note: Note) -> tuple[list[Pixels | BadImage], Counter[str]]:
        odd: Counter[str] = Counter()
        found: list[Pixels | BadImage] = []
        for row in rows:
            note(row)
            try:
                content = index.content(row)
                found.append(prepared(content, prepare, odd))
                odd["wrong extension"] += decode.has_wrong_extension(index.keys[row], content)
            except BadImage as error:
                found.append(error)
        return found, odd

    jobs = iter([range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)])
    row = end = 0
    with contextlib.closing(_named(index, threads_in_order(work, jobs, workers, 4 * max(1, workers), timeout_s))) as results:
        for images, odd in results:
            seen.update(odd)
            for image in images:
                if isinstance(image, BadImage):
                    bad[row] = image.reason
                    is_lasting = is_lasting and image.lasting
                    if on_bad is not None:
                        on_bad(row, image.reason)
                else:
                    if end + image.size > len(blob):
                        blob = np.concatenate([blob[:end], np.empty(image.size + max(len(blob) // 4, 1 << 20), dtype=np.uint8)])
                    blob[end : end + image.size] = image.reshape(-1)
                    end += image.size
                    sides_N2[row] = image.shape[:2]
                row += 1
                offsets_N1[row] = end
            if progress is not None:
                progress(row, count)
    oddities = [f"{number:,} images: {kind}" for kind, number in sorted(seen.items()) if number]
    return Resident(prepare, blob[:end], offsets_N1, sides_N2, bad), is_lasting, oddities


def _named(index: Index, results: Generator[Any]) -> Generator[Any]:
    """The same results; what goes wrong is told with file names."""
    try:
        yield from results
    except Stuck as error:
        raise stuck_error(error, index) from error
    except Failed as error:
        raise failed_error(error, index) from error
    finally:
        results.close()


def stuck_error(error: Stuck, index: Index) -> ResourceError:
    """The error for workers that hang or died, with the files in flight."""
    names = [index.where(row) for row in error.rows[:4]]
    where = f" while reading {names[0]!r}" if names else ""
    others = f" (also in flight: {', '.join(map(repr, names[1:]))})" if len(names) > 1 else ""
    advice = "Check that file and its disk; the same command goes on from the last checkpoint."
    return ResourceError(f"Loader: {error.reason}{where}{others}. {advice}")


def failed_error(error: Failed, index: Index) -> StriateError:
    """The error for an exception that nobody expected, with its text and the file."""
    if isinstance(error.error, StriateError):
        return error.error
    path = f"{index.where(error.row)!r}: " if error.row >= 0 else ""
    text = f"{path}{error.type_name}: {error.text} (raised by the loader while it made this image)"
    if error.type_name == "MemoryError":
        return ResourceError(f"{text}. Use a smaller --batch-size or fewer --workers.")
    return DataError(text)


# ---------------------------------------------------------------- the cache on disk


def _images_folder() -> Path:
    return files.cache_folder() / "images"


def cache_key(index: Index, prepare: Prepare | View) -> str:
    """32 hex digits: another value whenever the stored pixels might differ."""
    kind = "view" if isinstance(prepare, View) else "photo"
    decoders = f"pillow {pillow_version} simplejpeg {simplejpeg.__version__}"
    pixels = {name: value for name, value in prepare.to_json().items() if name not in ("mean", "std")}  # normalised later
    head = json.dumps([_FORMAT, index.fingerprint, kind, pixels, decoders], sort_keys=True)
    times = np.ascontiguousarray(index.mtimes_ns, dtype="<i8").tobytes()  # sees a photo edited to the same size
    return files.sha256_bytes(head.encode() + times)[:32]


def cap_bytes() -> int:
    """Most bytes that the cache of images may take: $STRIATE_CACHE_GB (1 GB is 1000³ bytes), else 20 GB; 0 turns it off."""
    text = os.environ.get("STRIATE_CACHE_GB")
    try:
        size_gb = float(text) if text else _DEFAULT_CAP_GB
    except ValueError:
        raise UserError(f"STRIATE_CACHE_GB is {text!r}; expected a number of GB, 0 to keep nothing.") from None
    if not 0 <= size_gb < 1e9:
        raise UserError(f"STRIATE_CACHE_GB is {text!r}; expected a number of GB, 0 to keep nothing.")
    return int(size_gb * 1e9)


def _sampled_crc(blob: NDArray[np.uint8]) -> int:
    """CRC-32 of 256 pages spread over the block: finds a hole or a file of zeros without reading it all."""
    crc = 0
    for start in np.unique(np.linspace(0, max(len(blob) - 4096, 0), 256).astype(np.int64)):
        crc = zlib.crc32(blob[start : start + 4096].data, crc)
    return crc


def _seal(manifest: dict[str, Any]) -> str:
    return files.sha256_bytes(json.dumps({**manifest, "seal": ""}, sort_keys=True).encode())


def _read_cache(folder: Path, index: Index, prepare: Prepare | View, notes: list[str]) -> Resident | None:
    """The cached images, or None; damage is noted and the folder removed."""
    manifest_path = folder / "manifest.json"
    try:
        manifest = json.loads(manifest_path.read_bytes())
        sides = (folder / "sides.bin").read_bytes()
        if manifest["seal"] != _seal(manifest) or files.sha256_bytes(sides) != manifest["sides_sha256"]:
            raise ValueError("its manifest or its sides do not agree with their checksums")
        sides_N2 = np.frombuffer(sides, dtype="<i4").reshape(-1, 2)
        offsets_N1 = np.zeros(len(sides_N2) + 1, dtype=np.int64)
        np.cumsum(3 * sides_N2[:, 0].astype(np.int64) * sides_N2[:, 1], out=offsets_N1[1:])
        if len(sides_N2) != len(index):
            raise ValueError(f"it has {len(sides_N2):,} images, the index {len(index):,}")
        blob = _mapped(folder / "pixels.bin", int(offsets_N1[-1]))
        if _sampled_crc(blob) != manifest["pixels_crc"]:
            raise ValueError("its pixels do not agree with their checksum")
        bad = {int(row): str(reason) for row, reason in manifest["bad"].items()}
    except FileNotFoundError:
        if folder.exists():
            _forget(folder)
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        notes.append(f"the cache {folder} was damaged ({error}) and is made again")
        _forget(folder)
        return None
    with contextlib.suppress(OSError):  # a read-only cache still serves; it only forgets when it was used
        os.utime(manifest_path)
    notes_all = (*manifest["notes"], f"decoded images from the cache {folder}")
    return Resident(prepare, blob, offsets_N1, sides_N2, bad, notes_all, is_from_cache=True)


def _mapped(path: Path, size_bytes: int) -> NDArray[np.uint8]:
    with open(path, "rb") as file:
        found = os.fstat(file.fileno()).st_size
        if found != size_bytes:
            raise ValueError(f"pixels.bin has {found:,} bytes instead of {size_bytes:,}")
        if size_bytes == 0:
            return np.empty(0, dtype=np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)


def _write_cache(folder: Path, resident: Resident, oddities: tuple[str, ...], notes: list[str]) -> None:
    """Keeps the images for the next run if there is room; says so in the notes if not."""
    cap = cap_bytes()
    needed = f"{resident.size_bytes / 1e9:.1f} GB"
    if resident.size_bytes > cap:
        notes.append(f"not cached on disk: {needed} are more than the cap of {cap / 1e9:.1f} GB (STRIATE_CACHE_GB)")
        return
    parent = folder.parent
    temporary = parent / f"tmp-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        _make_room(parent, cap - resident.size_bytes)
        if files.free_bytes(parent) < resident.size_bytes + 64 * 1024**2:
            notes.append(f"not cached on disk: {parent} has {files.free_bytes(parent) / 1e9:.1f} GB free, {needed} are needed")
            return
        temporary.mkdir()
        sides = np.ascontiguousarray(resident.sides_N2, dtype="<i4").tobytes()
        files.write_synced(temporary / "pixels.bin", resident.blob.data)
        files.write_synced(temporary / "sides.bin", sides)
        manifest: dict[str, Any] = {
            "format": _FORMAT,
            "prepare": resident.prepare.to_json(),
            "sides_sha256": files.sha256_bytes(sides),
            "pixels_crc": _sampled_crc(resident.blob),
            "bad": {str(row): reason for row, reason in sorted(resident.bad.items())},
            "notes": list(oddities),
        }
        files.write_synced(temporary / "manifest.json", json.dumps({**manifest, "seal": _seal(manifest)}).encode())
        files.sync_folder(temporary)
        # When another builder was faster, its folder is as good as ours: the rename fails and ours goes.
        with contextlib.suppress(FileExistsError):
            _rename(temporary, folder)
        files.sync_folder(parent)
        notes.append(f"decoded images kept in the cache {folder}")
    except OSError as error:
        notes.append(f"not cached on disk: {parent}: {error.strerror or error}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: Path, folder: Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError as error:
        if folder.is_dir():
            raise FileExistsError(folder) from error
        raise


def _entries(parent: Path) -> list[tuple[float, int, Path]]:
    """Finished entries: time of last use, bytes, folder."""
    found = []
    for folder in parent.iterdir():
        if not folder.name.startswith("tmp-"):
            with contextlib.suppress(OSError):
                size_bytes = sum(file.stat().st_size for file in folder.iterdir())
                found.append(((folder / "manifest.json").stat().st_mtime, size_bytes, folder))
    return found


def _make_room(parent: Path, remaining_bytes: int) -> None:
    """Removes the entries that were not used for longest, until the others take `remaining_bytes` or less."""
    entries = sorted(_entries(parent))
    total = sum(size_bytes for _, size_bytes, _ in entries)
    for _, size_bytes, folder in entries:
        if total <= remaining_bytes:
            return
        _forget(folder)
        total -= size_bytes


def _sweep(parent: Path) -> None:
    """Removes what builders that were killed on this host left behind."""
    start = f"tmp-{socket.gethostname()}-"
    for folder in parent.glob("tmp-*"):
        if folder.name.startswith(start):
            with contextlib.suppress(ValueError):
                if not _is_alive(int(folder.name[len(start) :].split("-")[0])):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _forget(folder: Path) -> None:
    """Removes an entry so that nobody sees a part of it: renamed first. A mapping that another process holds lives on."""
    aside = folder.with_name(f"tmp-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)
