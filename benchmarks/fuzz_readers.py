"""Gives mutated files to everything that reads data, and looks for what should not happen.

    python benchmarks/fuzz_readers.py [--inputs 20000] [--seed 0] [--targets a,b] [--keep DIR] [--write FILE.json]
    python benchmarks/fuzz_readers.py --only TARGET:NUMBER      # one input again, with its traceback

A reader may return, or raise one of our own exceptions (BadImage, StriateError). It fails with any other exception, with a
signal, when an input takes more than 2 s of processor time or no word comes for 60 s, and when the process grows by
more than 512 MB over what the sound files took. Inputs are read in a child process, which is started again after a crash.
Input NUMBER of a target is a pure function of the seed: a sound file, one to four times mutated (bits and bytes changed,
numbers written over, parts removed, doubled, moved or taken from another file, words of the format put in, ends cut off).
Each input that fails is kept, in --keep. Exit code 1 when there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageDraw

from striate.data import decode, synthetic
from striate.data.decode import BadImage
from striate.data.index import Index
from striate.data.layouts.detect import open_split
from striate.data.pack import shard, slices, write
from striate.data.pack.format import Jpeg, Keep, Raw
from striate.data.pack.read import open_pack, verify
from striate.data.photo import windowed
from striate.errors import Interrupted, StriateError
from striate.files import sha256_bytes

LIMIT_S = 2.0
HANG_S = 60.0
GROWTH_BYTES = 512_000_000
SCRIPT = Path(__file__).resolve()  # that a child runs
_ROWS = 6  # of an index that are read


@dataclass(frozen=True)
class Target:
    """A reader, with sound files to start from. read(number, data): reads with file `number` replaced by `data`.

    tokens: words of the format.
    """

    name: str
    seeds: list[bytes]
    tokens: tuple[bytes, ...]
    read: Callable[[int, bytes], None]


# ---------------------------------------------------------------- mutating

_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1)
_TEXT = (
    b"",
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"inf",
    b"9" * 5000,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b"\r\n",
    b"../",
    b'"',
    b",",
)


def mutated(target: Target, number: int, seed: int) -> tuple[int, bytes]:
    """Input `number` of a target: which of its files, and what stands in it."""
    dice = random.Random(f"{seed} {target.name} {number}")
    place = dice.randrange(len(target.seeds))
    data = bytearray(target.seeds[place])
    for _ in range(dice.choice((1, 1, 2, 4))):
        dice.choice(MUTATORS)(data, target, dice)
    return place, bytes(data)


def _piece(data: bytearray, dice: random.Random) -> tuple[int, int]:
    """Where a part of the file begins and ends; small parts are as likely as large ones."""
    begin = dice.randrange(len(data) + 1)
    return begin, min(len(data), begin + int(2 ** dice.uniform(0, len(data).bit_length())))


def _flip_bits(data: bytearray, target: Target, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 3, 20)) if data else 0):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set_bytes(data: bytearray, target: Target, dice: random.Random) -> None:
    begin, end = _piece(data, dice)
    end = min(end, begin + 64)
    data[begin:end] = bytes([dice.choice((0, 0xFF, 0x20, dice.randrange(256)))]) * (end - begin)


def _set_number(data: bytearray, target: Target, dice: random.Random) -> None:
    size, order = dice.choice(((1, "little"), (2, "little"), (2, "big"), (4, "little"), (4, "big"), (8, "little")))
    if len(data) >= size:
        # Lengths and sizes mostly stand at the beginning or at the end of a file.
        near = dice.choice((len(data), len(data), 64, -256))
        begin = dice.randrange(len(data)) if near == len(data) else dice.randrange(min(abs(near), len(data)))
        begin = min(len(data) - size, begin if near > 0 else len(data) - 1 - begin)
        value = dice.choice((*_NUMBERS, len(data), len(data) - begin, dice.getrandbits(8 * size))) & ((1 << 8 * size) - 1)
        data[max(0, begin) : max(0, begin) + size] = value.to_bytes(size, "little" if order == "little" else "big")


def _cut(data: bytearray, target: Target, dice: random.Random) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _remove(data: bytearray, target: Target, dice: random.Random) -> None:
    begin, end = _piece(data, dice)
    del data[begin:end]


def _double(data: bytearray, target: Target, dice: random.Random) -> None:
    begin, end = _piece(data, dice)
    if len(data) < 2_000_000:
        data[end:end] = data[begin:end] * dice.choice((1, 1, 2, 30))


def _move(data: bytearray, target: Target, dice: random.Random) -> None:
    begin, end = _piece(data, dice)
    part = data[begin:end]
    del data[begin:end]
    place = dice.randrange(len(data) + 1)
    data[place:place] = part


def _splice(data: bytearray, target: Target, dice: random.Random) -> None:
    other = bytearray(dice.choice(target.seeds))
    begin, end = _piece(other, dice)
    place, until = _piece(data, dice)
    data[place:until] = other[begin:end]


def _put_token(data: bytearray, target: Target, dice: random.Random) -> None:
    token = dice.choice((*target.tokens, *_TEXT))
    known = dice.choice(target.tokens) if target.tokens else b""
    at = data.find(known, dice.randrange(len(data) + 1)) if known else -1
    if at >= 0 and dice.random() < 0.6:
        data[at : at + len(known)] = token
    else:
        place = dice.randrange(len(data) + 1)
        data[place : place + dice.choice((0, len(token)))] = token


MUTATORS = (_flip_bits, _set_bytes, _set_number, _set_number, _cut, _remove, _double, _move, _splice, _put_token, _put_token)


# ---------------------------------------------------------------- sound files


def drawn(width: int, height: int, colour: int = 0) -> Image.Image:
    """A small picture with something in it."""
    image = Image.new("RGB", (width, height), (40 + colour % 200, 90, 200))
    pen = ImageDraw.Draw(image)
    pen.ellipse((width // 8, height // 8, width - 4, height - 3), fill=(220, 60 + colour % 150, 40))
    pen.line((0, 0, width, height), fill=(0, 255, 0), width=2)
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def image_files() -> list[bytes]:
    """One file of each sort that the decoder treats in its own way."""
    image, exif = drawn(40, 30), Image.Exif()
    exif[0x112] = 6
    more = [drawn(40, 30, 50), drawn(40, 30, 99)]
    alpha = image.copy()
    alpha.putalpha(128)
    grey16 = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    return [
        saved(image, "JPEG", quality=85, subsampling="4:2:0"),
        saved(image, "JPEG", quality=85, subsampling="4:4:4", exif=exif, icc_profile=b"profile" * 9, comment=b"words"),
        saved(image, "JPEG", quality=85, progressive=True, restart_marker_blocks=2),
        saved(image.convert("L"), "JPEG"),
        saved(image.convert("CMYK"), "JPEG"),
        saved(image, "PNG"),
        saved(image.quantize(9), "PNG", transparency=3),
        saved(grey16, "PNG"),
        saved(alpha, "PNG", exif=exif),
        saved(image, "PNG", save_all=True, append_images=more),
        saved(image.convert("1"), "PNG"),
        saved(image, "GIF", save_all=True, append_images=more, transparency=0),
        saved(image, "WEBP", quality=80, exif=exif),
        saved(alpha, "WEBP", lossless=True),
        saved(image, "WEBP", save_all=True, append_images=more),
        saved(image, "BMP"),
        saved(image.quantize(16), "BMP"),
        saved(image.convert("1"), "BMP"),
    ]


def small_jpegs(count: int) -> list[bytes]:
    """Different JPEG files."""
    return [saved(drawn(24, 20, 17 * number), "JPEG", quality=70) for number in range(count)]


def in_files(name: str, data: Path, files: list[Path], tokens: tuple[bytes, ...]) -> Target:
    """A target whose files lie in a folder: each is replaced in turn, the set is opened, and some of its images decoded."""
    seeds = [path.read_bytes() for path in files]

    def read(number: int, content: bytes) -> None:
        files[number].write_bytes(content)
        try:
            look_through(open_split(data))
        finally:
            files[number].write_bytes(seeds[number])

    return Target(name, seeds, tokens, read)


def look_through(index: Index) -> None:
    """Some rows of an index, decoded where a store holds them; each may be a bad image."""
    for row in sorted({*range(min(len(index), _ROWS)), len(index) - 1} - {-1}):
        index.where(row)
        if index.store is not None and index.places is not None:
            with contextlib.suppress(BadImage):
                decode.pixels(index.content(row), exif=True)
            with contextlib.suppress(BadImage):
                store, place = windowed(index.store), int(index.places[row])
                sides = store.sides(place, exif=True) if store is not None else None
                if store is not None and sides is not None and min(sides) > 0:
                    store.window(place, sides[0] // 3, sides[1] // 2, 1 + sides[0] // 3, 1 + sides[1] // 4)


# ---------------------------------------------------------------- the targets


def images(home: Path) -> Target:
    """Bytes of image files."""

    def read(_: int, data: bytes) -> None:
        decode.has_wrong_extension("a.jpg", data)
        with contextlib.suppress(BadImage):
            decode.header(data)
        decode.decode(data, exif=True)

    tokens = (
        b"\xff\xd8\xff",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xda",
        b"\xff\xd9",
        b"\xff\xdd",
        b"\xff\xe1",
        b"\xff\xee",
        b"\xff\xc4",
    )
    chunks = (
        b"IHDR",
        b"PLTE",
        b"tRNS",
        b"IDAT",
        b"IEND",
        b"acTL",
        b"fdAT",
        b"eXIf",
        b"iCCP",
        b"zTXt",
        b"RIFF",
        b"VP8 ",
        b"VP8L",
        b"VP8X",
    )
    return Target("images", image_files(), (*tokens, *chunks, b"ALPH", b"ANMF", b"GIF89a", b"\x21\xf9\x04", b"\x2c", b"BM"), read)


def windows(home: Path) -> Target:
    """Windows of JPEGs with restart markers: the file, or the list of its pieces."""
    whole = []
    for width, height, subsampling in ((96, 64, "4:2:0"), (90, 50, "4:4:4"), (33, 70, "4:2:2")):
        unit = 8 if subsampling == "4:4:4" else 16
        options = {"subsampling": subsampling, "restart_marker_blocks": slices.interval(-(-width // unit))}
        whole.append((saved(drawn(width, height), "JPEG", **options), width, height))
    restarts = [slices.lengths(data) for data, _, _ in whole]
    assert all(restarts)

    def read(number: int, data: bytes) -> None:
        jpeg, width, height = whole[number // 2]
        jpeg, places = (data, restarts[number // 2]) if number % 2 == 0 else (jpeg, data)
        slices.lengths(jpeg)
        dice = random.Random(data)
        left, top = dice.randrange(width), dice.randrange(height)
        box = left, top, dice.randrange(width - left) + 1, dice.randrange(height - top) + 1
        with contextlib.suppress(ValueError):
            simplejpeg.decode_jpeg(slices.window(jpeg, places, *box)[0], strict=True)
        slices.pixels(jpeg, places, *box)

    seeds = [part for (data, _, _), places in zip(whole, restarts, strict=True) for part in (data, places)]
    return Target("windows", seeds, (b"\xff\xd0", b"\xff\xd7", b"\xff\xd9", b"\xff\xdd", b"\xff\xc0", b"\xff\xda"), read)


def class_list(home: Path) -> Target:
    """CSV and JSONL lists."""
    rows = [(f"{label}/{number}.jpg", label) for label in ("cat", "dog") for number in range(3)]
    for key, _ in rows:
        (home / key).parent.mkdir(parents=True, exist_ok=True)
        (home / key).write_bytes(b"x")
    lines = [f"{key},{label},1,2,30.5,40,{'val' if '2' in key else 'train'}" for key, label in rows]
    (home / "list.csv").write_text("path,label,x_min,y_min,x_max,y_max,split\n" + "\n".join(lines) + "\n")
    (home / "numbers.csv").write_text("path,label\n" + "".join(f"{key},{label == 'dog':d}\n" for key, label in rows))
    (home / "list.jsonl").write_text(
        "".join(json.dumps({"path": key, "label": label, "x_min": 1}) + "\n" for key, label in rows[:1])
    )
    plain = "".join(json.dumps({"path": key, "label": label, "split": "train"}) + "\n" for key, label in rows)
    (home / "plain.jsonl").write_text(plain)
    files = [home / name for name in ("list.csv", "numbers.csv", "plain.jsonl")]
    seeds = [path.read_bytes() for path in files]

    def read(number: int, content: bytes) -> None:
        files[number].write_bytes(content)
        look_through(open_split(files[number]))

    tokens = (b"path", b"label", b"x_min", b"split", b"train", b"val", b"test", b"cat/0.jpg", b"cat", b"null", b"true", b"1e5")
    return Target("lists", seeds, (*tokens, b"[" * 3000, b'{"a":', b"\\ud800", b"/etc/passwd", b"\n"), read)


def tiny(home: Path) -> Target:
    """The text files of Tiny ImageNet, and boxes beside class folders."""
    synthetic.make(home / "tiny", layout="tiny", classes=2, per_class=2, val_per_class=2)
    names = [path.name for path in (home / "tiny" / "train").iterdir()]
    files = [home / "tiny" / name for name in ("wnids.txt", "words.txt", "val/val_annotations.txt")]
    files += [home / "tiny" / "train" / name / f"{name}_boxes.txt" for name in names]
    tokens = (*(name.encode() for name in names), b"\t", b"\n", b"val_0.JPEG", b"63")
    return in_files("tiny", home / "tiny", files, tokens)


def boxes(home: Path) -> Target:
    """boxes.csv beside class folders."""
    synthetic.make(home / "folder", layout="folder", classes=2, per_class=2, val_per_class=1)
    return in_files(
        "boxes", home / "folder", [home / "folder" / "boxes.csv"], (b"path", b"x_min", b"y_max", b"train/", b"\n", b",")
    )


_LISTS = {"LOC_val_solution.csv", "LOC_train_solution.csv", "LOC_synset_mapping.txt"}


def ilsvrc(home: Path) -> Target:
    """The tables of ILSVRC as Kaggle ships it."""
    synthetic.make(home / "kaggle", layout="ilsvrc", classes=2, per_class=2, val_per_class=2)
    files = sorted(path for path in (home / "kaggle").rglob("*") if path.name in _LISTS)
    assert len(files) == len(_LISTS)
    tokens = (b"ImageId,PredictionString", b" ", b"\n", b",", b"n01440764", b"ILSVRC2012_val_00000001")
    return in_files("ilsvrc tables", home / "kaggle", files, tokens)


def annotations(home: Path) -> Target:
    """The XML files of ILSVRC, where the tables are missing."""
    synthetic.make(home / "kaggle", layout="ilsvrc", classes=2, per_class=1, val_per_class=1)
    for name in ("LOC_val_solution.csv", "LOC_train_solution.csv"):
        for path in (home / "kaggle").rglob(name):
            path.unlink()
    files = sorted((home / "kaggle").rglob("*.xml"))
    tokens = (
        b"<object>",
        b"</object>",
        b"<bndbox>",
        b"<xmin>",
        b"</name>",
        b"<!DOCTYPE a [",
        b"<!ENTITY a 'b'>",
        b"&a;",
        b"<?xml",
    )
    return in_files("ilsvrc xml", home / "kaggle", files, (*tokens, b"encoding='utf-16'", b"<a>" * 3000))


def index_file(home: Path) -> Target:
    """An index that was written as parquet."""
    synthetic.make(home / "folder", layout="folder", classes=2, per_class=3, val_per_class=1)
    whole = open_split(home / "folder", "train")
    path = home / "index.parquet"
    whole.write(path)
    seeds = [path.read_bytes()]

    def read(_: int, content: bytes) -> None:
        path.write_bytes(content)
        look_through(Index.read(path, home / "folder"))

    return Target("index", seeds, (b"PAR1", b"striate.index", b"key", b"label", b"mtime", b"boxes"), read)


def sealed(manifest: bytes) -> bytes:
    """A pack's manifest with the seal that fits it; as it is where it is no JSON object."""
    try:
        values = json.loads(manifest)
        values.pop("seal", None)
        return json.dumps(values | {"seal": sha256_bytes(json.dumps(values, sort_keys=True).encode())}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return manifest


def pack(home: Path) -> Target:
    """Packs of each kind: their shards, and their manifests, which are sealed again after a change, as a forger would.

    The manifest's word for the size of a changed shard is put right in half of the cases: it is the first thing looked at.
    """
    synthetic.make(home / "folder", layout="tiny", classes=2, per_class=4, val_per_class=1)
    kinds = {"keep": Keep(), "jpeg": Jpeg(48, 85), "raw": Raw(16, "crop", True)}
    files: list[Path] = []
    for name, how in kinds.items():
        write.pack(home / "folder", home / name, how)
        files += [home / name / "manifest.json", *sorted((home / name).glob("*.arrow"))]
    seeds = [path.read_bytes() for path in files]

    def read(number: int, content: bytes) -> None:
        path, dice = files[number], random.Random(content)
        manifest = path.parent / "manifest.json"
        sound = manifest.read_bytes()
        if path == manifest:
            manifest.write_bytes(sealed(content) if dice.random() < 0.8 else content)
        else:
            path.write_bytes(content)
            if dice.random() < 0.5:
                values = json.loads(sound)
                next(shard for shard in values["shards"] if shard["name"] == path.name)["size_bytes"] = len(content)
                manifest.write_bytes(sealed(json.dumps(values).encode()))
        try:
            look_through(open_pack(path.parent)[1]["train"])
            verify(path.parent)
        finally:
            manifest.write_bytes(sound)
            path.write_bytes(seeds[number])

    words = (b"ARROW1", b"striate.pack", b"huggingface", b"image", b"restarts", b"boxes", b"orientation", b"key_bytes", b"sha256")
    tokens = (b'"rows": ', b'"size_px": ', b'"kind": "raw"', b'"kind": "keep"', b"null", b"[]", b"{}", b"..", b"true", b"1e400")
    return Target("pack", seeds, (*words, *tokens, b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"), read)


def unfinished(home: Path) -> Target:
    """A pack that was cut off, gone on with: refused, or in the end the same as one that was not cut off, bit for bit."""
    shard.BATCH_ROWS = 3  # so that a few images are several batches
    source, how = home / "folder", Jpeg(48, 85)
    synthetic.make(source, layout="tiny", classes=2, per_class=6, val_per_class=1)
    write.pack(source, home / "whole", how)
    wanted = {path.name: path.read_bytes() for path in (home / "whole").glob("*.arrow")}

    def stop(done: int, total: int) -> None:
        if done > 9:
            raise Interrupted

    with contextlib.suppress(Interrupted):
        write.pack(source, home / "begun", how, progress=stop)
    files = [home / "begun" / "packing.json", *sorted((home / "begun").glob(".*.arrow.*"))]
    seeds = [path.read_bytes() for path in files]
    assert len(files) == 2

    def read(number: int, content: bytes) -> None:
        place = home / "begun-again"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(home / "begun", place)
        (place / files[number].name).write_bytes(content)
        write.pack(source, place, how)
        if {path.name: path.read_bytes() for path in place.glob("*.arrow")} != wanted:
            raise AssertionError("another pack than without the interruption")

    return Target("unfinished pack", seeds, (b"striate.rows", b"next_row", b'"rows": ', b'"edges": ', b'"done": ', b"null"), read)


def tar(home: Path) -> Target:
    """WebDataset shards."""
    data = home / "shards"
    data.mkdir()
    for part in range(2):
        with tarfile.open(data / f"train-{part:06d}.tar", "w") as archive:
            for number, image in enumerate(small_jpegs(3)):
                for ending, content in (("jpg", image), ("cls", str(number % 2).encode()), ("json", b'{"label": 1}')):
                    facts = tarfile.TarInfo(f"{part}{number:04d}.{ending}")
                    facts.size = len(content)
                    archive.addfile(facts, io.BytesIO(content))
    tokens = (
        b"ustar",
        b"ustar\x0000",
        b"ustar  \0",
        b".jpg",
        b".cls",
        b"../",
        b"././@LongLink",
        b"00000000012\0",
        b"path=",
        b"size=",
    )
    return in_files("tar", data, sorted(data.glob("*.tar")), (*tokens, b"30 path=../../x.jpg\n", b"\x80\xff\xff\xff"))


def parquet(home: Path) -> Target:
    """Hugging Face's parquet image sets."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = home / "data"
    data.mkdir()
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
    }
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    for part in range(2):
        rows = [{"bytes": content, "path": f"{part}-{number}.jpg"} for number, content in enumerate(small_jpegs(4))]
        table = pa.table({"image": rows, "label": [0, 1, 0, 1]}).replace_schema_metadata(about)
        pq.write_table(table, data / f"train-0000{part}-of-00002.parquet", compression=("none", "snappy")[part], row_group_size=2)
    tokens = (b"PAR1", b"image", b"bytes", b"path", b"label", b"huggingface", b"ClassLabel", b"names", b"ARROW:schema")
    return in_files("parquet", data, sorted(data.glob("*.parquet")), tokens)


def cifar(home: Path) -> Target:
    """CIFAR-10's binary files."""
    data = home / "cifar-10-batches-bin"
    data.mkdir()
    dice = np.random.default_rng(0)
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for name in names:
        records = dice.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(4)
        (data / name).write_bytes(records.tobytes())
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (data / "batches.meta.txt").write_text("\n".join(classes) + "\n")
    return in_files(
        "cifar", data, [data / "data_batch_1.bin", data / "test_batch.bin", data / "batches.meta.txt"], (b"cat", b"\n")
    )


def idx_file(values: np.ndarray) -> bytes:
    """MNIST's format."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def idx(home: Path) -> Target:
    """MNIST's files; one of them compressed, and mutated before that as well as after."""
    dice = np.random.default_rng(0)
    contents = {}
    for split, count in (("train", 20), ("t10k", 10)):
        contents[f"{split}-images-idx3-ubyte"] = idx_file(dice.integers(0, 256, (count, 28, 28)))
        contents[f"{split}-labels-idx1-ubyte"] = idx_file(np.arange(count) % 10)
    plain, packed = home / "plain", home / "packed"
    for folder in (plain, packed):
        folder.mkdir()
        for name, content in contents.items():
            ending = ".gz" if folder == packed else ""
            (folder / (name + ending)).write_bytes(gzip.compress(content, mtime=0) if ending else content)
    places = [*(plain / name for name in contents), *(packed / f"{name}.gz" for name in contents)]
    seeds = [path.read_bytes() for path in places] + list(contents.values())

    def read(number: int, content: bytes) -> None:
        place = places[number % 8 if number < 8 else number - 4]
        place.write_bytes(gzip.compress(content, 1, mtime=0) if number >= 8 else content)
        try:
            look_through(open_split(place.parent))
        finally:
            place.write_bytes(seeds[places.index(place)])

    return Target("idx", seeds, (b"\0\0\x08\x01", b"\0\0\x08\x03", b"\x1f\x8b\x08", b"\0\0\x0d\x03"), read)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "images": images,
    "windows": windows,
    "lists": class_list,
    "tiny": tiny,
    "boxes": boxes,
    "ilsvrc tables": ilsvrc,
    "ilsvrc xml": annotations,
    "index": index_file,
    "pack": pack,
    "unfinished pack": unfinished,
    "tar": tar,
    "parquet": parquet,
    "cifar": cifar,
    "idx": idx,
}
# How many of the inputs each target gets, in parts of all.
SHARES = {"images": 5, "windows": 2, "lists": 2, "pack": 3}


# ---------------------------------------------------------------- the child


def make(name: str, home: Path) -> Target:
    """A target with its sound files in a folder of its own; they must be read without an exception."""
    place = home / name.replace(" ", "-")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    target = TARGETS[name](place)
    for number, data in enumerate(target.seeds):
        target.read(number, data)
    return target


def child(home: Path, jobs: list[tuple[str, int, int]], seed: int) -> None:
    """Reads inputs, and writes into a journal what became of each: a line is begun before, and ended after."""
    journal = os.open(home / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    targets = [(make(name, home), range(first, last)) for name, first, last in jobs]
    sound_bytes = peak_bytes()
    for target, numbers in targets:
        for number in numbers:
            place, data = mutated(target, number, seed)
            os.write(journal, f"{target.name}\t{number}\t".encode())
            began = time.process_time()
            said = outcome(target, place, data)
            took_s, grown_bytes = time.process_time() - began, peak_bytes() - sound_bytes
            if took_s > LIMIT_S:
                said = f"FAILED {took_s:.1f} s of processor time"
            if grown_bytes > GROWTH_BYTES:
                said = f"FAILED {grown_bytes / 1e6:.0f} MB"
            os.write(journal, said.encode() + b"\n")
            if grown_bytes > GROWTH_BYTES:
                return  # the peak does not fall again: another child goes on


def outcome(target: Target, place: int, data: bytes) -> str:
    """What a reader does with an input, in one line."""
    try:
        target.read(place, data)
    except (BadImage, StriateError) as error:
        return f"refused {type(error).__name__}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})".split())
        return f"FAILED {text[:300]}"
    return "read"


def peak_bytes() -> int:
    """Most memory that the process has had at one time; getrusage would count its parent's, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---------------------------------------------------------------- the campaign


@dataclass
class Result:
    """What became of the inputs: by target and outcome. failures: (target, number, what happened)."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    crashes: int = 0
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        """How many there were."""
        return sum(counts.total() for counts in self.outcomes.values())


def dealt(names: list[str], inputs: int) -> list[tuple[str, int, int]]:
    """The inputs of each target: (name, first, after last)."""
    parts = [SHARES.get(name, 1) for name in names]
    ends = [inputs * sum(parts[: number + 1]) // sum(parts) for number in range(len(parts))]
    return [(name, 0, end - begin) for name, begin, end in zip(names, [0, *ends], ends, strict=False)]


def campaign(home: Path, names: list[str], inputs: int, seed: int) -> Result:
    """Gives all inputs to the readers. home: an empty folder; what fails is kept in home/failures."""
    began, result = time.monotonic(), Result()
    jobs = dealt(names, inputs)
    while jobs:
        ended = sitting(home, jobs, seed)
        done: dict[str, int] = {}
        for name, number, said in journal(home):
            done[name] = number + 1
            if not said:
                result.crashes += 1
                said = f"FAILED {ended}"
            kind = " ".join(said.split()[:2]) if said.startswith("refused") else said.split()[0]
            result.outcomes.setdefault(name, Counter())[kind] += 1
            if kind == "FAILED":
                result.failures.append((name, number, said.removeprefix("FAILED ")))
        if not done:
            raise RuntimeError(f"The readers could not begin ({ended}):\n{(home / 'output').read_text()[-3000:]}")
        jobs = [(name, max(first, done.get(name, first)), last) for name, first, last in jobs]
        jobs = [job for job in jobs if job[1] < job[2]]
    for name, number, said in result.failures:
        keep(home, name, number, seed, said)
    result.seconds = time.monotonic() - began
    return result


def sitting(home: Path, jobs: list[tuple[str, int, int]], seed: int) -> str:
    """One child, until it ends or is ended; says how it ended."""
    (home / "journal").unlink(missing_ok=True)
    (home / "journal").touch()
    command = [
        sys.executable,
        str(SCRIPT),
        "--child",
        str(home),
        "--seed",
        str(seed),
        "--jobs",
        json.dumps(jobs),
    ]
    source = str(Path(__file__).resolve().parent.parent / "src")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": "1",
        "STRIATE_CACHE": str(home / "cache"),
    }
    with open(home / "output", "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    size, seen_at = 0, time.monotonic()
    while True:
        try:
            code = process.wait(0.2)
            return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            found = (home / "journal").stat().st_size
            if found != size:
                size, seen_at = found, time.monotonic()
            elif time.monotonic() - seen_at > HANG_S:
                process.kill()
                process.wait()
                return f"nothing heard for {HANG_S:.0f} s"


def journal(home: Path) -> Iterator[tuple[str, int, str]]:
    """(target, number, what became of it) of each input; nothing became of one that ended the child."""
    for line in (home / "journal").read_text(errors="replace").splitlines():
        name, number, said = line.split("\t", 2)
        yield name, int(number), said


def keep(home: Path, name: str, number: int, seed: int, said: str) -> None:
    """Writes an input that failed beside its story."""
    place = home / "failures"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        which, data = mutated(make(name, Path(temporary)), number, seed)
    stem = f"{name.replace(' ', '-')}-{number}"
    (place / f"{stem}.bin").write_bytes(data)
    (place / f"{stem}.txt").write_text(f"{name}, input {number} of seed {seed}, in place of file {which}: {said}\n")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20000, help="shared by the targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(TARGETS), help="names with commas between")
    parser.add_argument("--only", help="TARGET:NUMBER, read again in this process")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where inputs that failed are put")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--jobs", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, json.loads(given.jobs), given.seed)
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzz-readers-") as temporary:
        home = Path(temporary)
        if given.only:
            name, _, number = given.only.rpartition(":")
            target = make(name, home)
            target.read(*mutated(target, int(number), given.seed))
            print("read without an exception")
            return 0
        result = campaign(home, given.targets.split(","), given.inputs, given.seed)
        if result.failures:
            shutil.copytree(home / "failures", given.keep, dirs_exist_ok=True)
    for name, counts in result.outcomes.items():
        print(f"{name:<14} " + ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common()))
    for name, number, said in result.failures[:50]:
        print(f"FAILED {name}:{number} {said}")
    print(
        f"{result.inputs:,} inputs in {result.seconds:.0f} s: {len(result.failures)} failed, {result.crashes} of them by a crash"
    )
    if given.write:
        import torch

        from striate import machine

        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "inputs": result.inputs,
            "failures": result.failures,
            "crashes": result.crashes,
            "outcomes": result.outcomes,
            "limits": {"processor_s": LIMIT_S, "growth_bytes": GROWTH_BYTES},
            "seconds": round(result.seconds, 1),
            "environment": machine.describe(torch.device("cpu")),
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
