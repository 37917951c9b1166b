"""The second copy of a run: C19, and what a drive may do meanwhile."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import recipe as recipes
from striate.classes import Classes
from striate.errors import CheckpointError, ResourceError, UserError
from striate.recipe import Recipe
from striate.run import checkpoint, identity, mirror
from striate.run.folder import Run, Typed, open_run
from striate.run.mirror import Mirror, open_mirror

# Newer Pythons warn of a fork beside idle threads; the children here only write files and die.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
WORDS = ("blue", "green")


def typed(**changes: object) -> Typed:
    return Typed("small", Recipe(), {recipes.full_name(name): value for name, value in changes.items()})


def made(out: Path, name: str = "x", classes: tuple[str, ...] = WORDS, began: float = 1.0, **changes: object) -> Run:
    """A prepared run with the first line of its log."""
    run, _ = identity.make_folder(out, name, fresh=False)
    asked = typed(**changes)
    Classes(classes, classes).write(run.path / "classes.json")
    for one in ("view.json", "data.json", "environment.json"):
        (run.path / one).write_text(f'{{"what": "{one}"}}\n')
    (run.path / "index-train.parquet").write_bytes(b"not read here")
    run.checkpoints.mkdir()
    run.write(asked, asked.recipe)
    log(run, "start", 0, began)
    return run


def log(run: Run, kind: str, step: int, at: float = 2.0) -> None:
    with open(run.path / "log.jsonl", "a") as file:
        file.write(json.dumps({"kind": kind, "step": step, "time": at}) + "\n")


def save(run: Run, step: int, best: int | None = None) -> Path:
    """A checkpoint of some kB with its line in the log; best.json too where one is named."""
    weights = {"weight": torch.randn(500, generator=torch.Generator().manual_seed(step))}
    facts = {"step": best, "top1": 0.5, "checkpoint": f"step-{best}"} if best is not None else None
    path = checkpoint.save(run.checkpoints, step, {"model": weights, "optimizer": {}}, {"best": facts}).path
    if facts is not None:
        (run.path / "best.json").write_text(json.dumps(facts))
    log(run, "checkpoint", step)
    return path


def weights(run: Run, step: int) -> torch.Tensor:
    return checkpoint.read(run.checkpoints / f"step-{step}").model["weight"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if ".tmp-" in path.name or path.name == ".probe"]


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Where the second disk is mounted: a place with a space and letters beyond ASCII."""
    (tmp_path / "My Drive ü").mkdir()
    return tmp_path / "My Drive ü"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made(tmp_path / "runs")


def lost(run: Run) -> Run:
    """The same run on a new machine, where nothing is left of it."""
    shutil.rmtree(run.path)
    return identity.make_folder(run.path.parent, run.name, fresh=False)[0]


# ---------------------------------------------------------------- a copy


def test_c19_the_copy_is_a_run_with_the_same_bytes(run: Run, drive: Path):
    second = open_mirror(drive, run)
    assert open_run(drive / "x").typed == run.typed  # a run before its first checkpoint
    assert second.copy(save(run, 4, best=4), 4, 2, (4,)) == []
    for name in (*mirror.PREPARED, *mirror.GROWING):
        if (run.path / name).exists():
            assert (drive / "x" / name).read_bytes() == (run.path / name).read_bytes()
    for file in (run.checkpoints / "step-4").iterdir():
        assert (drive / "x" / "checkpoints" / "step-4" / file.name).read_bytes() == file.read_bytes()
    assert open_run(drive / "x").status == {"state": "saved", "step": 4, "reason": "copied to the mirror"}
    assert leftovers(drive) == []


def test_c19_old_copies_go_as_on_the_disk_and_the_best_stays(run: Run, drive: Path):
    save(run, 1, best=1)  # before there was a mirror
    second = open_mirror(drive, run)
    for step in (2, 3, 4, 10):
        assert second.copy(save(run, step, best=1), step, 2, (1,)) == []
    assert checkpoint.steps_in(drive / "x" / "checkpoints") == [10, 4, 1]
    assert torch.equal(weights(Run(drive / "x"), 1), weights(run, 1))


def test_c19_the_same_step_saved_again_takes_the_place_of_the_first(run: Run, drive: Path):
    second = open_mirror(drive, run)
    second.copy(save(run, 4), 4, 2, ())
    assert checkpoint.read(drive / "x" / "checkpoints" / "step-4").state["best"] is None
    second.copy(save(run, 4, best=4), 4, 2, (4,))
    assert checkpoint.read(drive / "x" / "checkpoints" / "step-4").state["best"]["step"] == 4
    assert leftovers(drive) == []


def test_of_a_log_that_is_being_written_whole_lines_are_copied(run: Run, drive: Path):
    whole = (run.path / "log.jsonl").read_bytes()
    with open(run.path / "log.jsonl", "ab") as file:
        file.write(b'{"kind": "ste')
    open_mirror(drive, run).copy(unlogged(run, 1), 1, 2, ())
    assert (drive / "x" / "log.jsonl").read_bytes() == whole


def unlogged(run: Run, step: int) -> Path:
    return checkpoint.save(run.checkpoints, step, {"model": {"weight": torch.ones(3)}, "optimizer": {}}, {"best": None}).path


def test_what_did_not_change_is_not_sent_again(run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch):
    open_mirror(drive, run).copy(save(run, 1), 1, 2, ())
    sent: list[str] = []
    real = mirror._write
    monkeypatch.setattr(mirror, "_write", lambda path, data: (sent.append(path.name), real(path, data))[1])
    second = open_mirror(drive, run)
    log(run, "step", 2)
    second.copy(run.checkpoints / "step-1", 1, 2, ())
    assert sent == [".probe", "log.jsonl", "status.json"]


# ---------------------------------------------------------------- what a drive may do


def test_c19_a_drive_that_damages_files_is_found_by_reading_back(run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch):
    second = open_mirror(drive, run)
    real = mirror._copy_file

    def damaging(source: Path, target: Path, sign: Any) -> str:
        digest = real(source, target, sign)
        if target.name == "optimizer.safetensors":
            flip(target)
        return digest

    monkeypatch.setattr(mirror, "_copy_file", damaging)
    (said,) = second.copy(save(run, 1), 1, 2, ())
    assert "step-1 was not copied" in said and "read back, it is not what was written" in said
    assert os.listdir(drive / "x" / "checkpoints") == []
    monkeypatch.undo()
    assert second.copy(save(run, 2), 2, 2, ()) == [f"{drive / 'x'}: takes checkpoints again, from step-2 on."]
    assert checkpoint.steps_in(drive / "x" / "checkpoints") == [2]


def test_c19_what_is_damaged_here_is_not_copied(run: Run, drive: Path):
    second = open_mirror(drive, run)
    save(run, 1, best=1)
    flip(run.checkpoints / "step-1" / "model.safetensors")
    (said,) = second.copy(run.checkpoints / "step-1", 1, 2, ())
    assert "step-1/model.safetensors: its SHA-256 differs" in said
    (said,) = [line for line in second.copy(save(run, 2, best=1), 2, 2, (1,)) if "again" not in line]
    assert "the checkpoint step-1, the best one or a snapshot, was not copied" in said  # and the new one was
    assert checkpoint.steps_in(drive / "x" / "checkpoints") == [2]


def test_c19_a_full_mirror_is_said_once_and_tried_again(run: Run, drive: Path):
    second = open_mirror(drive, run)
    second.copy(save(run, 1), 1, 2, ())
    for step in (2, 3):
        save(run, step)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores SIGXFSZ, so a write fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            said = second.copy(run.checkpoints / f"step-{step}", step, 2, ())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(said) == (1 if step == 2 else 0)
        assert all("step-2 was not copied: no room left (File too large). The training goes on" in line for line in said)
        assert checkpoint.steps_in(drive / "x" / "checkpoints") == [1] and leftovers(drive) == []
    assert second.copy(save(run, 4), 4, 2, ()) == [f"{drive / 'x'}: takes checkpoints again, from step-4 on."]
    assert checkpoint.steps_in(drive / "x" / "checkpoints") == [4, 1]


def test_c19_a_mirror_that_is_gone_is_not_made_anew_on_the_local_disk(run: Run, drive: Path, tmp_path: Path):
    second = open_mirror(drive, run)
    os.rename(drive, tmp_path / "unplugged")
    (said,) = second.copy(save(run, 1), 1, 2, ())
    assert "it is gone; unmounted?" in said and not drive.exists()
    drive.mkdir()  # what an unmounted drive leaves
    assert second.copy(save(run, 2), 2, 2, ()) == [] and os.listdir(drive) == []
    drive.rmdir()
    os.rename(tmp_path / "unplugged", drive)
    assert "takes checkpoints again, from step-3 on" in second.copy(save(run, 3), 3, 2, ())[0]


@pytest.mark.parametrize(
    ("call", "number", "words"),
    [
        ("mkdir", errno.EROFS, "no permission to write (Read-only file system)"),
        ("fsync", errno.EIO, "Input/output error"),
        ("rename", errno.ESTALE, "it is gone; unmounted? (Stale file handle)"),
        ("replace", errno.EDQUOT, "no room left (Disk quota exceeded)"),
    ],
)
def test_c19_whatever_the_drive_refuses_the_training_goes_on(run, drive, monkeypatch, call, number, words):
    second = open_mirror(drive, run)
    path = save(run, 1)

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    (said,) = second.copy(path, 1, 2, ())
    assert words in said
    assert second.copy(path, 1, 2, ()) == []
    monkeypatch.undo()
    assert len(second.copy(path, 1, 2, ())) == 1
    assert torch.equal(weights(Run(drive / "x"), 1), weights(run, 1)) and leftovers(drive) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_c19_a_drive_without_fsync_is_good_enough(run, drive, monkeypatch, number):
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    path = save(run, 1)
    monkeypatch.setattr(os, "fsync", fail)
    assert open_mirror(drive, run).copy(path, 1, 2, ()) == []
    assert checkpoint.steps_in(drive / "x" / "checkpoints") == [1]


def test_c19_a_drive_that_hangs_holds_the_training_up_once_and_not_for_ever(run, drive, monkeypatch):
    second = open_mirror(drive, run)
    answers, entered = threading.Event(), threading.Event()
    real = mirror._copy_file

    def hanging(source: Path, target: Path, sign: Any) -> str:
        entered.set()
        assert answers.wait(30)
        return real(source, target, sign)

    monkeypatch.setattr(mirror, "PATIENCE_S", 0.2)
    monkeypatch.setattr(mirror, "_copy_file", hanging)
    began = time.monotonic()
    (said,) = second.copy(save(run, 1), 1, 2, ())
    assert entered.is_set() and "it has not answered for 0 s" in said
    assert second.copy(save(run, 2), 2, 2, ()) == [] and time.monotonic() - began < 5
    answers.set()
    thread = second._patience._thread
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()  # what nobody waits for any more ends, and leaves nothing
    assert os.listdir(drive / "x" / "checkpoints") == []
    assert len(second.copy(save(run, 3), 3, 2, ())) == 1
    assert checkpoint.steps_in(drive / "x" / "checkpoints") == [3]


def test_a_bug_is_not_taken_for_a_complaint(run, drive, monkeypatch):
    second = open_mirror(drive, run)

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(mirror, "_fetch", broken)
    with pytest.raises(KeyError, match="a bug"):
        second.copy(save(run, 1), 1, 2, ())


# ---------------------------------------------------------------- which of both


def test_c19_a_lost_machine_goes_on_from_the_mirror(run: Run, drive: Path):
    second = open_mirror(drive, run)
    for step in (1, 2, 3):
        second.copy(save(run, step, best=1), step, 2, (1,))
    kept = {step: weights(run, step) for step in (1, 3)}
    lines = (run.path / "log.jsonl").read_bytes()
    new = lost(run)
    (said,) = mirror.restore(drive, new, typed())
    assert said == f"{new.path}: step 3 taken from the mirror {drive / 'x'}."
    assert checkpoint.steps_in(new.checkpoints) == [3, 1]  # the newest, and the best
    assert all(torch.equal(weights(new, step), tensor) for step, tensor in kept.items())
    assert (new.path / "log.jsonl").read_bytes() == lines
    assert new.best is not None and new.best["step"] == 1 and new.typed == typed() and new.status["step"] == 3
    assert mirror.restore(drive, new, typed()) == []
    assert leftovers(new.path) == []


def test_c19_a_mirror_newer_than_the_disk_is_taken_and_the_local_log_kept(run: Run, drive: Path, tmp_path: Path):
    second = open_mirror(drive, run)
    second.copy(save(run, 1), 1, 2, ())
    shutil.copytree(run.path, tmp_path / "old")
    second.copy(save(run, 2), 2, 2, ())
    wanted = weights(run, 2)
    shutil.rmtree(run.path)
    shutil.copytree(tmp_path / "old", run.path)  # the disk came back as it was some time ago
    lines = (run.path / "log.jsonl").read_bytes()
    assert len(mirror.restore(drive, run, typed())) == 1
    assert torch.equal(weights(run, 2), wanted)
    assert (run.path / "log.jsonl").read_bytes() == lines


def test_c19_a_disk_newer_than_the_mirror_keeps_its_own(run: Run, drive: Path):
    open_mirror(drive, run).copy(save(run, 1), 1, 2, ())
    save(run, 2)
    assert mirror.restore(drive, run, typed()) == []
    assert checkpoint.steps_in(run.checkpoints) == [2, 1]


def test_c19_a_damaged_newest_here_is_replaced_by_the_mirrors(run: Run, drive: Path):
    open_mirror(drive, run).copy(save(run, 2), 2, 2, ())
    wanted = weights(run, 2)
    save(run, 1)
    flip(run.checkpoints / "step-2" / "model.safetensors")
    assert len(mirror.restore(drive, run, typed())) == 1
    assert torch.equal(weights(run, 2), wanted) and leftovers(run.path) == []


def test_c19_half_copied_and_damaged_checkpoints_are_named_and_passed_over(run: Run, drive: Path):
    second = open_mirror(drive, run)
    for step in (5, 6, 7, 8, 9):
        second.copy(save(run, step), step, 9, ())
    there = drive / "x" / "checkpoints"
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        (there / "step-9" / name).unlink()  # the manifest came first
    flip(there / "step-8" / "model.safetensors")
    (there / "step-7" / "manifest.json").unlink()
    (there / "step-6" / "manifest.json").write_bytes((there / "step-6" / "manifest.json").read_bytes()[:40])
    new = lost(run)
    notes = mirror.restore(drive, new, typed())
    assert len(notes) == 4
    assert "step-9/model.safetensors: missing" in notes[0] and "step-8/model.safetensors: its SHA-256 differs" in notes[1]
    assert "step-6/manifest.json: not valid JSON" in notes[2] and "step 5 taken" in notes[3]
    assert checkpoint.steps_in(new.checkpoints) == [5] and leftovers(new.path) == []


def test_c19_a_checkpoint_of_a_newer_version_is_passed_over(run: Run, drive: Path):
    second = open_mirror(drive, run)
    for step in (1, 2):
        second.copy(save(run, step), step, 9, ())
    manifest = drive / "x" / "checkpoints" / "step-2" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {checkpoint.FORMAT}', f'"format": {checkpoint.FORMAT + 1}'))
    new = lost(run)
    assert "written by a newer striate" in mirror.restore(drive, new, typed())[0]
    assert checkpoint.steps_in(new.checkpoints) == [1]


def test_c19_a_mirror_without_any_valid_checkpoint_is_said(run: Run, drive: Path):
    second = open_mirror(drive, run)
    second.copy(save(run, 1), 1, 2, ())
    second.copy(save(run, 2), 2, 2, ())
    for step in (1, 2):
        flip(drive / "x" / "checkpoints" / f"step-{step}" / "state.json")
    shutil.rmtree(run.checkpoints / "step-2")
    (said,) = mirror.restore(drive, run, typed())  # there is one here
    assert "Passed over in the mirror" in said and "step-2/state.json" in said
    new = lost(run)
    with pytest.raises(
        CheckpointError, match=r"no checkpoint of the mirror is usable, and there is none here[^§]*step-2[^§]*step-1"
    ):
        mirror.restore(drive, new, typed())
    assert not (new.path / "recipe.json").exists()


def test_c19_a_best_checkpoint_that_is_damaged_there_is_said(run: Run, drive: Path):
    second = open_mirror(drive, run)
    second.copy(save(run, 1, best=1), 1, 2, (1,))
    second.copy(save(run, 2, best=1), 2, 2, (1,))
    flip(drive / "x" / "checkpoints" / "step-1" / "model.safetensors")
    new = lost(run)
    notes = mirror.restore(drive, new, typed())
    assert "The best checkpoint could not be taken from the mirror" in notes[0] and checkpoint.steps_in(new.checkpoints) == [2]


def test_an_empty_mirror_changes_nothing(run: Run, drive: Path):
    assert mirror.restore(drive, run, typed()) == [] and os.listdir(drive) == []
    open_mirror(drive, run)
    assert mirror.restore(drive, lost(run), typed()) == []


@pytest.mark.parametrize("has_local", [True, False])
def test_c19_a_mirror_that_cannot_be_read_never_means_a_fresh_start(run, drive, monkeypatch, has_local):
    open_mirror(drive, run).copy(save(run, 2), 2, 2, ())
    shutil.rmtree(run.checkpoints / "step-2")
    if has_local:
        save(run, 1)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(mirror, "_copy_file", fail)
    if has_local:
        (said,) = mirror.restore(drive, run, typed())
        assert "the mirror cannot be read (Input/output error); going on with the checkpoints here" in said
    else:
        with pytest.raises(ResourceError, match=r"and there is no checkpoint here\. Bring it back, or leave out --mirror"):
            mirror.restore(drive, run, typed())


# ---------------------------------------------------------------- killed anywhere


def killed_at(place: int, work: Callable[[], object]) -> bool:
    """Does the work in a child process that gets SIGKILL before its `place`-th call that changes a disk, or block.

    Returns whether the work came to its end.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > place:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **named)

            return call

        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
            setattr(os, name, counted(getattr(os, name)))
        mirror._Patience.sign = counted(mirror._Patience.sign)  # type: ignore[method-assign]
        mirror._BLOCK_BYTES = 1500
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in {0, -signal.SIGKILL}
    return ended == 0


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step with its evaluation"])
def test_c19_f6_a_kill_anywhere_in_a_copy_leaves_the_old_or_the_new(run: Run, drive: Path, tmp_path: Path, again: bool):
    second = open_mirror(drive, run)
    for step in (1, 2, 3) if again else (1, 2):
        second.copy(save(run, step, best=1), step, 2, (1,))
    shutil.copytree(drive, tmp_path / "before")
    save(run, 3, best=3)
    found = []
    for place in range(500):
        shutil.rmtree(drive)
        shutil.copytree(tmp_path / "before", drive)
        done = killed_at(place, lambda: open_mirror(drive, run).copy(run.checkpoints / "step-3", 3, 1, (3,)))
        new = identity.make_folder(tmp_path / f"machine-{place}", "x", fresh=False)[0]
        shutil.copytree(drive, tmp_path / f"drive-{place}")
        mirror.restore(tmp_path / f"drive-{place}", new, typed())
        last, best = new.checkpoint("last"), new.best
        assert torch.equal(last.model["weight"], weights(run, last.step)) and new.typed == typed()
        assert best == last.state["best"] and new.checkpoint("best").step == best["step"]  # what is named as the best is there
        found.append((last.step, best["step"]))
        assert open_mirror(drive, run).copy(run.checkpoints / "step-3", 3, 1, (3,)) == []  # and the next copy tidies up
        assert checkpoint.steps_in(drive / "x" / "checkpoints") == [3] and leftovers(drive) == []
        shutil.rmtree(tmp_path / f"drive-{place}")
        if done:
            break
    assert found == sorted(found) and set(found) == {(3 if again else 2, 1), (3, 3)} and place > 30


def test_c19_f6_a_kill_anywhere_in_the_first_opening_leaves_a_run_or_none(run: Run, tmp_path: Path):
    for place in range(200):
        drive = tmp_path / f"drive-{place}"
        done = killed_at(place, lambda drive=drive: open_mirror(drive, run))
        assert mirror.restore(drive, made(tmp_path / f"other-{place}"), typed()) == []
        if (drive / "x" / "recipe.json").exists():
            assert {*mirror.PREPARED} - {"index-val.parquet"} <= set(os.listdir(drive / "x"))
        open_mirror(drive, run)
        assert leftovers(drive) == []
        if done:
            break
    assert place > 15


def test_c19_f6_a_kill_anywhere_in_a_restore_can_be_gone_on_from(run: Run, drive: Path, tmp_path: Path):
    second = open_mirror(drive, run)
    second.copy(save(run, 1, best=1), 1, 2, (1,))
    second.copy(save(run, 2, best=1), 2, 2, (1,))
    lines = (run.path / "log.jsonl").read_bytes()
    states = set()
    for place in range(500):
        new = identity.make_folder(tmp_path / f"machine-{place}", "x", fresh=False)[0]
        done = killed_at(place, lambda new=new: mirror.restore(drive, new, typed()))
        steps = checkpoint.steps_in(new.checkpoints)
        assert all(torch.equal(weights(new, step), weights(run, step)) for step in steps)  # whole, or not there
        states.add(tuple(steps))
        again, there = identity.make_folder(tmp_path / f"machine-{place}", "x", fresh=False)  # never "holds other things"
        assert there or not steps
        mirror.restore(drive, again, typed())
        assert checkpoint.steps_in(new.checkpoints) == [2, 1]
        assert (new.path / "log.jsonl").read_bytes() == lines and new.best is not None and new.best["step"] == 1
        if done:
            break
        shutil.rmtree(tmp_path / f"machine-{place}")
    assert states == {(), (1,), (2, 1)} and place > 30


def test_c19_a_file_name_in_a_foreign_checkpoint_leads_nowhere(run: Run, drive: Path):
    path = save(run, 2, best=1)
    state = json.loads((path / "state.json").read_bytes())
    state["best"]["checkpoint"] = "../../../secret"
    manifest = json.loads((path / "manifest.json").read_bytes())
    data = json.dumps(state).encode()
    (path / "state.json").write_bytes(data)
    manifest["files"]["state.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    open_mirror(drive, run)
    shutil.copytree(path, drive / "x" / "checkpoints" / "step-2")
    with pytest.raises(CheckpointError, match=r"the best checkpoint .*secret.*; it was changed"):
        mirror.restore(drive, lost(run), typed())


# ---------------------------------------------------------------- bad input


def test_g5_a_mirror_that_is_the_run_itself_is_refused(run: Run, tmp_path: Path):
    save(run, 1)
    before = sorted(run.path.rglob("*"))
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    (run.path / "inside").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").symlink_to(run.path)
    for folder, words in (
        (tmp_path / "runs", "is the run itself"),
        (tmp_path / "link", "is the run itself"),
        (tmp_path / "runs" / ".." / "runs", "is the run itself"),
        (tmp_path / "elsewhere", "is the run itself"),
        (run.path, "lie in each other"),
        (run.path / "inside", "lie in each other"),
    ):
        for look in (lambda folder=folder: open_mirror(folder, run), lambda folder=folder: mirror.restore(folder, run, typed())):
            with pytest.raises(UserError, match=words):
                look()
    (run.path / "inside").rmdir()
    assert sorted(run.path.rglob("*")) == before


def test_g5_a_run_within_its_own_mirror_is_refused(tmp_path: Path):
    run = made(tmp_path / "drive" / "x" / "runs")
    with pytest.raises(UserError, match="lie in each other"):
        open_mirror(tmp_path / "drive", run)


def test_g5_another_run_in_the_mirror_is_refused_and_left_alone(run: Run, drive: Path, tmp_path: Path):
    other = made(tmp_path / "other", lr=0.5, began=9.0)
    open_mirror(drive, other).copy(save(other, 7), 7, 2, ())
    before = {path: path.read_bytes() for path in drive.rglob("*") if path.is_file()}
    for look in (lambda: open_mirror(drive, run), lambda: mirror.restore(drive, run, typed())):
        with pytest.raises(UserError, match=r"exists with another recipe[^§]*optim.lr +0.5 → 0.1"):
            look()
    with pytest.raises(UserError, match="a run with other classes"):
        open_mirror(drive, made(tmp_path / "third", classes=("blue", "red"), lr=0.5))
    assert {path: path.read_bytes() for path in drive.rglob("*") if path.is_file()} == before


def test_a_run_started_anew_does_not_overwrite_its_own_mirror(run: Run, drive: Path):
    open_mirror(drive, run).copy(save(run, 7), 7, 2, ())
    new = lost(run)
    shutil.copytree(drive / "x", new.path, ignore=shutil.ignore_patterns("checkpoints"), dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"holds this run's checkpoints already\. Go on with them \(without --new\)"):
        open_mirror(drive, new)


def test_a_difference_that_was_accepted_is_no_other_run(run: Run, drive: Path):
    open_mirror(drive, run).copy(save(run, 7), 7, 2, ())
    longer = typed(epochs=60)
    assert mirror.restore(drive, run, longer, ("budget.epochs",)) == []
    run.write(longer, longer.recipe)  # what the sitting does then
    open_mirror(drive, run)
    assert Run(drive / "x").typed == longer
    new = lost(run)
    assert len(mirror.restore(drive, new, longer)) == 1


def test_g5_a_folder_of_other_things_is_not_written_into(run: Run, drive: Path):
    (drive / "x").mkdir()
    (drive / "x" / "thesis.doc").touch()
    with pytest.raises(UserError, match=r"holds other things \(thesis.doc\) and no run"):
        open_mirror(drive, run)
    (drive / "x" / "thesis.doc").rename(drive / "thesis.doc")
    (drive / "x" / "checkpoints" / "step-3").mkdir(parents=True)
    (drive / "x" / "checkpoints" / "step-3" / "manifest.json").touch()
    with pytest.raises(UserError, match="checkpoints/step-3"):
        open_mirror(drive, run)
    assert mirror.restore(drive, run, typed()) == []  # without its recipe it is no run


def test_g5_places_that_cannot_be_a_mirror_are_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    for folder, words in (
        (tmp_path / "drive" / "deep", "drive does not exist. Mount the drive"),
        (tmp_path / "file", "is a file. Give a folder"),
        (tmp_path / "file" / "deep", "is a file. Give a folder"),
    ):
        with pytest.raises(UserError, match=words):
            open_mirror(folder, run)
    assert open_mirror(tmp_path / "new", run).path == tmp_path / "new" / "x"  # the last part is made
    for number, kind, words in (
        (errno.EROFS, UserError, "no permission to write"),
        (errno.ENOSPC, ResourceError, "no room left"),
        (errno.EIO, ResourceError, "Input/output error"),
    ):

        def fail(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(mirror, "_write", fail)
            with pytest.raises(kind, match=rf"--mirror {tmp_path / 'new'}: {words}.*leave out --mirror"):
                open_mirror(tmp_path / "new", run)


def test_a_damaged_recipe_in_the_mirror_is_named(run: Run, drive: Path):
    open_mirror(drive, run)
    (drive / "x" / "recipe.json").write_text("{")
    for look in (lambda: open_mirror(drive, run), lambda: mirror.restore(drive, run, typed())):
        with pytest.raises(CheckpointError, match=r"recipe\.json: not valid JSON"):
            look()


def test_a_mirror_is_one_object_for_one_run(run: Run, drive: Path):
    """No state outside of it: two runs have two mirrors in one folder."""
    other = made(run.path.parent, "y")
    first, second = open_mirror(drive, run), open_mirror(drive, other)
    assert isinstance(first, Mirror) and (first.path, second.path) == (drive / "x", drive / "y")
    first.copy(save(run, 1), 1, 2, ())
    second.copy(save(other, 2), 2, 2, ())
    assert [checkpoint.steps_in(one.path / "checkpoints") for one in (first, second)] == [[1], [2]]
