"""JPEG decoders of Python packages on one core: speed, equal pixels, damage that they let pass, and decoding a part only.

    python benchmarks/decoders.py DIR [--photos 200] [--rounds 7] [--json] [--write FILE.json]

DIR holds JPEG photos, as ImageNet's originals are. Every decoder that is installed turns the same bytes in memory into RGB
pixels, uint8, one photo after the other. The decoders take turns within a round, in changing order, and a round is one pass
over all photos; what is compared is processor time, of all threads. Three questions:

1. Speed, on the originals and on what a pack makes of them (shorter side 256, quality 85, 4:2:0); and the difference from
   Pillow's pixels.
2. Damage: three copies of each photo, cut off in the middle, with zeros in the coded data, and with a marker that does not
   belong there. A decoder either refuses a copy or gives pixels as if nothing was wrong; the counts say how often.
3. The part under a random resized crop (8 to 100 % of the area), against the whole photo with the same package. "window" is
   nvImageCodec's region, on its CPU back end. "top" sets the height in the header to the crop's lower edge, so that
   simplejpeg stops there; it needs no more than simplejpeg. Both must equal the same part of the whole.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import io
import json
import os
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from striate import machine
from striate.data.augment import draw
from striate.data.augment.draw import Augmentation

Pixels = NDArray[np.uint8]
Decode = Callable[[bytes], Pixels]
Box = tuple[int, int, int, int]  # left, top, width, height

CROP = Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 0, 0.0, 224, "bilinear", "crop")
_ENDING = "extraneous bytes before marker 0xd9"  # libjpeg's first complaint where nothing else was wrong above the cut


# ---------------------------------------------------------------- the decoders


def simplejpeg_decode(data: bytes) -> Pixels:
    """As `data.decode` calls it."""
    image: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
    return image


def pillow_decode(data: bytes) -> Pixels:
    """The reference."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def torchvision_decode(package: Any) -> Decode:
    """torchvision.io, channels first in memory."""
    rgb = package.ImageReadMode.RGB
    return lambda data: package.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), rgb).permute(1, 2, 0).numpy()


def torchcodec_decode(package: Any) -> Decode:
    """torchcodec's image decoders, on the CPU."""
    return lambda data: package.decode_jpeg(data).permute(1, 2, 0).numpy()


def opencv_decode(package: Any) -> Decode:
    """OpenCV, straight into RGB."""
    package.setNumThreads(1)
    flags = package.IMREAD_COLOR_RGB | package.IMREAD_IGNORE_ORIENTATION
    return lambda data: package.imdecode(np.frombuffer(data, dtype=np.uint8), flags)


def kornia_decode(package: Any) -> Decode:
    """kornia-rs, its libjpeg-turbo."""
    return lambda data: np.asarray(package.decode_image_jpegturbo(data, "rgb"))


def imagecodecs_decode(package: Any) -> Decode:
    """imagecodecs' libjpeg-turbo."""
    return lambda data: package.jpeg8_decode(data, outcolorspace="rgb")


def nvimgcodec_decode(package: Any) -> Decode:
    """nvImageCodec's CPU back end, exact as the others."""
    decoder = nvimgcodec_decoder(package)
    return lambda data: np.asarray(decoder.decode(package.CodeStream(data)))


def nvimgcodec_decoder(package: Any) -> Any:
    """One that takes no GPU and one thread."""
    return package.Decoder(
        device_id=package.NVIMGCODEC_DEVICE_CPU_ONLY,
        max_num_cpu_threads=1,
        backends=[package.Backend(package.CPU_ONLY)],
        options=":fancy_upsampling=1 :fast_idct=0",
    )


OTHERS: dict[str, tuple[str, str, Callable[[Any], Decode]]] = {
    "torchvision": ("torchvision.io", "torchvision", torchvision_decode),
    "torchcodec": ("torchcodec.decoders", "torchcodec", torchcodec_decode),
    "opencv": ("cv2", "opencv-python-headless", opencv_decode),
    "kornia-rs": ("kornia_rs.io", "kornia_rs", kornia_decode),
    "imagecodecs": ("imagecodecs", "imagecodecs", imagecodecs_decode),
    "nvImageCodec": ("nvidia.nvimgcodec", "nvidia-nvimgcodec-cu12", nvimgcodec_decode),
}


def installed() -> tuple[dict[str, Decode], dict[str, str]]:
    """The decoders that are there, and what each one's version is or why it is not there."""
    found: dict[str, Decode] = {"simplejpeg": simplejpeg_decode, "Pillow": pillow_decode}
    versions = {"simplejpeg": importlib.metadata.version("simplejpeg"), "Pillow": importlib.metadata.version("pillow")}
    for name, (module, package, make) in OTHERS.items():
        try:
            found[name] = make(importlib.import_module(module))
            versions[name] = importlib.metadata.version(package)
        except (ImportError, OSError, RuntimeError, AttributeError, importlib.metadata.PackageNotFoundError) as error:
            versions[name] = f"not measured: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return found, versions


# ---------------------------------------------------------------- the part under a crop


def top_of(data: bytes, bottom: int) -> tuple[bytes, int, int] | None:
    """The file with its height set to hold `bottom` rows, that height, and the width; None where it cannot, or saves nothing.

    Only sequential files: in a progressive one every scan goes over the whole image. One row of units more than the crop
    needs where colours are stored at half height: the upsampling looks at it.
    """
    at = 2
    with contextlib.suppress(struct.error, IndexError):
        while data[at + 1] != 0xDA:
            marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
            if marker in (0xC0, 0xC1):
                height, width, components = struct.unpack_from(">HHB", data, at + 5)
                factor = max(data[at + 11 + 3 * number] & 15 for number in range(components))
                unit = 8 * factor
                rows = (-(-bottom // unit) + (factor > 1)) * unit
                return (data[: at + 5] + struct.pack(">H", rows) + data[at + 7 :], rows, width) if rows < height else None
            if marker in range(0xC2, 0xD0) and marker != 0xC4:
                return None
            at += 2 + length
    return None


def decode_top(data: bytes, box: Box) -> Pixels:
    """The crop, from the rows above its lower edge, with no more damage accepted in them than in a whole file."""
    left, top, width, height = box
    cut = top_of(data, top + height)
    if cut is None:
        return simplejpeg_decode(data)[top : top + height, left : left + width]
    part, rows, whole_width = cut
    image_HW3 = np.empty((rows, whole_width, 3), dtype=np.uint8)
    try:
        simplejpeg.decode_jpeg(part, "RGB", fastdct=False, fastupsample=False, strict=True, buffer=image_HW3)
    except ValueError as error:
        if not str(error).splitlines()[0].endswith(_ENDING):
            raise
    return image_HW3[top : top + height, left : left + width]


def nvimgcodec_window(package: Any) -> Callable[[bytes, Box], Pixels]:
    """The crop by nvImageCodec's region."""
    decoder = nvimgcodec_decoder(package)

    def window(data: bytes, box: Box) -> Pixels:
        left, top, width, height = box
        region = package.Region(top, left, top + height, left + width)
        return np.asarray(decoder.decode(package.CodeStream(data).get_sub_code_stream(region=region)))

    return window


def boxes(photos: list[bytes]) -> list[Box]:
    """A random resized crop of each photo, as training draws it."""
    uniforms_ND = draw.draw(0, 0, np.arange(len(photos)))
    found = []
    for data, uniforms_D in zip(photos, uniforms_ND, strict=True):
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        one = draw.choose(width, height, CROP, uniforms_D)
        found.append((one.left, one.top, one.width, one.height))
    return found


# ---------------------------------------------------------------- measuring


def in_turns(work: dict[str, Callable[[int], object]], count: int, rounds: int) -> dict[str, list[float]]:
    """Processor seconds per image of each piece of work, of each round after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for number in range(rounds + 1):
        names = names[1:] + names[:1]
        for name in names:
            began = time.process_time()
            for image in range(count):
                work[name](image)
            if number:
                found[name].append((time.process_time() - began) / count)
    return found


def summed_up(seconds: dict[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Images per second of each, and its processor time as a ratio to the reference's of the same round."""
    found = {}
    for name, ours in seconds.items():
        ratios = [one / other for one, other in zip(ours, seconds[reference], strict=True)]
        found[name] = {
            "images_per_s": round(1 / statistics.median(ours), 1),
            "images_per_s_min": round(1 / max(ours), 1),
            "images_per_s_max": round(1 / min(ours), 1),
            "time_ratio": round(statistics.median(ratios), 3),
            "time_ratio_min": round(min(ratios), 3),
            "time_ratio_max": round(max(ratios), 3),
        }
    return found


def differences(decode: Decode, photos: list[bytes]) -> dict[str, float]:
    """How far its pixels are from Pillow's, in levels of 0 to 255."""
    most, means, equal = 0, [], 0
    for data in photos:
        away = np.abs(decode(data).astype(np.int16) - pillow_decode(data))
        most, equal = max(most, int(away.max())), equal + (not away.any())
        means.append(float(away.mean()))
    return {"equal_photos": equal, "mean_difference": round(statistics.mean(means), 4), "most_difference": most}


def damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Three copies of a file, each with one damage in its coded data."""
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    yield "cut off", data[:middle]
    yield "zeros", data[:middle] + bytes(2000) + data[middle + 2000 :]
    yield "foreign marker", data[:middle] + b"\xff\xb7" + data[middle + 2 :]


def accepted(decode: Decode, photos: list[bytes]) -> dict[str, int]:
    """How many damaged copies gave pixels, by damage."""
    found: dict[str, int] = {}
    for data in photos:
        for name, copy in damaged(data):
            try:
                is_image = decode(copy).ndim == 3
            except Exception:  # each package has exceptions of its own; all of them mean that the copy was refused
                is_image = False
            found[name] = found.get(name, 0) + is_image
    return found


def packed(data: bytes) -> bytes:
    """As a pack stores it by default, but for its restart markers."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = min(1.0, 256 / min(image.size))
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=85, subsampling="4:2:0")
    return sink.getvalue()


def parts(photos: list[bytes], rounds: int, versions: dict[str, str]) -> dict[str, Any]:
    """Question 3."""
    crops = boxes(photos)
    whole = [simplejpeg_decode(data)[y : y + h, x : x + w] for data, (x, y, w, h) in zip(photos, crops, strict=True)]
    work: dict[str, Callable[[int], object]] = {"simplejpeg, whole": lambda i: simplejpeg_decode(photos[i])}
    ways: dict[str, Callable[[bytes, Box], Pixels]] = {"simplejpeg, top": decode_top}
    if not versions["nvImageCodec"].startswith("not"):
        package = importlib.import_module("nvidia.nvimgcodec")
        nvimgcodec = nvimgcodec_decode(package)
        work["nvImageCodec, whole"] = lambda i: nvimgcodec(photos[i])
        ways["nvImageCodec, window"] = nvimgcodec_window(package)
    equal = {}
    for name, way in ways.items():
        equal[name] = sum(np.array_equal(way(*pair), want) for *pair, want in zip(photos, crops, whole, strict=True))
        work[name] = lambda i, way=way: way(photos[i], crops[i])  # type: ignore[misc]
    found = summed_up(in_turns(work, len(photos), rounds), "simplejpeg, whole")
    return {name: row | ({"equal_crops": equal[name]} if name in equal else {}) for name, row in found.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block nothing reaches standard error: nvImageCodec writes there what each damaged file made it think."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with JPEG photos")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on the last line")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in given.data.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})[: given.photos]
    originals = [path.read_bytes() for path in paths]
    if not originals:
        parser.error(f"{given.data}: no JPEG photos in it")
    with quiet():
        decoders, versions = installed()
        sets = {"originals": originals, "packed": [packed(data) for data in originals]}
        speeds = {}
        for kind, photos in sets.items():
            work = {name: lambda i, d=decode, p=photos: d(p[i]) for name, decode in decoders.items()}  # type: ignore[misc]
            rows = summed_up(in_turns(work, len(photos), given.rounds), "simplejpeg")
            speeds[kind] = {name: row | differences(decoders[name], photos) for name, row in rows.items()}
        passed = {name: accepted(decode, originals) for name, decode in decoders.items()}
        crops = parts(originals, given.rounds, versions)
    for kind, rows in speeds.items():
        print(f"{kind}, {len(originals)} photos, {sum(map(len, sets[kind])) / len(originals) / 1e3:.1f} kB each")
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["images_per_s"]):
            print(
                f"  {name:<14} {row['images_per_s']:6.0f} images/s ({row['images_per_s_min']:.0f} to "
                f"{row['images_per_s_max']:.0f}), time {row['time_ratio']:.2f} of simplejpeg's; {row['equal_photos']} equal "
                f"Pillow's, mean difference {row['mean_difference']:.3f}, most {row['most_difference']}"
            )
    print("damaged copies taken for images")
    for name, kinds in passed.items():
        print(f"  {name:<14} " + ", ".join(f"{kind} {count}" for kind, count in kinds.items()))
    print("the part under a random resized crop")
    for name, row in crops.items():
        equal = f"; {row['equal_crops']} equal the same part of the whole" if "equal_crops" in row else ""
        print(
            f"  {name:<21} {row['images_per_s']:6.0f} images/s, time {row['time_ratio']:.2f} "
            f"({row['time_ratio_min']:.2f} to {row['time_ratio_max']:.2f}){equal}"
        )
    for name, words in versions.items():
        if words.startswith("not"):
            print(f"{name}: {words}")
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "photos": len(originals),
        "rounds": given.rounds,
        "clock": "processor time of the process; decoders in turns within each round",
        "speed": speeds,
        "damaged_copies_accepted": passed,
        "crops": crops,
        "versions": versions,
        "load_average": os.getloadavg(),
        "environment": machine.describe(torch.device("cpu")),
    }
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
