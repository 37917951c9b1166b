"""Files that are written whole or not at all, and JSON without NaN."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from striate.errors import ResourceError, UserError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refuse(error: OSError, path: Path | str, doing: str, instead: str = "another folder with --out") -> ResourceError | UserError:
    """The error to raise for an OSError met while `doing` something to `path`, with the way out: to choose `instead`."""
    if error.errno in _NO_ROOM:
        return ResourceError(f"{path}: no room left while {doing} ({error.strerror}). Free some disk, or choose {instead}.")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return UserError(f"{path}: no permission while {doing} ({error.strerror}). Choose {instead}, or change its rights.")
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}:
        return UserError(f"{path}: {error.strerror} while {doing}. Give a place that can be written.")
    return ResourceError(f"{path}: {error.strerror or error} while {doing}.")


def sync_folder(folder: Path) -> None:
    """Makes renames and new names within `folder` survive a power cut (fsync of the folder)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Writes a new file and waits until the disk has it. Not atomic by itself: for files in a temporary folder."""
    write_pieces(path, [memoryview(data)])


def write_pieces(path: Path, pieces: Iterable[memoryview]) -> tuple[int, str]:
    """As `write_synced`, piece by piece. Returns how many bytes it wrote, and their SHA-256 as 64 hex digits."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb", buffering=0) as file:
        for piece in pieces:
            rest = piece.cast("B")
            digest.update(rest)
            size += len(rest)
            while len(rest):
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def write_whole(path: Path, data: bytes | str) -> None:
    """Replaces `path` by `data`, so that a reader sees the old or the new content, never a part.

    Temporary name, write, fsync, rename, fsync of the folder. The temporary file is removed on failure.
    Raises ResourceError when there is no room, UserError without permission.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    try:
        write_synced(temporary, content)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise refuse(error, path, "writing it") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def strict(value: Any) -> Any:
    """A copy of a JSON-like value in which NaN and infinity are None (strict JSON has neither)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value


def to_json(value: Any, indent: int | None = 2) -> str:
    """Strict JSON text (NaN and infinity become null), keys in the given order.

    Bytes of a file name that are not UTF-8 live in str as lone surrogates, which only JSON's escapes can carry.
    """
    plain = strict(value)
    text = json.dumps(plain, indent=indent, allow_nan=False, ensure_ascii=False)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        text = json.dumps(plain, indent=indent, allow_nan=False)
    return text + ("\n" if indent else "")


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON whole or not at all."""
    write_whole(path, to_json(value))


def read_json(path: Path) -> Any:
    """Reads a strict JSON file. Raises UserError naming the file and the line where it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON (line {error.lineno}: {error.msg}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid JSON (not UTF-8 text).") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid JSON (nested too deeply).") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def free_bytes(path: Path) -> int:
    """Bytes that can still be written on the disk of `path` (or of its nearest existing parent)."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def cache_folder() -> Path:
    """Where striate keeps what can be made again: $STRIATE_CACHE, else $XDG_CACHE_HOME/striate, else ~/.cache/striate."""
    chosen = os.environ.get("STRIATE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "striate"
