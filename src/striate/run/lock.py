"""One process at a time writes into a run folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from striate.errors import UserError
from striate.files import refuse


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run folder's lock within the block.

    The operating system lets go of it when the process ends, however it ends, so a lock cannot be left
    behind; the file's text (process and host) only serves the message.
    Raises UserError naming the process that holds it.
    """
    path = folder / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise refuse(error, path, "locking the run") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise UserError(f"{folder}: in use by {holder}. Wait for it, stop it, or start beside it with --new.") from error
        except OSError as error:
            raise refuse(error, path, "locking the run (the file system may have no locks)") from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Whether a living process holds the run folder's lock."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
