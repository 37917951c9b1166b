"""Which photos are answered for, how they are called, and their sides without decoding."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from striate.data import decode, synthetic
from striate.errors import DataError, UserError
from striate.submission import images
from tests.submission.makers import photo


def test_a_test_folder_and_the_whole_set_have_the_same_images(tmp_path: Path):
    for layout in ("ilsvrc", "tiny"):
        made = synthetic.make(tmp_path / layout, layout=layout, classes=2, per_class=1, val_per_class=2)
        test = tmp_path / layout / ("ILSVRC/Data/CLS-LOC/test" if layout == "ilsvrc" else "test/images")
        whole, part = images.open_test(tmp_path / layout), images.open_test(test)
        assert len(whole) == made.test == 4
        assert images.names(whole, images.file_name, " ,") == images.names(part, images.file_name, " ,")
        assert [images.sides(whole, row) for row in range(4)] == [images.sides(part, row) for row in range(4)]


def test_sides_are_pillows_and_nothing_is_decoded(real_data: Path, monkeypatch: pytest.MonkeyPatch):
    index = images.open_test(real_data / "imagenet-samples")
    monkeypatch.setattr(decode, "decode", None)
    for row in range(0, len(index), 20):
        with Image.open(index.path(row)) as picture:
            assert images.sides(index, row) == picture.size


def test_the_whole_photo_as_a_box():
    assert images.whole((500, 375)) == (0, 0, 499, 374)
    assert images.whole((1, 1)) == images.whole(None) == (0, 0, 0, 0)


def test_a_file_cut_after_its_header_has_sides_and_one_that_is_no_image_has_none(tmp_path: Path):
    cut = photo(tmp_path / "photos" / "a.JPEG", (9, 9, 9), 31, 17)
    cut.write_bytes(cut.read_bytes()[:-20])
    (tmp_path / "photos" / "b.JPEG").write_bytes(b"no image")
    index = images.open_test(tmp_path / "photos")
    assert [images.sides(index, row) for row in range(2)] == [(31, 17), None]


def test_two_images_of_one_name_and_a_name_that_breaks_a_row(tmp_path: Path):
    photo(tmp_path / "photos/a/1.jpg", (0, 0, 0))
    shutil.copy(tmp_path / "photos/a/1.jpg", tmp_path / "photos/1.png")
    index = images.open_test(tmp_path / "photos")
    with pytest.raises(DataError, match=r"a/1\.jpg: a submission would call it '1', as it does .*1\.png"):
        images.names(index, images.stem, "")
    assert images.names(index, images.file_name, "") == ["1.png", "1.jpg"]
    photo(tmp_path / "other/a,b.jpg", (0, 0, 0))
    with pytest.raises(DataError, match=r"a,b\.jpg': this name cannot stand in a row"):
        images.names(images.open_test(tmp_path / "other"), images.stem, ",")


def test_what_is_no_set_of_images(tmp_path: Path):
    (tmp_path / "list.csv").write_text("path,label\n")
    with pytest.raises(UserError, match="found a list or a photo"):
        images.open_test(tmp_path / "list.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in it"):
        images.open_test(tmp_path / "empty")
    with pytest.raises(UserError, match="no such file or folder"):
        images.open_test(tmp_path / "nowhere")
