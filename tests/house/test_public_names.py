"""The package's face: its table is true, and neither `import striate` nor the help loads torch."""

from __future__ import annotations

import subprocess
import sys
import time
import types

import pytest

import striate

NO_HEAVY_PACKAGE = (
    "import sys; {}\n"
    "loaded = [name for name in ('torch', 'torchvision', 'matplotlib', 'pyarrow') if name in sys.modules]\n"
    "assert not loaded, loaded\n"
)
HELP = (
    "sys.argv = ['striate', '--help']\n"
    "from striate.cli import main\n"
    "try:\n"
    "    code = main()\n"
    "except SystemExit as leaving:\n"
    "    code = leaving.code\n"
    "assert not code, code\n"
)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", striate.__all__)
def test_every_public_name_resolves_and_has_a_docstring(name):
    value = getattr(striate, name)
    assert not isinstance(value, types.ModuleType), f"striate.{name} is a room, not the function of this name"
    assert value.__doc__
    assert value is getattr(striate, name)


def test_about_twenty_names_and_no_others_are_shown():
    assert 10 <= len(striate.__all__) <= 25
    assert set(striate.__all__) <= set(dir(striate))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        striate.trian  # noqa: B018


def test_functions_keep_their_names_after_their_rooms_are_imported():
    code = (
        "import striate, importlib\n"
        "for room in ('train', 'evaluate'):\n"
        "    importlib.import_module(f'striate.{room}')\n"
        "    assert callable(getattr(striate, room)), room\n"
        "    importlib.reload(importlib.import_module(f'striate.{room}'))\n"
        "    assert callable(getattr(striate, room)), room\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_import_striate_loads_no_torch():
    done = python(NO_HEAVY_PACKAGE.format("import striate; dir(striate); striate.UserError"))
    assert done.returncode == 0, done.stderr


def test_help_loads_no_torch():
    done = python("import sys\n" + HELP + NO_HEAVY_PACKAGE.format("pass"))
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_help_takes_under_half_a_second():
    """The best of five starts, as a user sees it; other processes of this machine only add to the others."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "striate", "--help"], capture_output=True, text=True, timeout=60)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        if seconds[-1] < 0.5:
            return
    pytest.fail(f"striate --help took {min(seconds):.2f} s at best")
