"""What the tests of this room share: a set of four photos with its mapping, a network for it, and files with a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from striate.classes import Classes
from striate.evaluate.network import Network
from striate.evaluate.route import Route
from tests.submission.makers import COLOURS, VIEW, WNIDS, Colourist, photo


@pytest.fixture
def route(tmp_path: Path) -> Route:
    """The network for three colours."""
    return Route(Network(Colourist(), Classes(WNIDS, ("blue", "green", "red")), VIEW, "raw", "0" * 64, tmp_path, "step-7"))


@pytest.fixture
def kaggle_set(tmp_path: Path) -> Path:
    """Four test images of ILSVRC's layout: red, blue, green, blue; each 20 to 23 pixels high and 24 wide. Returns test/."""
    (tmp_path / "set").mkdir()
    lines = "n00000001 blue thing\nn00000002 green\nn00000003 red, ruby\n"
    (tmp_path / "set" / "LOC_synset_mapping.txt").write_text(lines)
    test = tmp_path / "set/ILSVRC/Data/CLS-LOC/test"
    for number, which in enumerate((2, 0, 1, 0)):
        photo(test / f"ILSVRC2012_test_{number + 1:08d}.JPEG", COLOURS[which], 24, 20 + number)
    return test


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """put(text): a file with that in it."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "said.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write
