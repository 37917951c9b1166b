"""What no file of the repository may contain, and what no module may call."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Paths and hosts of somebody's workplace; written in two parts, so that this file does not contain them.
WORDS = ["/wo" + "rk/", ".lib" + "rary/", "py" + "pi.org", "files.python" + "hosted", "/root" + "/", "/tmp/" + "plan"]
TEXTS = {".py", ".md", ".toml", ".txt", ".html", ".css", ".js", ".json", ".yml", ".yaml", ".cfg", ".sh", ""}

# Calls that run code from a file, or write outside a folder, or go through a shell.
BANNED = {"eval", "exec", "torch.load", "yaml.load", "pickle.load", "pickle.loads", "os.system", "os.popen"}
BANNED_METHODS = {"extractall", "unsafe_load"}


def repository_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("needs a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_workplace():
    found = []
    for path in repository_files():
        if path.suffix in TEXTS:
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [f"{path.relative_to(ROOT)}: {word}" for word in WORDS if word in text]
    assert not found


def test_no_large_file_and_no_weights():
    wrong = [
        str(path.relative_to(ROOT))
        for path in repository_files()
        if path.stat().st_size > 2_000_000
        or (path.suffix in {".safetensors", ".pth", ".pt", ".JPEG"} and not path.is_relative_to(ROOT / "tests" / "golden"))
    ]
    assert not wrong


def _is_the_one_reader(path: Path, call: ast.Call) -> bool:
    """The one place where a pickle is opened: by torch's restricted reader, in the child process of `models.foreign`."""
    spelled = {word.arg: ast.unparse(word.value) for word in call.keywords}
    is_restricted = spelled == {"weights_only": "True", "map_location": "'cpu'"}
    return path == ROOT / "src/striate/models/unpickle.py" and ast.unparse(call.func) == "torch.load" and is_restricted


def test_g1_no_module_runs_code_from_a_file():
    wrong = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                through_shell = any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords)
                if _is_the_one_reader(path, node):
                    continue
                if name in BANNED or name.split(".")[-1] in BANNED_METHODS or through_shell:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                if {"pickle", "dill", "shelve", "marshal"} & {name.split(".")[0] for name in names}:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: imports pickle")
    assert not wrong
