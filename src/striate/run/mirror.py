"""The mirror: a second copy of a run on another disk, for machines that may not come back.

DIR/NAME is a run folder without its evaluations and report: the run's small files and its checkpoints. A checkpoint goes
there as it comes on the local disk: a temporary name, each file read back and its SHA-256 compared with the manifest's, fsync,
rename, fsync of the parent. Whatever the moment of a kill, a reader finds the old checkpoint or the new one.

A drive may fill up, go away or hang while the training goes on. The first two are said and tried again at the next
checkpoint. A drive that shows no sign of life for PATIENCE_S is left alone, in a thread of its own, until it answers: the
training waits no longer than that, once, and the local checkpoints go on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any, TypeVar

from striate import recipe as recipes
from striate.errors import CheckpointError, ResourceError, UserError
from striate.files import sha256_bytes, to_json
from striate.run import checkpoint, identity
from striate.run.folder import PREPARED, Run, Typed

# The longest silence of a drive before it counts as hanging: an fsync of 100 MB at 0.5 MB/s is still alive. [s]
PATIENCE_S = 300.0
GROWING = ("log.jsonl", "best.json")

_BLOCK_BYTES = 4 * 2**20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SHUT = {errno.EACCES, errno.EPERM, errno.EROFS}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN}
# What a file system answers that has no such call; a mounted drive often has no fsync of a folder.
_NO_SUCH_CALL = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
Result = TypeVar("Result")


def restore(folder: Path, run: Run, typed: Typed, override: tuple[str, ...] = ()) -> list[str]:
    """Brings the newest valid checkpoint of DIR/NAME to the run, where the run has no valid one as new. Returns what to say.

    folder: DIR. run: locked by the caller; it may be empty. typed, override: as asked for now. A run without checkpoints
    gets the mirror's small files too, and its best checkpoint; a run with checkpoints keeps its own log.
    Raises UserError when DIR is the run itself or holds another run of that name, CheckpointError when the run has no
    checkpoint and none of the mirror's is valid, ResourceError when it has none and the mirror cannot be read.
    """
    _refuse_nested(folder, run)
    there, patience = Run(folder / run.name), _Patience()
    try:
        return patience.run(lambda: _restored(there, run, typed, override, patience.sign))
    except OSError as error:
        words = f"{there.path}: the mirror cannot be read ({_words(error)})"
        if not checkpoint.steps_in(run.checkpoints):
            raise ResourceError(f"{words}, and there is no checkpoint here. Bring it back, or leave out --mirror.") from error
        return [f"{words}; going on with the checkpoints here."]


def open_mirror(folder: Path, run: Run) -> Mirror:
    """The mirror DIR/NAME of a prepared run; DIR and DIR/NAME are made, and the run's small files written.

    Raises UserError when DIR is the run itself, holds another run or something else of that name, or cannot be written;
    ResourceError when it is full or does not answer.
    """
    check_place(folder, run)
    mirror = Mirror(folder / run.name, run)
    try:
        mirror.open()
    except OSError as error:
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise UserError(f"--mirror {folder}: it, or {run.name} in it, is a file. Give a folder.") from error
        kind = UserError if error.errno in _SHUT else ResourceError
        raise kind(f"--mirror {folder}: {_words(error)}. Give another folder, or leave out --mirror.") from error
    return mirror


def check_place(folder: Path, run: Run) -> None:
    """Raises UserError when DIR cannot be a mirror of the run, as far as a look tells; nothing is made."""
    _refuse_nested(folder, run)
    if not folder.parent.exists():
        raise UserError(f"--mirror {folder}: {folder.parent} does not exist. Mount the drive, or give a folder in one.")


class Mirror:
    """A run's second copy while it trains. One thread calls it; the loop may write the run's files meanwhile."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self._run = run
        self._patience = _Patience()
        self._written: dict[str, str] = {}  # SHA-256 of each small file that is there, so that it is not sent again
        self._told: set[str] = set()

    def has(self, step: int) -> bool:
        """Whether the checkpoint of that step is there."""
        return (self.path / "checkpoints" / f"step-{step}" / "manifest.json").is_file()

    def open(self) -> None:
        """Makes the folder and writes the small files. Raises UserError for another run or things; OSError."""
        self._patience.run(self._opened)

    def copy(self, saved: Path, last_step: int, keep: int, spared: tuple[int, ...]) -> list[str]:
        """Copies a finished checkpoint folder and the run's small files, then rotates there (see `checkpoint.rotate`).

        spared: steps that stay besides, the best one and the snapshots, which go along where the mirror lacks them.
        Returns complaints, each kind once until a copy succeeds; a mirror that fails never stops the training, and the next
        call tries again.
        """
        try:
            complaints = self._patience.run(lambda: self._copied(saved, last_step, keep, spared))
        except (OSError, CheckpointError) as error:
            words = _words(error) if isinstance(error, OSError) else str(error)
            kind = words if isinstance(error, OSError) else "damaged"
            text = f"{self.path}: {saved.name} was not copied: {words}. The training goes on; the next checkpoint tries again."
            return self._once({kind: text})
        works_again = bool(self._told - {"best", "delete"})
        self._told &= complaints.keys()
        again = [f"{self.path}: takes checkpoints again, from {saved.name} on."] if works_again else []
        return again + self._once(complaints)

    def _once(self, complaints: dict[str, str]) -> list[str]:
        """The texts of the kinds that were not told yet."""
        new = {kind: text for kind, text in complaints.items() if kind not in self._told}
        self._told |= new.keys()
        return list(new.values())

    def _opened(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.mkdir(exist_ok=True)
        _refuse_other(Run(self.path), self._run)
        _write(self.path / ".probe", b"")
        os.unlink(self.path / ".probe")
        (self.path / "checkpoints").mkdir(exist_ok=True)
        checkpoint.sweep(self.path / "checkpoints")
        for left in self.path.glob(".*.tmp-*"):
            left.unlink()
        self._write_files(PREPARED)

    def _copied(self, saved: Path, last_step: int, keep: int, spared: tuple[int, ...]) -> dict[str, str]:
        """Complaints by kind. Raises OSError and CheckpointError when the checkpoint is not there."""
        # A drive that was unmounted leaves an empty folder on the local disk, which is not to be filled.
        if not (self.path / "recipe.json").is_file():
            raise FileNotFoundError(errno.ENOENT, "no recipe.json")
        folder, complaints = self.path / "checkpoints", {}
        folder.mkdir(exist_ok=True)
        for step in dict.fromkeys(spared):  # first, so that the best that a checkpoint names is always there
            other = saved.with_name(f"step-{step}")
            if other == saved or not other.exists():
                continue
            try:
                self._bring(other, folder)
            except CheckpointError as error:
                what = f"the checkpoint {other.name}, the best one or a snapshot,"
                complaints["best"] = f"{self.path}: {what} was not copied: {error}"
        self._bring(saved, folder)
        self._write_files((*GROWING, *PREPARED))
        status = {"state": "saved", "step": last_step, "reason": "copied to the mirror"}
        _write(self.path / "status.json", to_json(status).encode())
        if left := checkpoint.rotate(folder, last_step, keep, spared):
            complaints["delete"] = left[0]
        return complaints

    def _bring(self, saved: Path, folder: Path) -> None:
        if not _is_copy(saved, folder / saved.name):
            _settle(_fetch(saved, folder, self._patience.sign), folder / saved.name)

    def _write_files(self, names: tuple[str, ...]) -> None:
        """Writes the run's small files there, whole or not at all, where they changed."""
        for name in names:
            data = _small(self._run.path / name)
            if data is None:
                continue
            digest = sha256_bytes(data)
            if name not in self._written and (there := _small(self.path / name)) is not None:
                self._written[name] = sha256_bytes(there)
            self._patience.sign()
            if self._written.get(name) != digest:
                _write(self.path / name, data)
                self._written[name] = digest


# ---------------------------------------------------------------- restore


def _restored(there: Run, run: Run, typed: Typed, override: tuple[str, ...], sign: Callable[[], None]) -> list[str]:
    if not (there.path / "recipe.json").is_file():
        return []
    begun = there.typed
    identity.reconcile(there, Typed(typed.base, begun.start, typed.changes) if typed.base == begun.base else typed, override)
    with contextlib.suppress(OSError):  # a mirror that can only be read is enough
        checkpoint.sweep(there.checkpoints)
    try:
        local = checkpoint.newest(run.checkpoints)[0]
    except CheckpointError:
        local = None
    newer = [step for step in checkpoint.steps_in(there.checkpoints) if local is None or step > local.step]
    if not newer:
        return []
    run.checkpoints.mkdir(exist_ok=True)
    is_new_machine = not checkpoint.steps_in(run.checkpoints)
    notes = []
    for step in newer:
        try:
            fetched = _fetch(there.checkpoints / f"step-{step}", run.checkpoints, sign)
            best = _best_in(fetched, step)
            break
        except CheckpointError as error:
            notes.append(f"Passed over in the mirror: {error}")
    else:
        if local is None:
            raise CheckpointError(
                f"{there.path}: no checkpoint of the mirror is usable, and there is none here.\n  "
                + "\n  ".join(notes)
                + "\nRestore one from a copy, or start beside this run with --new."
            )
        return notes
    # Each step leaves what the next start can go on from: a run is one from its recipe on, and what is named exists.
    if is_new_machine:
        for name in (*PREPARED, "log.jsonl"):
            if (data := _small(there.path / name)) is not None:
                _write(run.path / name, data)
    name = str(best["checkpoint"]) if best is not None else f"step-{step}"
    if name != f"step-{step}" and not (run.checkpoints / name).exists():
        try:
            _settle(_fetch(there.checkpoints / name, run.checkpoints, sign), run.checkpoints / name)
        except CheckpointError as error:
            notes.append(f"The best checkpoint could not be taken from the mirror: {error}")
    sign()
    if best is not None:
        _write(run.path / "best.json", to_json(best).encode())
    _write(run.path / "status.json", to_json({"state": "saved", "step": step, "reason": "taken from the mirror"}).encode())
    _settle(fetched, run.checkpoints / f"step-{step}")
    return [*notes, f"{run.path}: step {step} taken from the mirror {there.path}."]


def _best_in(fetched: Path, step: int) -> dict[str, Any] | None:
    """The best evaluation as a copied checkpoint tells it. Reads the copy as a resume would.

    Raises CheckpointError, with the copy removed, when a resume could not use it.
    """
    try:
        found = checkpoint.read(fetched)
        best = found.state.get("best")
        if found.step != step or (best is not None and not re.fullmatch(r"step-\d+", str(best["checkpoint"]))):
            raise CheckpointError(f"{fetched}: holds step {found.step} and the best checkpoint {best}; it was changed.")
        return best if isinstance(best, dict) else None
    except CheckpointError:
        shutil.rmtree(fetched, ignore_errors=True)
        raise


# ---------------------------------------------------------------- which folder


def _refuse_nested(folder: Path, run: Run) -> None:
    """Raises UserError when DIR/NAME is the run, lies in it, or holds it; links are followed."""
    here, there = run.path.resolve(), (folder / run.name).resolve()
    if there == here or (there.exists() and here.exists() and os.path.samefile(there, here)):
        raise UserError(f"--mirror {folder}: {there} is the run itself. Give a folder on another disk.")
    if folder.resolve().is_relative_to(here) or here.is_relative_to(there):
        raise UserError(f"--mirror {folder}: the mirror and the run {here} lie in each other. Give a folder on another disk.")


def _refuse_other(there: Run, run: Run) -> None:
    """Raises UserError when the mirror's folder holds another run, or something that is none."""
    if not (there.path / "recipe.json").is_file():
        known = {*PREPARED, *GROWING, "status.json", "checkpoints"}
        foreign = [entry.name for entry in there.path.iterdir() if entry.name not in known and not entry.name.startswith(".")]
        foreign += [f"checkpoints/step-{step}" for step in checkpoint.steps_in(there.checkpoints)]
        if foreign:
            raise UserError(
                f"{there.path}: holds other things ({', '.join(sorted(foreign)[:3])}) and no run. Choose another --mirror."
            )
        return
    if there.classes.hash != run.classes.hash:
        raise UserError(f"{there.path}: a run with other classes than {run.path}. Choose another --name or --mirror.")
    if recipes.differences(there.typed.recipe, run.typed.recipe) and _first_line(there) != _first_line(run):
        identity.reconcile(there, run.typed, ())
    if checkpoint.steps_in(there.checkpoints) and not checkpoint.steps_in(run.checkpoints):
        raise UserError(
            f"{there.path}: holds this run's checkpoints already. Go on with them (without --new), or choose another --name."
        )


def _first_line(run: Run) -> bytes:
    """The log's first line, which says when the run began: it stays when --override changes the recipe."""
    try:
        with open(run.path / "log.jsonl", "rb") as file:
            return file.readline()
    except FileNotFoundError:
        return b""


# ---------------------------------------------------------------- files that are read back


def _fetch(source: Path, folder: Path, sign: Callable[[], None]) -> Path:
    """Copies a checkpoint folder to a temporary name in another, each file read back and checked. Returns the copy.

    Raises CheckpointError naming the file that is missing, or not what the manifest says, on either side; OSError.
    """
    wanted = {name: str(facts["sha256"]) for name, facts in checkpoint.manifest_of(source).items()}
    temporary = folder / f"{source.name}.tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name in (*wanted, "manifest.json"):  # the manifest last: without it a folder is no checkpoint
            read = _copy_file(source / name, temporary / name, sign)
            if name in wanted and read != wanted[name]:
                raise CheckpointError(
                    f"{source / name}: its SHA-256 differs from the manifest's; the file was changed or damaged."
                )
            if _digest(temporary / name, sign) != read:
                raise CheckpointError(f"{temporary / name}: read back, it is not what was written; the drive damages files.")
        _sync(temporary)
    except (OSError, CheckpointError):
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return temporary


def _settle(temporary: Path, final: Path) -> None:
    """Gives a copied checkpoint its name. An older one of that name steps aside; `checkpoint.sweep` knows it."""
    aside = final.with_name(f"{final.name}{checkpoint.ASIDE}")
    if final.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(final, aside)
    os.rename(temporary, final)
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _copy_file(source: Path, target: Path, sign: Callable[[], None]) -> str:
    """Copies a file block by block and waits until the drive has it. Returns the SHA-256 of what was read."""
    digest = hashlib.sha256()
    try:
        original = open(source, "rb", buffering=0)  # noqa: SIM115 - closed below
    except FileNotFoundError as error:
        raise CheckpointError(f"{source}: missing.") from error
    with original, open(target, "wb", buffering=0) as copy:
        while block := original.read(_BLOCK_BYTES):
            digest.update(block)
            rest = memoryview(block)
            while len(rest):
                rest = rest[copy.write(rest) :]
                sign()
        _sync_handle(copy.fileno())
        if hasattr(os, "posix_fadvise"):  # so that reading it back asks the drive and not this machine's memory
            os.posix_fadvise(copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def _digest(path: Path, sign: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            sign()
    return digest.hexdigest()


def _is_copy(source: Path, target: Path) -> bool:
    """Whether a checkpoint is there already: the same manifest, and files of its sizes."""
    try:
        if (source / "manifest.json").read_bytes() != (target / "manifest.json").read_bytes():
            return False
        return all((target / name).stat().st_size == facts["bytes"] for name, facts in checkpoint.manifest_of(source).items())
    except FileNotFoundError:
        return False


def _small(path: Path) -> bytes | None:
    """A small file's bytes, None where there is none. Of a log, the whole lines: the last one may be half written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return data[: data.rfind(b"\n") + 1] if path.suffix == ".jsonl" else data


def _write(path: Path, data: bytes) -> None:
    """Replaces a file whole or not at all, as `files.write_whole` does, on drives that may lack fsync."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb", buffering=0) as file:
            rest = memoryview(data)
            while len(rest):
                rest = rest[file.write(rest) :]
            _sync_handle(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync_handle(handle)
    finally:
        os.close(handle)


def _sync_handle(handle: int) -> None:
    """fsync, where the file system has it; a failed one is a failed copy."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise


def _words(error: OSError) -> str:
    """What is wrong with the mirror, without the place."""
    if isinstance(error, TimeoutError):
        return f"it has not answered for {PATIENCE_S:.0f} s"
    said = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return f"no room left ({said})"
    if error.errno in _SHUT:
        return f"no permission to write ({said})"
    if error.errno in _GONE:
        return f"it is gone; unmounted? ({said})"
    return said


class _Patience:
    """Does work that may hang in a thread of its own, and waits as long as it gives signs of life."""

    def __init__(self) -> None:
        self._sign_s = 0.0
        self._given_up = False
        self._thread: threading.Thread | None = None

    def sign(self) -> None:
        """The work gets on. Raises TimeoutError in work that nobody waits for any more, so that it ends."""
        if self._given_up:
            raise TimeoutError
        self._sign_s = time.monotonic()

    def run(self, work: Callable[[], Result]) -> Result:
        """The result of `work`. Raises TimeoutError when it hangs, or when the one before still does."""
        if self._thread is not None and self._thread.is_alive():
            raise TimeoutError
        outcome: futures.Future[Result] = futures.Future()

        def attempt() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # raised again where it is waited for
                outcome.set_exception(error)

        self._given_up = False
        self.sign()
        # A daemon: a drive that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=attempt, name="mirror", daemon=True)
        self._thread.start()
        while not futures.wait([outcome], timeout=1.0).done:
            if time.monotonic() - self._sign_s > PATIENCE_S:
                self._given_up = True
                raise TimeoutError
        return outcome.result()
