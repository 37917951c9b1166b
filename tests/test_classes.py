"""The class contract: one order by id, matched by id, names for showing only."""

import hashlib
import json

import numpy as np
import pytest
import torchvision.models

from striate.classes import Classes, imagenet, ordered
from striate.errors import CheckpointError, DataError, UserError


def test_d15_text_sorts_as_text_and_integers_as_integers():
    assert ordered(["class2", "class10", "class1", "class2"], "text") == ("class1", "class10", "class2")
    assert ordered(["10", "9", "2", "02"], "integer") == ("2", "9", "10")
    assert ordered(["10", "9", "2"], "text") == ("10", "2", "9")


def test_integer_labels_that_are_none_are_named():
    with pytest.raises(DataError, match=r"'1\.5'"):
        ordered(["1", "1.5"], "integer")


def test_hash_is_of_the_ids_in_order_and_not_of_names():
    classes = Classes(("a", "b"), ("ape", "bee"))
    assert classes.hash == hashlib.sha256(b"a\nb").hexdigest()
    assert classes.hash == Classes(("a", "b"), ("x", "y")).hash
    assert classes.hash != Classes(("b", "a"), ("bee", "ape")).hash


def test_d22_shared_names_are_shown_with_their_ids_and_never_used_as_keys():
    classes = Classes(("n02012849", "n03126707", "n01440764", "n99999999"), ("crane", "crane", "tench", ""))
    assert [classes.title(k) for k in range(4)] == ["crane (n02012849)", "crane (n03126707)", "tench", "n99999999"]
    assert classes.index == {"n02012849": 0, "n03126707": 1, "n01440764": 2, "n99999999": 3}


def test_e13_match_is_by_id():
    mine = Classes(("a", "b", "c"), ("", "", ""))
    there = Classes(("c", "a", "b"), ("x", "y", "z"))
    found = mine.match(there)
    assert found.tolist() == [2, 0, 1] and found.dtype == np.int64
    assert mine.match(Classes(("c",), ("",)), subset=True).tolist() == [2]


def test_d16_match_lists_unknown_and_missing_classes():
    mine = Classes(("a", "b", "c"), ("", "", ""))
    with pytest.raises(UserError, match=r"Unknown, 1: 'd'\. Missing, 1: 'b'"):
        mine.match(Classes(("a", "c", "d"), ("", "", "")))
    with pytest.raises(UserError, match=r"Unknown, 1: 'd'"):
        mine.match(Classes(("a", "d"), ("", "")), subset=True)
    with pytest.raises(UserError, match=r"--subset"):
        mine.match(Classes(("a",), ("",)))
    many = Classes(tuple(f"k{n:03}" for n in range(100)), ("",) * 100)
    with pytest.raises(UserError, match=r"and 90 more"):
        many.match(Classes((), ()))


def test_an_id_stands_for_one_class():
    with pytest.raises(UserError, match="more than once: 'a'"):
        Classes(("a", "a"), ("", ""))
    with pytest.raises(UserError, match="2 ids and 1 names"):
        Classes(("a", "b"), ("",))


@pytest.mark.parametrize("odd", ["caf\u00e9", "b\udcff", "two\nlines", 'quote"', ""])
def test_d26_written_and_read_again(tmp_path, odd):
    classes = Classes(("a", odd), ("ape", odd))
    path = tmp_path / "classes.json"
    classes.write(path)
    assert Classes.read(path) == classes
    assert set(json.loads(path.read_text())) == {"ids", "names", "hash"}


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "classes.json"
    Classes(("a", "b"), ("", "")).write(path)
    path.write_text(path.read_text().replace('"b"', '"c"'))
    with pytest.raises(CheckpointError, match=r"classes\.json: the hash"):
        Classes.read(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"ids": 3, "names": [], "hash": ""}', '{"ids": [1], "names": ["a"], "hash": ""}']
)
def test_a_broken_file_is_named(tmp_path, text):
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="classes"):
        Classes.read(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Classes.read(tmp_path / "absent.json")


def test_imagenets_classes_are_in_the_order_of_their_wnids():
    known = imagenet()
    assert len(known) == 1000 and known.ids == ordered(known.ids, "text")
    assert (known.ids[0], known.names[0]) == ("n01440764", "tench")
    assert (known.ids[999], known.names[999]) == ("n15075141", "toilet tissue")
    assert [known.title(i) for i in (134, 517)] == ["crane (n02012849)", "crane (n03126707)"]
    assert all(known.names) and len(set(known.names)) == 998  # two cranes, two maillots


def test_imagenets_classes_are_timms_and_torchvisions():
    info = pytest.importorskip("timm.data", reason="the extra [timm] is not installed").ImageNetInfo()
    assert info.label_names() == list(imagenet().ids)
    descriptions = info.label_descriptions(detailed=False)
    assert [text.split(",")[0] for text in descriptions] == list(imagenet().names)
    theirs = torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"]
    differ = {wnid for wnid, name, other in zip(imagenet().ids, imagenet().names, theirs, strict=True) if name != other}
    assert differ == {"n02012849", "n03710721"}  # "crane bird" and "maillot tank suit" there
