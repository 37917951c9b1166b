"""docs/faults.md says which fault is proven by which test, and it is true."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "faults"))
FOUND: dict[str, list[str]] = SCRIPT["tests_by_fault"]()
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([A-Z]\d+) \| ([^|]+) \| (.+) \|$", re.MULTILINE)


def test_every_fault_is_listed_once_in_order():
    counts = {"D": 29, "T": 20, "C": 19, "P": 10, "E": 13, "S": 14, "A": 6, "G": 5, "F": 6}
    wanted = [f"{letter}{number}" for letter, count in counts.items() for number in range(1, count + 1)]
    assert [row[0] for row in ROW.findall(PAGE)] == wanted


def test_no_test_names_a_fault_that_does_not_exist():
    assert SCRIPT["unknown"](FOUND) == []


def test_the_page_is_what_the_tests_say():
    assert SCRIPT["page"](FOUND) == PAGE, "Run scripts/faults"


def test_a_row_names_tests_that_exist_or_is_open():
    """Read from the page itself, without the script: what it names is there, and what has a test is not called open."""
    rows = {fault: tests for fault, _, tests in ROW.findall(PAGE)}
    for fault, tests in rows.items():
        if tests == "open":
            pattern = re.compile(rf"def test_(?:[a-z]\d+_)*{fault[0].lower()}0?{fault[1:]}_")
            named = [
                path.name for path in (ROOT / "tests").rglob("test_*.py") if pattern.search(path.read_text(encoding="utf-8"))
            ]
            assert named == [], f"{fault} has a test"
            continue
        for file, name in re.findall(r"`([^`:]+)::(\w+)`", tests):
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{fault}: {file} has no {name}"
