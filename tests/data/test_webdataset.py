"""Tar files with images: what is read, in which order, with which labels; and tars that must not get past the reader."""

import io
import json
import os
import pickle
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from striate import cli
from striate.data import decode
from striate.data.decode import BadImage
from striate.data.index import compare
from striate.data.layouts import webdataset
from striate.data.layouts.detect import open_data, open_photos, open_split
from striate.errors import DataError, UserError


def jpeg(number):
    """A small JPEG whose content tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (8 + number % 5, 6), (number * 7 % 256, number * 31 % 256, 90)).save(file, "JPEG")
    return file.getvalue()


def tar(path, members, format=tarfile.USTAR_FORMAT, mode="w"):
    """Writes members (name, content); a TarInfo in place of the content is taken as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=format) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(numbers, labels, extra=()):
    """Members as WebDataset's own writer makes them: 000001.cls, 000001.jpg, …"""
    found = []
    for number, label in zip(numbers, labels, strict=True):
        found += [(f"{number:06d}.cls", str(label).encode()), (f"{number:06d}.jpg", jpeg(number))]
    return [*found, *extra]


def ids_of(index):
    return {key: index.classes.ids[label] if label >= 0 else None for key, label in zip(index.keys, index.labels, strict=True)}


def said(notes):
    return "\n".join(notes)


# ---------------------------------------------------------------- what is read


def test_shards_become_splits_by_their_names(tmp_path):
    tar(tmp_path / "set-train-000001.tar", samples(range(4, 8), [10, 2, 0, 2]))
    tar(tmp_path / "set-train-000000.tar", samples(range(4), [0, 2, 10, 0]))
    tar(tmp_path / "set-val-000000.tar", samples(range(8, 11), [10, 2, 0]))
    tar(tmp_path / "set-test-000000.tar", [("x.jpg", jpeg(11))])
    splits = open_data(tmp_path)
    assert splits.layout == "WebDataset (tar)" and splits.train.classes.ids == ("0", "2", "10")  # as numbers, not as text
    assert (len(splits.train), len(splits.val), len(splits.test)) == (8, 3, 1) and splits.test.labels.tolist() == [-1]
    assert list(splits.train.keys)[:5] == [
        *(f"set-train-000000.tar/00000{n}.jpg" for n in range(4)),
        "set-train-000001.tar/000004.jpg",
    ]
    assert list(ids_of(splits.train).values()) == ["0", "2", "10", "0", "10", "2", "0", "2"]
    assert [splits.train.content(n) for n in range(8)] == [jpeg(n) for n in range(8)]
    assert splits.train.sizes_bytes.tolist() == [len(jpeg(n)) for n in range(8)]
    assert str(tmp_path / "set-train-000001.tar") in splits.train.where(4) and "whole-number labels leave gaps" in said(
        splits.notes
    )


def test_splits_may_be_folders_and_words_may_be_labels(tmp_path):
    tar(tmp_path / "train/0.tar", [("a.jpg", jpeg(1)), ("a.cls", b"cat\n"), ("b.jpg", jpeg(2)), ("b.cls", b"ape")])
    tar(tmp_path / "validation/0.tar", [("c.jpg", jpeg(3)), ("c.cls", b"ape"), ("d.png", jpeg(4)), ("d.cls", b"cat")])
    splits = open_data(tmp_path)
    assert ids_of(splits.train) == {"train/0.tar/a.jpg": "cat", "train/0.tar/b.jpg": "ape"}
    assert splits.train.classes.ids == ("ape", "cat") and list(ids_of(splits.val).values()) == ["ape", "cat"]
    assert open_split(tmp_path).fingerprint == splits.val.fingerprint  # the labels of val alone say the same


def test_without_split_names_a_part_is_held_out(tmp_path):
    tar(tmp_path / "00000.tar", samples(range(40), [n % 2 for n in range(40)]))
    splits = open_data(tmp_path)
    assert (len(splits.train), len(splits.val)) == (36, 4) and "4 of 40 images (10% of each class" in said(splits.notes)
    assert not set(splits.train.keys) & set(splits.val.keys)
    at = {key: splits.val.content(row) for row, key in enumerate(splits.val.keys)}
    assert at == {f"00000.tar/{number:06d}.jpg": jpeg(number) for number in range(40) if f"00000.tar/{number:06d}.jpg" in at}
    assert len(open_split(tmp_path)) == 40 and len(open_split(tmp_path / "00000.tar")) == 40
    assert open_split(tmp_path, "val").fingerprint == splits.val.fingerprint


def test_one_file_is_a_set_whatever_it_is_called(tmp_path):
    tar(tmp_path / "my-test.tar", samples(range(4), [0, 1, 0, 1]))
    tar(tmp_path / "other.tar", samples(range(9), range(9)))
    assert list(ids_of(open_split(tmp_path / "my-test.tar")).values()) == ["0", "1", "0", "1"]
    assert len(open_data(tmp_path / "other.tar").train) == 9  # nothing can be held out of single images


def test_labels_of_json_and_the_rank_of_cls(tmp_path):
    def about(**values):
        return json.dumps(values).encode()

    members = [("a.jpg", jpeg(1)), ("a.json", about(label=3)), ("b.json", about(cls="4")), ("b.jpg", jpeg(2)), ("c.jpg", jpeg(3))]
    members += [("c.json", about(label=9)), ("c.cls", b"3"), ("d.x.jpg", jpeg(4)), ("d.json", about(label=4, cls=1))]
    tar(tmp_path / "a.tar", [*members, ("lonely.cls", b"3"), ("note.txt", b""), ("more.tiff", b"")])
    index = open_split(tmp_path)
    assert list(ids_of(index).values()) == ["3", "4", "3", "4"]
    notes = said(open_data(tmp_path).notes)
    assert "1 labels (.cls, .json) belong to no image" in notes
    assert "1 files that are not named as images (.txt 1)" in notes and "1 images of unsupported types (.tiff 1)" in notes


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_folders_within_are_labels_where_no_others_are(tmp_path, format):
    folder = tarfile.TarInfo("set/cat")
    folder.type = tarfile.DIRTYPE
    long = "x" * 90 + "é\udcff"
    members = [("", folder), ("./set/cat/1.jpg", jpeg(1)), ("set/ape/2.JPEG", jpeg(2)), (f"set/{long}/{'y' * 95}.jpg", jpeg(3))]
    members += [("set/cat/._1.jpg", b"junk"), ("__MACOSX/set/cat/9.jpg", b"junk"), ("set/cat/.hidden/8.jpg", b"junk")]
    if format == tarfile.USTAR_FORMAT:
        members[3] = ("set/dog/3.jpg", jpeg(3))
    tar(tmp_path / "a.tar", members, format)
    index = open_split(tmp_path / "a.tar")
    third = "dog" if format == tarfile.USTAR_FORMAT else long
    assert list(ids_of(index).values()) == ["cat", "ape", third] and [index.content(n) for n in range(3)] == [
        jpeg(n) for n in (1, 2, 3)
    ]
    assert index.keys[2].endswith(f"{third}/3.jpg" if third == "dog" else f"{third}/{'y' * 95}.jpg")
    assert "names of the folders" in said(index.notes) and "3 hidden or junk entries" in said(index.notes)


def test_photos_need_no_labels(tmp_path):
    tar(tmp_path / "b.tar", [("x/1.jpg", jpeg(1)), ("2.png", jpeg(2)), ("2.txt", b"a cat")])
    tar(tmp_path / "train/a.tar", [("1.jpg", jpeg(3))])
    index = open_photos(tmp_path)
    assert list(index.keys) == ["b.tar/x/1.jpg", "b.tar/2.png", "train/a.tar/1.jpg"] and index.labels.tolist() == [-1] * 3
    assert [index.content(n) for n in range(3)] == [jpeg(n) for n in (1, 2, 3)] and "(.txt 1)" in said(index.notes)
    assert list(open_photos(tmp_path / "b.tar").keys) == ["b.tar/x/1.jpg", "b.tar/2.png"]


def test_folders_of_images_win_over_a_tar_beside_them(tmp_path):
    tar(tmp_path / "backup.tar", samples(range(4), [0, 1, 0, 1]))
    for name in ("ape/1.jpg", "ape/2.jpg", "bee/1.jpg", "bee/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(1))
    assert open_data(tmp_path).layout == "class folder"


def test_the_store_is_read_by_threads_and_travels_to_processes(tmp_path):
    tar(tmp_path / "0.tar", samples(range(60), [n % 3 for n in range(60)]))
    tar(tmp_path / "1.tar", samples(range(60, 90), [n % 3 for n in range(30)]))
    index = open_split(tmp_path)
    store = pickle.loads(pickle.dumps(index.store))
    order = random.Random(0).sample(range(90), 90)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(store.read, order)) == [jpeg(number) for number in order]
    chosen = index.select(np.asarray([70, 3]))
    assert [chosen.content(0), chosen.content(1)] == [jpeg(70), jpeg(3)]


# ---------------------------------------------------------------- labels that are wrong


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.jpg", b""), ("b.jpg", b"")], "none of the 2 images of train has a label"),
        ([("a.jpg", b""), ("a.cls", b"1"), ("b.jpg", b"")], r"1 of the 2 images of train have no label: 'a\.tar/b\.jpg'"),
        ([("a.jpg", b""), ("a.cls", b"1"), ("00/b.jpg", b"")], r"1 of the 2 images of train have no label: 'a\.tar/00/b\.jpg'"),
        ([("a.jpg", b""), ("a.cls", b"-1"), ("b.jpg", b""), ("b.cls", b"1")], "1 of the 2 images of train have no label"),
        ([("a.jpg", b""), ("a.cls", b"1"), ("b.jpg", b""), ("b.cls", b"cat")], "Numbers: '1'; words: 'cat'"),
        ([("a.jpg", b""), ("a.cls", b"1"), ("b.jpg", b""), ("b.cls", b"1.5")], "Numbers: '1'; words: '1.5'"),
        ([("a.jpg", b""), ("a.cls", b"cat\ndog")], "labels must be one line"),
        ([("a.jpg", b""), ("a.cls", b" ")], "labels must be one line"),
        ([("a.jpg", b""), ("a.cls", b"\xff\xfe")], "'a.cls' is no text"),
        ([("a.jpg", b""), ("a.cls", b"1" * 2000)], "'a.cls' has 2,000 bytes; a label takes at most"),
        ([("a.jpg", b""), ("a.cls", b"1"), ("a.b.cls", b"2")], "'a.b.cls' says '2', another"),
        ([("a.jpg", b""), ("a.json", b"{")], "'a.json' is not valid JSON"),
        ([("a.jpg", b""), ("a.json", b"[" * 100_000)], "'a.json' is not valid JSON"),
        ([("a.jpg", b""), ("a.json", b'{"label": true}')], "the label must be text or an integer, found true"),
        ([("a.jpg", b""), ("a.json", b'{"label": [1]}')], r"the label must be text or an integer, found \[1\]"),
        ([("a.jpg", b""), ("a.cls", b"1"), ("a.jpg", b"x")], "two members are called 'a.jpg'"),
    ],
)
def test_labels_that_are_wrong_are_named(tmp_path, members, words):
    tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=words):
        open_data(tmp_path)


def test_d16_classes_of_val_must_be_those_of_train(tmp_path):
    tar(tmp_path / "train.tar", samples(range(4), [0, 1, 0, 1]))
    tar(tmp_path / "val.tar", samples(range(3), [0, 1, 2]))
    with pytest.raises(DataError, match="Only here, 1: '2'"):
        open_data(tmp_path)
    assert open_split(tmp_path, "val").classes.ids == ("0", "1", "2")  # matched to a model's by id


def test_archives_of_ilsvrc_say_the_way_out(tmp_path):
    tar(tmp_path / "a/ILSVRC2012_img_train.tar", [("n01440764.tar", b""), ("n01443537.tar", b"")])
    with pytest.raises(
        DataError, match=r"it holds tar files \('n01440764\.tar'\).*Unpack it, then each inner file into a folder"
    ):
        open_data(tmp_path / "a")
    tar(tmp_path / "b/ILSVRC2012_img_val.tar", [("ILSVRC2012_val_00000001.JPEG", b""), ("ILSVRC2012_val_00000002.JPEG", b"")])
    with pytest.raises(DataError, match=r"in one heap, whose labels lie elsewhere.*LOC_val_solution\.csv"):
        open_split(tmp_path / "b")


# ---------------------------------------------------------------- tars that are not to be trusted, or damaged


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "x/..", ".."])
def test_names_that_lead_elsewhere_are_refused_and_nothing_is_written(tmp_path, name):
    path = tar(tmp_path / "set" / "train-0.tar", [*samples(range(4), [0, 1, 0, 1]), (name, b"x")])
    before = sorted(os.listdir(tmp_path / "set"))
    with pytest.raises(DataError, match="leads out of the archive"):
        open_data(path.parent)
    with pytest.raises(DataError, match="leads out of the archive"):
        open_photos(path)
    assert sorted(os.listdir(tmp_path / "set")) == before and os.listdir(tmp_path) == ["set"]


def test_a_tar_with_a_name_that_leads_elsewhere_ends_the_command_with_3(tmp_path, capsys):
    path = tar(tmp_path / "a.tar", [*samples(range(4), [0, 1, 0, 1]), ("../a.jpg", b"x")])
    assert cli.run(["data", "show", str(path), "--out", str(tmp_path / "out.png")]) == 3
    assert "'../a.jpg' leads out of the archive" in capsys.readouterr().err and os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize(
    ("type", "words"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a named pipe"),
        (b"Z", "is no plain file"),
    ],
)
def test_members_that_are_no_files_are_refused(tmp_path, type, words):
    odd = tarfile.TarInfo("x.jpg")
    odd.type, odd.linkname = type, "/etc/passwd"
    tar(tmp_path / "a.tar", [*samples(range(2), [0, 1]), ("", odd)])
    with pytest.raises(DataError, match=rf"the member 'x\.jpg' {words}"):
        open_data(tmp_path)


def test_a_tar_that_was_cut_off_is_refused_wherever_it_ends(tmp_path):
    whole = tar(tmp_path / "whole" / "a.tar", samples(range(6), [0, 1] * 3)).read_bytes()
    used = max(at for at in range(0, len(whole), 512) if whole[at : at + 512].strip(b"\0")) + 512
    path = tmp_path / "cut" / "a.tar"
    path.parent.mkdir()
    for length in [*range(0, used + 512, 512), 1, 700, used - 3, used + 100]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.tar"):
            open_data(path.parent)
    path.write_bytes(whole[: used + 1024])
    assert len(open_split(path.parent)) == 6


def test_damage_after_the_first_header_is_not_taken_for_the_end(tmp_path):
    whole = bytearray(tar(tmp_path / "a.tar", samples(range(6), [0, 1] * 3)).read_bytes())
    at = [n for n in range(0, len(whole), 512) if whole[n + 257 : n + 262] == b"ustar"][5]
    whole[at + 10] ^= 1
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(DataError, match=f"damaged: no header at byte {at:,}"):
        open_data(tmp_path)


def test_files_joined_with_cat_are_refused(tmp_path):
    one, two = (tar(tmp_path / name / "a.tar", samples([n], [n])).read_bytes() for n, name in enumerate(("x", "y")))
    (tmp_path / "x/a.tar").write_bytes(one + two)
    with pytest.raises(DataError, match="more follows the mark of its end"):
        open_data(tmp_path / "x")


def _header(name, size_field, type=b"0"):
    """A member's header by hand, with any twelve bytes for the size. Source: POSIX.1-1988, ustar."""
    fields = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size_field + b"00000000000\0" + b" " * 8 + type
    block = bytearray(fields.ljust(257, b"\0") + b"ustar\x0000").ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_header(b"x.jpg", b"\x80" + (1 << 60).to_bytes(11, "big")), "cut off: it ends at byte"),
        (_header(b"x.jpg", b"\xff" * 10 + b"\xfa\x00"), "leads backwards"),
        (_header(b"x", b"\x80" + (1 << 40).to_bytes(11, "big"), b"L") + bytes(1024), "a header near byte"),
        (_header(b"x", b"\x80" + (1 << 40).to_bytes(11, "big"), b"x") + bytes(1024), "a header near byte"),
        (_header(b"x", b"\xff" * 10 + b"\xfe\x00", b"L") + bytes(1024), "a header near byte"),
        (
            _header(b"x", b"00000000021\0", b"x")
            + b"17 size=-1000000\n".ljust(512, b"\0")
            + _header(b"x.jpg", b"0" * 11 + b"\0"),
            "leads backwards",
        ),
        ((_header(b"x", b"00000000001\0", b"L") + b"x".ljust(512, b"\0")) * 3000, "no readable tar file"),
        (b"\x1f\x8b" + bytes(600), "no readable tar file"),
        (b"", "no readable tar file"),
        (b"x" * 5000, "no readable tar file"),
    ],
)
def test_headers_that_would_fill_the_memory_or_run_in_a_circle(tmp_path, data, words):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match=words):
        open_data(tmp_path)


def test_compressed_archives_say_the_way_out(tmp_path):
    tar(tmp_path / "set" / "train-0.tar.gz", samples(range(4), [0, 1, 0, 1]), mode="w:gz")
    with pytest.raises(DataError, match=r"'train-0\.tar\.gz' is compressed as a whole.*gunzip"):
        open_data(tmp_path / "set")
    with pytest.raises(UserError, match=r"Unpack it, and name the folder; or unpack its compression alone \(gunzip\)"):
        open_data(tmp_path / "set/train-0.tar.gz")


def test_a_file_that_shrinks_after_it_was_indexed_is_a_bad_image(tmp_path):
    path = tar(tmp_path / "a.tar", samples(range(4), [0, 1, 0, 1]))
    index = open_split(tmp_path)
    with open(path, "r+b") as file:
        file.truncate(2000)
    with pytest.raises(BadImage, match=r"ends .* bytes too early"):
        index.content(3)
    path.unlink()
    with pytest.raises(BadImage, match="no such file"):
        index.content(0)


def test_400_damaged_tars_are_refused_or_read(tmp_path):
    sound = tar(tmp_path / "sound" / "a.tar", samples(range(6), [0, 1] * 3), tarfile.PAX_FORMAT).read_bytes()
    path = tmp_path / "a.tar"
    chance, accepted = random.Random(5), 0
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) // 512) * 512 + chance.randrange(512 if chance.random() < 0.5 else 160)
            data[at] = chance.choice([0, 255, data[at] ^ 1 << chance.randrange(8), chance.randrange(256), 0x37])
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            index = open_photos(path)
            for row in range(len(index)):
                decode.pixels(index.content(row), exif=True)
            accepted += 1
        except (DataError, BadImage):
            pass
    assert 20 < accepted < 380  # both ways are walked


# ---------------------------------------------------------------- the kept tables


def test_what_a_file_holds_is_kept_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(webdataset, "_KEPT_FROM", 8)
    (tmp_path / "set").mkdir()
    path = tar(tmp_path / "set/a.tar", samples(range(4), ["é", "b", "é", "b"], [("n.txt", b""), (".x", b""), ("z.cls", b"b")]))
    first = open_split(tmp_path / "set")
    (kept,) = (tmp_path / "cache/tars").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(webdataset, "_scan", lambda *_: pytest.fail("read again"))
        again = open_split(tmp_path / "set")
    assert again.fingerprint == first.fingerprint and again.notes == first.notes and not compare(first, again)
    assert again.content(2) == jpeg(2) and len(again.notes) == 3
    for damage in (b"", kept.read_bytes()[:-30], b"PK\3\4" + bytes(100)):
        kept.write_bytes(damage)
        assert open_split(tmp_path / "set").fingerprint == first.fingerprint
    tar(path, samples(range(5), ["é", "b", "é", "b", "b"]))
    assert len(open_split(tmp_path / "set")) == 5


def test_small_files_leave_nothing_behind_and_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    tar(tmp_path / "set/a.tar", samples(range(4), [0, 1, 0, 1]))
    open_split(tmp_path / "set")
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(webdataset, "_KEPT_FROM", 8)
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert len(open_split(tmp_path / "set")) == 4


def test_d25_a_changed_file_is_noticed(tmp_path):
    tar(tmp_path / "a.tar", samples(range(4), [0, 1, 0, 1]))
    path = tar(tmp_path / "b.tar", samples(range(4, 8), [0, 1, 0, 1]))
    before = open_split(tmp_path)
    os.utime(path, ns=(0, 1_700_000_000_000_000_001))
    found = compare(before, open_split(tmp_path))
    assert len(found.edited) == 4 and all(key.startswith("b.tar/") for key in found.edited)
    tar(path, samples(range(4, 8), [0, 1, 1, 1]))
    assert compare(before, open_split(tmp_path)).relabelled == ("b.tar/000006.jpg",)
