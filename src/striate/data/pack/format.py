"""The format of a pack: which files it has, which columns, and what its manifest says.

    PACK/manifest.json                     what follows; written last, so a pack that has it is whole
    PACK/train-00000-of-00012.arrow, …     shards of train, val and test: Arrow IPC files, uncompressed, rows in index order

Columns of a shard, one row for each image (Hugging Face's storage of pictures and labels, so that `datasets` shows them):

    image        struct<bytes: binary, path: string>   an image file, and the key
    pixels       binary                                instead of `image` where pixels are stored: uint8 [S, S, 3], red first
    label        int64                                 position in the class list, -1 for none
    key          string                                as predictions show it
    key_bytes    binary                                only where the pack has a key that is not UTF-8: its bytes, else null
    width        int32                                 of the stored image, before any EXIF rotation
    height       int32
    orientation  int8                                  EXIF, 1 to 8: what is still to be applied
    sha256       binary                                of the stored bytes: 32 bytes (`datasets` knows no binary of fixed size)
    boxes        list<fixed_size_list<float>[4]>       only where the source has boxes: xyxy, pixels of the stored image
    restarts     binary                                only in re-encoded packs: see `slices`; null where there are none

The schema's metadata has `huggingface` (the same columns in the words of `datasets`) and `striate.pack`, JSON: version, split,
classes, how the images were stored, and the source. Numbers are little-endian.
Record batches have at most BATCH_ROWS rows and about BATCH_BYTES: a reader in other hands takes one at a time into memory.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from striate import files
from striate.classes import Classes
from striate.data.layouts.splits import SplitName
from striate.errors import DataError, StriateError, UserError
from striate.view import Fit

VERSION: Final = 1
MANIFEST: Final = "manifest.json"
PLAN: Final = "packing.json"  # stands in the folder until the manifest does
PACKED: Final = ", packed"  # behind the name of the source's layout
BATCH_ROWS: Final = 256
BATCH_BYTES: Final = 16_000_000
SPLITS: Final[tuple[SplitName, ...]] = ("train", "val", "test")

Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]
MOST_PX: Final = 16_384  # of a side asked for


# ---------------------------------------------------------------- how images are stored


@dataclass(frozen=True)
class Keep:
    """The files as they are. Pixels of a source without image files (CIFAR, MNIST) become PNG, which loses nothing."""

    def describe(self) -> str:
        """In words."""
        return "original files"


@dataclass(frozen=True)
class Jpeg:
    """JPEG with the shorter side at most `shorter_px` (bicubic, antialiased; never enlarged)."""

    shorter_px: int = 256
    quality: int = 85
    subsampling: Subsampling = "4:2:0"

    def __post_init__(self) -> None:
        if not 1 <= self.shorter_px <= MOST_PX:
            raise UserError(f"--shorter-px {self.shorter_px}: expected 1 to {MOST_PX:,}.")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality}: expected 1 to 100.")

    def describe(self) -> str:
        """In words."""
        return f"JPEG, shorter side at most {self.shorter_px}, quality {self.quality}, {self.subsampling}"


@dataclass(frozen=True)
class Raw:
    """Pixels, `size_px` squared: shorter side to it and the centre, or both sides forced to it (bicubic, antialiased).

    exif: whether the EXIF orientation was applied before, as nobody can do it afterwards; None until the layout has decided.
    """

    size_px: int
    fit: Fit = "crop"
    exif: bool | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.size_px <= MOST_PX:
            raise UserError(f"--raw {self.size_px}: expected 1 to {MOST_PX:,} pixels.")

    @property
    def size_bytes(self) -> int:
        """Bytes of an image."""
        return self.size_px**2 * 3

    def describe(self) -> str:
        """In words."""
        fit = "centre crop" if self.fit == "crop" else "squashed"
        return f"pixels, {self.size_px} x {self.size_px}, {fit}, EXIF {'applied' if self.exif else 'ignored'}"


How = Keep | Jpeg | Raw


def chosen(
    keep: bool,
    shorter_px: int | None,
    quality: int | None,
    subsampling: Subsampling | None,
    raw: int | None,
    fit: Fit | None,
    exif: Literal["auto", "on", "off"] | None,
) -> How:
    """From the command's options, None where one was not given. Raises UserError for those that contradict each other."""
    of_jpeg = {"--shorter-px": shorter_px, "--quality": quality, "--subsampling": subsampling}
    of_raw = {"--raw": raw, "--fit": fit, "--exif": exif}
    given_jpeg = [name for name, value in of_jpeg.items() if value is not None]
    given_raw = [name for name, value in of_raw.items() if value is not None]
    if keep and (given_jpeg or given_raw):
        raise UserError(f"--keep stores files as they are: leave out {(given_jpeg + given_raw)[0]}.")
    if raw is not None and given_jpeg:
        raise UserError(f"--raw stores pixels: leave out {given_jpeg[0]}, which is for JPEG.")
    if raw is None and given_raw:
        raise UserError(f"{given_raw[0]}: goes with --raw S; files keep their shape, and their EXIF orientation beside them.")
    if keep:
        return Keep()
    if raw is not None:
        return Raw(raw, fit or "crop", {"on": True, "off": False}.get(exif or "auto"))
    usual = Jpeg()
    return Jpeg(
        usual.shorter_px if shorter_px is None else shorter_px,
        usual.quality if quality is None else quality,
        subsampling or usual.subsampling,
    )


_KINDS: Final[dict[str, type[Keep] | type[Jpeg] | type[Raw]]] = {"keep": Keep, "jpeg": Jpeg, "raw": Raw}


def how_to_json(how: How) -> dict[str, Any]:
    """Plain values: "kind", and the fields of that kind."""
    return {"kind": type(how).__name__.lower(), **asdict(how)}


def how_from_json(values: dict[str, Any]) -> How:
    """The inverse of `how_to_json`. Raises KeyError or TypeError for anything else."""
    return _KINDS[values["kind"]](**{name: value for name, value in values.items() if name != "kind"})


# ---------------------------------------------------------------- shards


def shard_name(split: SplitName, number: int, of: int) -> str:
    """The file name of a shard, in the manner that `datasets` takes for a split's."""
    return f"{split}-{number:05d}-of-{of:05d}.arrow"


def is_shard_name(name: str) -> bool:
    """Whether a file is called as a shard is; a manifest may name no other file."""
    return re.fullmatch(r"(train|val|test)-\d{5,}-of-\d{5,}\.arrow", name) is not None


@dataclass(frozen=True)
class Shard:
    """A finished shard; sha256 of the whole file, as 64 hex digits."""

    name: str
    split: SplitName
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Columns:
    """Which of the columns a pack has that not every pack has."""

    boxes: bool
    key_bytes: bool


def _schema(how: How, columns: Columns, classes: Classes, about: dict[str, Any]) -> pa.Schema:
    image: list[tuple[str, pa.DataType, dict[str, Any]]]
    if isinstance(how, Raw):
        image = [("pixels", pa.binary(), _value("binary"))]
    else:
        image = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"})]
    names = _distinct_names(classes)
    table = [
        *image,
        ("label", pa.int64(), {"names": names, "_type": "ClassLabel"} if names else _value("int64")),
        ("key", pa.string(), _value("string")),
        *([("key_bytes", pa.binary(), _value("binary"))] if columns.key_bytes else []),
        ("width", pa.int32(), _value("int32")),
        ("height", pa.int32(), _value("int32")),
        ("orientation", pa.int8(), _value("int8")),
        ("sha256", pa.binary(), _value("binary")),
        *([("boxes", pa.list_(pa.list_(pa.float32(), 4)), _BOXES)] if columns.boxes else []),
        *([("restarts", pa.binary(), _value("binary"))] if isinstance(how, Jpeg) else []),
    ]
    features = {name: feature for name, _, feature in table}
    texts = {"huggingface": {"info": {"features": features}}, "striate.pack": about}
    return pa.schema(
        [pa.field(name, kind) for name, kind, _ in table],
        # ASCII, since an id need not be UTF-8.
        metadata={name: json.dumps(value, ensure_ascii=True) for name, value in texts.items()},
    )


def _value(kind: str) -> dict[str, Any]:
    return {"dtype": kind, "_type": "Value"}


_BOXES: Final = {"feature": {"feature": _value("float32"), "length": 4, "_type": "Sequence"}, "_type": "Sequence"}


def _distinct_names(classes: Classes) -> list[str]:
    """A name for each class; `datasets` takes none twice."""
    titles = [classes.title(i) for i in range(len(classes))]
    return titles if len(set(titles)) == len(titles) else list(classes.ids)


# ---------------------------------------------------------------- manifest


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says.

    source: {"layout", "splits": {split: {"images", "bytes", "fingerprint"}}}. bad: {"split", "row" (of the source), "key",
    "reason"} of each image that was left out. odd: how many images were grey, CMYK and so on. made_with: versions of packages.
    difference: of every k-th image's pixels from the exact ones, the mean absolute difference in levels: "mean" and "worst" of
    those of "images" images, and the "key" of the worst.
    """

    how: How
    columns: Columns
    classes: Classes
    source: dict[str, Any]
    shards: tuple[Shard, ...]
    bad: tuple[dict[str, Any], ...] = ()
    odd: dict[str, int] = field(default_factory=dict)
    difference: dict[str, Any] = field(default_factory=dict)
    made_with: dict[str, str] = field(default_factory=dict)

    def about(self, split: SplitName) -> dict[str, Any]:
        """What each shard of a split says of itself in its schema's metadata."""
        return {
            "version": VERSION,
            "split": split,
            "classes": self.classes.to_json(),
            "how": how_to_json(self.how),
            "view": self.view(),
            "source": self.source,
        }

    def view(self) -> dict[str, Any]:
        """How stored pixels came from a photo's, in the words of a `View` as far as that goes."""
        if isinstance(self.how, Keep):
            return {"exif": "kept", "colour": "as stored"}
        view: dict[str, Any] = {"interpolation": "bicubic", "antialias": True, "colour": "rgb"}
        if isinstance(self.how, Jpeg):
            return {**view, "fit": "shorter", "resize_px": self.how.shorter_px, "exif": "kept"}
        side = self.how.size_px
        return {**view, "fit": self.how.fit, "resize_px": side, "size_px": side, "exif": self.how.exif}

    def schema(self, split: SplitName) -> pa.Schema:
        """The columns of the shards of one split, with their metadata."""
        return _schema(self.how, self.columns, self.classes, self.about(split))

    @property
    def layout(self) -> str:
        """The source's, and that it was packed."""
        return f"{self.source['layout']}{PACKED}"

    def of(self, split: SplitName) -> tuple[Shard, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def write(self, folder: Path) -> None:
        """Writes manifest.json, whole or not at all: with it the pack is finished."""
        values = {
            "format": VERSION,
            "how": how_to_json(self.how),
            "columns": asdict(self.columns),
            "classes": self.classes.to_json(),
            "source": self.source,
            "shards": [asdict(shard) for shard in self.shards],
            "bad": list(self.bad),
            "odd": self.odd,
            "difference": self.difference,
            "made_with": self.made_with,
        }
        files.write_json(folder / MANIFEST, {**values, "seal": seal(values)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises DataError where there is none, where it was changed after it was written, or a newer striate wrote it."""
        path = folder / MANIFEST
        try:
            values = files.read_json(path)
            version = values["format"]
            if isinstance(version, int) and version > VERSION:
                raise DataError(
                    f"{folder}: a pack of format {version}, this striate reads up to {VERSION}. Install a newer striate."
                )
            if values.pop("seal") != seal(values):
                raise ValueError("it is not as it was written: its seal does not fit")
            manifest = cls(
                how=how_from_json(values["how"]),
                columns=Columns(**values["columns"]),
                classes=Classes.from_json(values["classes"], str(path)),
                source=values["source"],
                shards=tuple(Shard(**shard) for shard in values["shards"]),
                bad=tuple(values["bad"]),
                odd=values["odd"],
                difference=values["difference"],
                made_with=values["made_with"],
            )
            if wrong := [shard.name for shard in manifest.shards if not is_shard_name(shard.name)]:
                raise ValueError(f"{wrong[0]!r} is no name of a shard")
        except DataError:
            raise
        except (StriateError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: not a readable manifest of a pack ({error}). Restore it from a copy, or pack the data again."
            ) from error
        return manifest


def unfinished(folder: Path) -> str | None:
    """The command that goes on with an unfinished pack; None where the folder is no such thing."""
    if (folder / MANIFEST).exists() or not (folder / PLAN).exists():
        return None
    try:
        command = files.read_json(folder / PLAN)["command"]
    except (StriateError, KeyError, TypeError):
        command = ""
    return str(command or "the command that began it")


def seal(values: dict[str, Any]) -> str:
    """What shows that plain values are as they were written."""
    return files.sha256_bytes(json.dumps(values, sort_keys=True).encode())


def versions() -> dict[str, str]:
    """Of the packages that decide a pack's bytes."""
    return {name: metadata.version(name) for name in ("striate", "pillow", "simplejpeg", "pyarrow")}
