"""Each rule of the doctor is one file with its source, both tests and a page in the docs, and there are no other pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from striate.doctor import catalog
from striate.doctor.finding import CAUSES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "src" / "striate" / "doctor" / "rules"
CODES = [*catalog.BEFORE, *catalog.DURING, *catalog.PREDICTED]


def module(code: str) -> Path:
    return RULES / f"{code.replace('-', '_')}.py"


def test_every_file_is_a_rule_of_the_catalog():
    assert {module(code) for code in CODES} == {path for path in RULES.glob("*.py") if path.name != "__init__.py"}
    assert len(CODES) == len(set(CODES))


@pytest.mark.parametrize("code", CODES)
def test_a_rule_states_what_it_looks_at_and_its_source(code):
    tree = ast.parse(module(code).read_text(encoding="utf-8"))
    assert len(ast.get_docstring(tree) or "") > 80
    sources = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SOURCE"]
    assert sources and len(ast.unparse(sources[0].value)) > 20
    assert "check" in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("code", CODES)
def test_a_rule_has_a_test_that_fires_and_one_that_is_silent(code):
    path = ROOT / "tests" / "doctor" / "rules" / f"test_{module(code).stem}.py"
    text = path.read_text(encoding="utf-8")
    assert re.search(r"\bcause\b|\bcauses\b", text), f"{path.name}: no test looks at the cause"
    assert re.search(r"is None|is_ill|silent|not in ", text), f"{path.name}: no test asks for silence"


@pytest.mark.parametrize("code", CODES)
def test_a_rule_has_a_page(code):
    text = (ROOT / "docs" / "doctor" / f"{code}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {code}\n") and "Source:" in text
    assert "## When it may be wrong" in text and "## What to do" in text


def test_every_page_is_a_rules():
    assert {path.stem for path in (ROOT / "docs" / "doctor").glob("*.md")} == set(CODES)


def test_every_rule_and_cause_is_in_the_chapter():
    chapter = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"doctor/{code}.md" not in chapter] == []
    assert [name for name in CAUSES if f"`{name}`" not in chapter] == []
