"""Duplicates: the index of likenesses against brute force, and groups against copies that were made on purpose."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.classes import Classes
from striate.data.audit import duplicates, facts, likeness
from striate.data.audit.checks import Defect
from striate.data.audit.duplicates import connected, pairs_within
from striate.data.audit.facts import Facts
from striate.data.layouts import detect
from striate.errors import Interrupted


def brute(codes_U: np.ndarray, radius: int) -> set[tuple[int, int]]:
    apart_UU = np.bitwise_count(codes_U[:, None] ^ codes_U[None, :])
    return {(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(apart_UU <= radius, k=1)), strict=True)}


def crowded(count: int, seed: int, seeds: int = 40) -> np.ndarray:
    """Different codes, most of them a few bits from one of some centres, so that buckets are crowded and pairs many."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 2**63, size=count, dtype=np.uint64) << np.uint64(1)
    near = codes[random.integers(0, seeds, size=count)]
    for _ in range(6):
        near ^= np.uint64(1) << random.integers(0, 64, size=count, dtype=np.uint64)
    return np.unique(np.where(random.random(count) < 0.7, near, codes))


@pytest.mark.parametrize("radius", (0, 1, 3, 4, 5, 7, 8, 11))
def test_the_index_misses_nothing_and_invents_nothing(radius: int) -> None:
    codes_U = crowded(900, radius)
    pairs_P2, kept = pairs_within(codes_U, radius)
    found = [(int(a), int(b)) for a, b in pairs_P2]
    assert kept == radius
    assert len(found) == len(set(found))
    assert set(found) == brute(codes_U, radius)


def test_codes_that_differ_in_few_neighbouring_bits(radius: int = 8) -> None:
    """A run of 8 bits falls evenly into the chunks; 8 bits of one chunk fall into one."""
    base = np.uint64(0x0123456789ABCDEF)
    codes_U = np.unique(np.array([base, base ^ np.uint64(0xFF), base ^ np.uint64(0x1111111100000000)], dtype=np.uint64))
    assert {tuple(pair) for pair in pairs_within(codes_U, radius)[0].tolist()} == brute(codes_U, radius)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_codes(count: int) -> None:
    pairs_P2, radius = pairs_within(np.arange(1, 1 + count, dtype=np.uint64))
    assert pairs_P2.tolist() == ([[0, 1]] if count == 2 else [])
    assert radius == likeness.RADIUS


def test_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    codes_U = crowded(400, 5)
    whole = pairs_within(codes_U)[0].tolist()
    monkeypatch.setattr(duplicates, "_AT_ONCE", 7)
    assert pairs_within(codes_U)[0].tolist() == whole


def test_a_crowd_lowers_the_radius_and_stays_exact_within_it() -> None:
    codes_U = crowded(600, 6, seeds=2)
    everything = len(brute(codes_U, 8))
    pairs_P2, radius = pairs_within(codes_U, 8, most_pairs=everything // 3)
    assert 0 < radius < 8
    assert len(pairs_P2) <= everything // 3
    assert {tuple(pair) for pair in pairs_P2.tolist()} == brute(codes_U, radius)
    pairs_P2, radius = pairs_within(codes_U, 8, most_comparisons=50_000)
    assert 0 < radius < 8
    assert {tuple(pair) for pair in pairs_P2.tolist()} == brute(codes_U, radius)


def test_comparisons_are_known_before_the_first() -> None:
    codes_U = crowded(300, 7)
    bits_U64 = np.unpackbits(codes_U.view(np.uint8).reshape(-1, 8), axis=1)
    table = duplicates._Table(codes_U, bits_U64, 1)
    for radius in range(3):
        assert table.comparisons(radius) == sum(len(part) for part in table.near(radius, 64))


def test_connected_groups_are_those_of_a_graph() -> None:
    random = np.random.default_rng(0)
    pairs_M2 = random.integers(0, 80, size=(50, 2))
    pairs_M2 = pairs_M2[pairs_M2[:, 0] != pairs_M2[:, 1]]
    groups = {frozenset({int(one)}) for one in np.unique(pairs_M2)}
    for a, b in pairs_M2.tolist():
        one, other = (next(group for group in groups if node in group) for node in (a, b))
        groups = groups - {one, other} | {one | other}
    found = connected(pairs_M2)
    assert {frozenset(group) for group in found} == groups
    assert found == sorted(found)
    assert connected(np.zeros((0, 2), dtype=np.int64)) == []


# ---------------------------------------------------------------- a set with copies


def picture(seed: int) -> Image.Image:
    """A picture of its own for each seed."""
    random = np.random.default_rng(seed)
    rough = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    fine = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    layers = [np.asarray(Image.fromarray(one).resize((100, 80), Image.BICUBIC), dtype=float) for one in (rough, fine)]
    return Image.fromarray((0.6 * layers[0] + 0.4 * layers[1]).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with 12 training and 4 validation images of each of two classes, no two alike."""
    for split, count in (("train", 12), ("val", 4)):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                path = tmp_path / "data" / split / name / f"{i:02d}.jpg"
                picture(1000 * number + i + (500 if split == "val" else 0)).save(path, quality=92)
    return tmp_path / "data"


def facts_of(folder: Path) -> dict[str, Facts]:
    out = folder.parent / "audit"
    out.mkdir(exist_ok=True)
    return facts.gather(dict(detect.open_whole(folder).indexes), out, workers=0).facts


def names(defect: Defect, known: dict[str, Facts]) -> list[list[str]]:
    return [[known[split].index.keys[row] for split, row in group] for group in defect.groups]


def test_nothing_is_found_where_nothing_is_alike(folder: Path) -> None:
    known = facts_of(folder)
    assert duplicates.exact(known) == []
    assert duplicates.near(known, workers=0) == []


def test_d23_the_same_file_in_train_and_val(folder: Path) -> None:
    for i in range(5):
        shutil.copy(folder / "train" / "dog" / f"{i:02d}.jpg", folder / "val" / "dog" / f"copy{i}.jpg")
    known = facts_of(folder)
    (leak,) = duplicates.exact(known)
    assert (leak.kind, leak.severity, leak.split, len(leak)) == ("duplicates across splits", "error", "val", 5)
    assert leak.text.startswith("5 of 13 images of val are, byte for byte, images of train")
    assert names(leak, known) == [[f"train/dog/{i:02d}.jpg", f"val/dog/copy{i}.jpg"] for i in range(5)]
    assert duplicates.near(known, workers=0) == []  # the same bytes are told once


def test_copies_within_a_class_and_under_another(folder: Path) -> None:
    first = folder / "train" / "cat" / "03.jpg"
    for name in ("cat/a.jpg", "cat/b.jpg"):
        shutil.copy(first, folder / "train" / name)
    shutil.copy(folder / "train" / "dog" / "07.jpg", folder / "train" / "cat" / "c.jpg")
    known = facts_of(folder)
    conflict, within = duplicates.exact(known)
    assert (conflict.kind, conflict.severity, conflict.split) == ("duplicates with other labels", "error", "")
    assert names(conflict, known) == [["train/cat/c.jpg", "train/dog/07.jpg"]]
    assert conflict.text == "1 picture stands under several classes: at least 1 wrong label."
    assert (within.kind, within.severity, within.split) == ("duplicates within a class", "warning", "train")
    assert names(within, known) == [["train/cat/03.jpg", "train/cat/a.jpg", "train/cat/b.jpg"]]
    assert within.text.startswith("2 of 27 images of train")


def test_files_that_cannot_be_read_or_decoded(folder: Path) -> None:
    """Two empty files are the same bytes; a file that cannot be read is like no other; neither has a likeness."""
    for name in ("x.jpg", "y.jpg"):
        (folder / "train" / "cat" / name).write_bytes(b"")
    known = facts_of(folder)
    sha256_N32 = known["val"].sha256_N32
    sha256_N32[:2] = 0  # as where reading failed
    (within,) = duplicates.exact(known)
    assert names(within, known) == [["train/cat/x.jpg", "train/cat/y.jpg"]]
    assert duplicates.near(known, workers=0) == []


def test_near_duplicates_saved_again_resized_and_grey(folder: Path) -> None:
    train = folder / "train"
    Image.open(train / "cat/00.jpg").resize((60, 60)).save(folder / "val" / "cat" / "small.jpg", quality=70)
    Image.open(train / "dog/05.jpg").save(train / "dog" / "again.png")
    Image.open(train / "dog/06.jpg").convert("L").save(train / "cat" / "grey.jpg", quality=80)
    known = facts_of(folder)
    seen: list[tuple[int, int]] = []
    leak, conflict, within = duplicates.near(known, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert [defect.severity for defect in (leak, conflict, within)] == ["warning", "warning", "note"]
    assert (leak.kind, names(leak, known)) == ("near-duplicates across splits", [["train/cat/00.jpg", "val/cat/small.jpg"]])
    assert names(conflict, known) == [["train/cat/grey.jpg", "train/dog/06.jpg"]]
    assert names(within, known) == [["train/dog/05.jpg", "train/dog/again.png"]]
    assert seen[-1][0] == seen[-1][1] >= 6


def test_the_search_for_candidates_may_be_stopped(folder: Path) -> None:
    for number in range(8):
        Image.open(folder / "train" / f"dog/0{number}.jpg").save(folder / "train" / "dog" / f"again{number}.jpg", quality=70)
    known = facts_of(folder)
    count = sum(map(len, known.values()))

    def stop(done: int, total: int) -> None:
        assert (done, total) == (count, count)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        duplicates.pairs_within(np.arange(1, 9, dtype=np.uint64), ask=lambda: stop(count, count))
    with pytest.raises(InterruptedError):
        duplicates.near(known, workers=0, progress=stop)


def test_near_duplicates_bring_their_exact_copies_along(folder: Path) -> None:
    train = folder / "train"
    Image.open(train / "cat/01.jpg").save(train / "cat" / "again.png")
    shutil.copy(train / "cat" / "01.jpg", folder / "val" / "cat" / "same.jpg")
    known = facts_of(folder)
    (leak,) = duplicates.near(known, workers=0)
    assert names(leak, known) == [["train/cat/01.jpg", "train/cat/again.png", "val/cat/same.jpg"]]


def test_classes_are_compared_by_id(folder: Path) -> None:
    """Where splits number their classes differently, the id decides."""
    shutil.copy(folder / "train" / "dog" / "00.jpg", folder / "val" / "dog" / "copy.jpg")
    known = facts_of(folder)
    index = known["val"].index
    turned = replace(index, classes=Classes(("dog", "cat"), ("dog", "cat")), labels=1 - index.labels)
    (leak,) = duplicates.exact(known | {"val": replace(known["val"], index=turned)})
    assert leak.kind == "duplicates across splits"


def test_a_vanished_file_is_no_copy(folder: Path) -> None:
    Image.open(folder / "train/cat/00.jpg").save(folder / "train/cat/again.png")
    known = facts_of(folder)
    (folder / "train/cat/again.png").unlink()
    assert duplicates.near(known, workers=0) == []


def test_an_interruption_ends_the_search(folder: Path) -> None:
    Image.open(folder / "train/cat/00.jpg").save(folder / "train/cat/again.png")

    def stop(done: int, total: int) -> None:
        raise Interrupted("SIGINT")

    with pytest.raises(Interrupted):
        duplicates.near(facts_of(folder), workers=2, progress=stop)


def test_many_images_of_one_likeness_are_linked(folder: Path) -> None:
    """Frames of a camera that does not move: more than are compared with each other, and one group all the same."""
    frame = picture(77)
    for i in range(30):
        frame.save(folder / "train" / "dog" / f"frame{i:02d}.jpg", quality=60 + i)
    known = facts_of(folder)
    (within,) = duplicates.near(known, workers=0)
    assert [len(group) for group in within.groups] == [30]


def test_a_search_that_was_limited_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_candidates", lambda codes, ask: (np.zeros((0, 2), dtype=np.int64), 3))
    (limited,) = duplicates.near(facts_of(folder), workers=0)
    assert (limited.kind, limited.severity) == ("near-duplicates limited", "note")
    assert "within 3 bits" in limited.text


def test_no_images_at_all() -> None:
    assert duplicates.exact({}) == []
    assert duplicates.near({}, workers=0) == []
