"""Labels are lines of LOC_synset_mapping.txt, from 1, whatever order they are in."""

from pathlib import Path

import pytest

from striate.classes import Classes, imagenet
from striate.errors import DataError, UserError
from striate.submission import labels


def test_the_line_is_the_label_even_in_no_order(put):
    numbering = labels.read_mapping(put(b"\xef\xbb\xbfn00000003 c, sea\r\nn00000001 a\r\nn00000002\r\n\r\n"))
    assert numbering.ids == ("n00000003", "n00000001", "n00000002")
    classes = Classes(("n00000001", "n00000003"), ("", ""))
    assert labels.Numbering(numbering.ids, "m").labels_of(classes).tolist() == [2, 1]


def test_imagenets_order_of_ids_is_that_of_its_mapping():
    numbering = labels.by_order(reversed(imagenet().ids), "ImageNet")
    assert numbering.ids == imagenet().ids
    assert numbering.label["n01440764"] == 1  # tench: line 1 in the words of the challenge's page
    assert numbering.label["n15075141"] == 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n00000001 a\n\nn00000002 b\n", r"line 2: expected a wnid and words.*no line may be left out"),
        ("ImageId,PredictionString\n", r"line 1: expected a wnid and words, as 'n01440764 tench', found 'ImageId"),
        ("n00000001 a\nn00000001 b\n", r"a class has one line, found more for 'n00000001'"),
        ("", r"said\.csv, file: there is nothing in it"),
    ],
)
def test_a_mapping_that_is_none_is_an_error(put, text, said):
    with pytest.raises(DataError, match=said):
        labels.read_mapping(put(text))


def test_a_class_without_a_line_is_an_error(put):
    numbering = labels.read_mapping(put("n00000001 a\n"))
    with pytest.raises(UserError, match=r"said\.csv has no line for 1 of the network's 2 classes: 'cat'.*--mapping"):
        numbering.labels_of(Classes(("cat", "n00000001"), ("", "")))


def test_a_mapping_is_found_beside_or_above_and_the_named_one_wins(tmp_path: Path, put):
    place = tmp_path / "kaggle/ILSVRC/Data/CLS-LOC/test"
    place.mkdir(parents=True)
    assert labels.find_mapping(None, place) is None
    (tmp_path / "kaggle" / "LOC_synset_mapping.txt").write_text("n00000001 a\n")
    found = labels.find_mapping(None, place)
    assert found is not None and found.ids == ("n00000001",)
    (place / "LOC_synset_mapping.txt").write_text("n00000002 a\n")
    nearer = labels.find_mapping(None, place)
    assert nearer is not None and nearer.ids == ("n00000002",)
    named = labels.find_mapping(put("n00000009 a\n"), place)
    assert named is not None and named.ids == ("n00000009",)
    assert labels.find_mapping(None, None) is None
    assert labels.above(place / "deeper/and/deeper/and/deeper", "LOC_synset_mapping.txt") is None
