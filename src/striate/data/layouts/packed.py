"""A pack of striate as DATA: a folder with a manifest and its shards."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from striate.data.layouts.splits import Found, SplitName
from striate.data.pack import format, read
from striate.errors import DataError


def layout(folder: Path) -> str:
    """What was packed, and that it was: "class folder, packed". Raises DataError as `read`."""
    _expect_finished(folder)
    return format.Manifest.read(folder).layout


def read_pack(folder: Path, wanted: Collection[SplitName]) -> Found:
    """The wanted splits of a pack, with the source's keys, labels, classes and boxes.

    Raises DataError where the pack is not finished, naming the command that goes on with it, or is not as it was written.
    """
    _expect_finished(folder)
    manifest, indexes = read.open_pack(folder, wanted)
    return Found(indexes, manifest.layout, (f"packed as {manifest.how.describe()}",))


def _expect_finished(folder: Path) -> None:
    command = format.unfinished(folder)
    if command is not None:
        raise DataError(f"{folder}: this pack is not finished. Go on with it: {command}")
