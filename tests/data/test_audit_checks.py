"""What follows from facts: each defect on a hand-made set that has it, and none on one that has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from striate.classes import Classes
from striate.data.audit import checks
from striate.data.audit.facts import Facts
from striate.data.index import Boxes, Gathering


def made(
    labels: list[int],
    ids: tuple[str, ...] = ("a", "b"),
    sides: list[tuple[int, int]] | None = None,
    names: tuple[str, ...] | None = None,
    reasons: dict[int, str] | None = None,
    odd: dict[int, set[str]] | None = None,
    boxes: list[tuple[int, list[float]]] | None = None,
) -> Facts:
    count = len(labels)
    gathering = Gathering()
    for i, label in enumerate(labels):
        gathering.add(f"{i}.jpg".encode(), label, 100, 0)
    of_images = None
    if boxes is not None:
        rows_M = np.asarray([row for row, _ in boxes], dtype=np.int64)
        of_images = Boxes.of_images(count, rows_M, np.asarray([box for _, box in boxes], dtype=np.float32))
    return Facts(
        index=gathering.index(Path("/set"), "train", "class folder", Classes(ids, names or ids), boxes=of_images),
        reason=[(reasons or {}).get(i) for i in range(count)],
        format=["JPEG"] * count,
        sides_N2=np.asarray(sides or [(200, 100)] * count, dtype=np.int32),
        odd=[frozenset((odd or {}).get(i, set())) for i in range(count)],
        sha256_N32=np.ones((count, 32), dtype=np.uint8),
        likeness_N=np.ones(count, dtype=np.uint64),
    )


TEN_EACH = [0] * 10 + [1] * 10


def found(facts: Facts, split: str = "train") -> dict[str, checks.Defect]:
    defects = checks.all_of({split: facts})
    assert len({defect.kind for defect in defects}) == len(defects)
    assert all(defect.text.endswith(".") and defect.remedy.endswith(".") and len(defect) for defect in defects)
    return {defect.kind: defect for defect in defects}


def test_a_clean_set_has_no_defect() -> None:
    assert found(made(TEN_EACH, boxes=[(0, [0, 0, 200, 100]), (3, [5, 5, 6, 6])])) == {}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("empty file", "empty"),
        ("PNG: image file is truncated", "truncated"),
        ("the file ends within its header", "truncated"),
        ("PNG: 20000 x 20000 pixels are more than the limit of 50,000,000", "bomb"),
        ("JPEG: more than 100 scans", "bomb"),
        ("300,000,000 bytes are more than the limit of 268,435,456", "bomb"),
        ("unsupported: TIFF", "unsupported"),
        ("a web page (HTML), not an image", "not an image"),
        ("50 NUL bytes", "not an image"),
        ("no permission to read it", "unreadable"),
        ("cannot be read: Input/output error", "unreadable"),
        ("not a file but a FIFO", "unreadable"),
        ("PNG: broken data stream when reading image file", "undecodable"),
        ("WEBP: could not create decoder object", "undecodable"),
    ],
)
def test_an_unusable_image_is_an_error_of_its_kind(reason: str, kind: str) -> None:
    defects = found(made(TEN_EACH, reasons={3: reason}))
    assert list(defects) == [kind] and defects[kind].severity == "error"
    assert defects[kind].rows.tolist() == [3] and defects[kind].details == (reason,)


def test_every_oddity_of_decoding_is_a_defect_and_none_an_error() -> None:
    for odd in (
        "grey",
        "looks grey",
        "cmyk",
        "16-bit",
        "palette",
        "alpha",
        "animated",
        "exif-rotated",
        "damaged",
        "wrong extension",
    ):
        defects = found(made(TEN_EACH, odd={0: {odd}, 7: {odd}}))
        assert list(defects) == [odd] and defects[odd].rows.tolist() == [0, 7] and defects[odd].severity != "error"


def test_tiny_images_are_those_under_32_pixels_unless_the_whole_set_is_small() -> None:
    sides = [(200, 100)] * 18 + [(31, 100), (32, 100)]
    tiny = found(made(TEN_EACH, sides=sides))["tiny"]
    assert (tiny.rows.tolist(), tiny.details) == ([18], ("31 x 100",)) and "32 pixels" in tiny.text
    digits = [(28, 28)] * 18 + [(14, 28), (13, 28)]
    assert found(made(TEN_EACH, sides=digits))["tiny"].rows.tolist() == [19]


def test_d11_long_images_are_named_and_those_that_no_view_takes_are_errors() -> None:
    sides = [(200, 100)] * 17 + [(500, 100), (100, 501), (40, 40_000)]
    defects = found(made(TEN_EACH, sides=sides))
    assert defects["extreme aspect"].rows.tolist() == [18] and defects["extreme aspect"].severity == "warning"
    assert defects["strip"].rows.tolist() == [19] and defects["strip"].severity == "error"


def test_boxes_are_compared_with_the_sides_as_stored() -> None:
    boxes: list[tuple[int, list[float]]] = [
        (0, [0, 0, 201, 101]),  # one pixel beyond: some sets number pixels from 1
        (1, [10, 10, 10, 20]), (2, [30, 10, 20, 20]), (3, [np.nan, 0, 5, 5]),  # no area, inside out, no numbers
        (4, [200, 10, 230, 20]), (5, [-30, 10, 0, 20]),  # outside
        (6, [150, 50, 210, 90]), (7, [-2, 0, 5, 5]), (8, [0, 0, 300, 300]),  # beyond the edge, and one of an unusable image
    ]  # fmt: skip
    defects = found(made(TEN_EACH, boxes=boxes, reasons={8: "empty file"}))
    del defects["empty"]
    rows = {kind: (defect.severity, defect.rows.tolist()) for kind, defect in defects.items()}
    assert rows == {
        "inverted box": ("error", [1, 2, 3]),
        "box outside": ("error", [4, 5]),
        "box beyond the edge": ("warning", [6, 7]),
    }
    assert defects["box outside"].details[0] == "(200, 10, 230, 20) in 200 x 100"


def test_d16_empty_small_and_unequal_classes() -> None:
    labels = [0] * 101 + [1] * 10 + [2] * 9
    defects = found(made(labels, ids=("a", "b", "c", "d")))
    assert defects["empty class"].details == ("d: 0 images",) and defects["empty class"].severity == "error"
    assert defects["small class"].details == ("c: 9 images",)
    assert defects["unequal classes"].details == ("b: 10 images", "c: 9 images", "d: 0 images")
    assert "small class" not in found(made(labels, ids=("a", "b", "c")), "val")
    assert found(made([-1] * 5, ids=("a", "b"))) == {}  # without labels nothing is said of classes


def test_d15_class_order_and_d22_shared_names() -> None:
    defects = found(made(TEN_EACH, ids=("class10", "class2")))
    assert list(defects) == ["class order"] and "'class10' comes before 'class2'" in defects["class order"].text
    defects = found(made(TEN_EACH, ids=("n02012849", "n03126707"), names=("crane", "crane")))
    assert list(defects) == ["shared class name"]
    assert defects["shared class name"].details == ("crane: n02012849, n03126707",)
