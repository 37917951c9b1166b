"""The README tells the truth: its commands exist, its map is the tree, its snippets run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# A block is run, and not only parsed, when the line above it is this comment.
RUN = "<!-- run -->"


def blocks(language: str) -> list[tuple[str, bool]]:
    """Fenced blocks of a language: the text, and whether they are marked to be run."""
    fence = re.compile(rf"(?P<mark>{re.escape(RUN)}\n+)?```{language}\n(?P<text>.*?)```", re.DOTALL)
    return [(match["text"], match["mark"] is not None) for match in fence.finditer(README)]


def commands(text: str) -> list[str]:
    """Command lines of a console block (those after `$ `), continuation lines joined, comments dropped."""
    joined = text.replace("\\\n", " ")
    return [line[2:].split(" # ")[0].strip() for line in joined.splitlines() if line.startswith("$ ")]


COMMANDS = [command for text, _ in blocks("console") for command in commands(text)]


@cache
def help_text(verb: tuple[str, ...]) -> str:
    wide = {**os.environ, "COLUMNS": "300"}  # so that no flag is broken across lines
    done = subprocess.run(
        [sys.executable, "-m", "striate", *verb, "--help"], capture_output=True, text=True, timeout=60, env=wide
    )
    assert done.returncode == 0, f"striate {' '.join(verb)} --help fails: {done.stderr}"
    return done.stdout


def test_there_are_commands():
    assert "make demo" in COMMANDS and "make test" in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_line_exists(command):
    for part in re.split(r"\s*(?:&&|\|\|?|;)\s*", command):
        words = shlex.split(part)
        if words[0] == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            assert words[1] in targets, f"the Makefile has no target '{words[1]}'"
        elif words[0] == "striate":
            verb = (words[1], words[2]) if words[1] == "data" else (words[1],)
            known = (
                set(re.findall(r"--[a-z][\w.-]*", help_text(verb))) if not words[1].startswith("-") else {"--help", "--version"}
            )
            for flag in (word.split("=")[0] for word in words[1:] if word.startswith("--")):
                assert flag in known or flag.startswith("--model.options."), f"striate {verb[0]} has no {flag}"
        elif words[0].startswith(("scripts/", "benchmarks/")):
            assert (ROOT / words[0]).is_file()
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), f"{words[1]} does not exist"


def test_marked_commands_run(tmp_path):
    for text in (text for text, run in blocks("console") if run):
        for command in commands(text):
            words = shlex.split(command)
            assert words[0] == "striate", "only striate's own commands are run here"
            done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{command}: {done.stderr}"


def test_python_snippets_compile_and_marked_ones_run(tmp_path):
    for text, run in blocks("python"):
        compile(text, "README.md", "exec")
        if run:
            done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr


def test_the_map_is_the_tree():
    rows = re.findall(r"^\| *\d+ *\| *((?:`[a-z_]+/?` *)+)\|", README, re.MULTILINE)
    mapped = {name for row in rows for name in re.findall(r"`([a-z_]+)/?`", row)}
    tree = {
        path.stem for path in (ROOT / "src" / "striate").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert mapped == {name for name in tree if not name.startswith("_")}


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", README):
        assert (ROOT / target).exists(), f"README links {target}, which does not exist"
