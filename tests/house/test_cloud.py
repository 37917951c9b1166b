"""The page for rented machines: its commands and files exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "cloud.md").read_text(encoding="utf-8")


def test_every_flag_of_train_exists():
    wide = {**os.environ, "COLUMNS": "300"}
    shown = subprocess.run(
        [sys.executable, "-m", "striate", "train", "--help"], capture_output=True, text=True, env=wide, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    known = set(re.findall(r"--[a-z][\w.-]*", shown.stdout))
    trainings = [
        line.partition("striate train ")[2] for line in PAGE.splitlines() if line.startswith("$ ") and "striate train " in line
    ]
    assert len(trainings) >= 4
    for words in trainings:
        typed = {word for word in shlex.split(words.partition(";")[0]) if word.startswith("--")}
        assert typed <= known, typed - known


def test_flags_in_the_text_and_linked_files_exist():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", PAGE):
        assert (DOCS / target).exists(), target
    for name in ("stop_after", "mirror", "plan"):
        assert f"--{name.replace('_', '-')}" in PAGE
