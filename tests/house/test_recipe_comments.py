"""Every field of the recipe says what it is, in which unit, and where its default comes from."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "src" / "striate" / "recipe.py"
GROUPS = ("model", "data", "augment", "loss", "optim", "budget")


def comments(source: str) -> tuple[dict[int, str], set[int]]:
    """Comment text by line, and the lines that hold nothing else."""
    texts, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            texts[token.start[0]] = token.string.lstrip("# ").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    return texts, alone


def recipe_fields() -> dict[str, str]:
    """GROUP.FIELD to its comment: the lines directly above the field, and what follows on its own lines."""
    source = RECIPE.read_text(encoding="utf-8")
    texts, alone = comments(source)
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    found = {}
    for entry in classes["Recipe"].body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and entry.target.id in GROUPS:
            group = classes[ast.unparse(entry.annotation).strip("'\"")]
            for node in group.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    above = node.lineno - 1
                    while above in alone:
                        above -= 1
                    lines = [*range(above + 1, node.lineno), *range(node.lineno, (node.end_lineno or node.lineno) + 1)]
                    found[f"{entry.target.id}.{node.target.id}"] = " ".join(texts[line] for line in lines if line in texts)
    return found


FIELDS = recipe_fields()


def test_there_are_six_groups():
    assert tuple(dict.fromkeys(name.split(".")[0] for name in FIELDS)) == GROUPS


@pytest.mark.parametrize("name", FIELDS)
def test_the_comment_says_what_and_ends_with_a_unit(name):
    comment = FIELDS[name]
    assert len(comment) >= 15, f"{name} needs a comment: what it is, 'Source: …' where there is one, and its [unit]"
    assert re.search(r"\[[^\[\]]+\]$", comment), f"{name}: the comment ends with its unit in brackets, as [px]; found: {comment}"


def test_sources_are_named_with_their_place():
    sources = [re.search(r"Source: (.+?)(?: \[[^\[\]]+\])?$", comment) for comment in FIELDS.values()]
    named = [match.group(1) for match in sources if match]
    assert len(named) >= 5
    assert all(re.search(r"\d{4}|Keras|torch|Pillow", source) for source in named), named
