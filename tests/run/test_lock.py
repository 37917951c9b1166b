"""T16: one process at a time in a run folder; a lock cannot be left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from striate.errors import ResourceError, UserError
from striate.run import lock

HOLDER = """
import sys, time
from pathlib import Path
from striate.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_t16_a_second_process_is_refused_with_the_first_ones_name(tmp_path: Path, holder: subprocess.Popen[str]):
    assert lock.is_locked(tmp_path)
    with pytest.raises(UserError) as caught, lock.locked(tmp_path):
        pytest.fail("two in one folder")
    assert f"in use by process {holder.pid} on {os.uname().nodename}" in str(caught.value)
    assert "--new" in str(caught.value) and caught.value.exit_code == 2


def test_t16_a_lock_whose_holder_was_killed_holds_nobody_up(tmp_path: Path, holder: subprocess.Popen[str]):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").read_text().startswith(f"process {holder.pid}")  # the file stays, the lock does not
    assert not lock.is_locked(tmp_path)
    with lock.locked(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_t16_the_lock_is_free_after_the_block_and_after_an_error_in_it(tmp_path: Path):
    for error in (None, ValueError):
        try:
            with lock.locked(tmp_path):
                assert lock.is_locked(tmp_path)
                if error:
                    raise error
        except ValueError:
            pass
        assert not lock.is_locked(tmp_path)


def test_a_folder_that_is_not_there_is_not_locked(tmp_path: Path):
    assert not lock.is_locked(tmp_path / "none")
    with pytest.raises(UserError, match="locking the run"), lock.locked(tmp_path / "none"):
        pass


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", fail)
    with pytest.raises(ResourceError, match=r"No locks available while locking the run"), lock.locked(tmp_path):
        pass
