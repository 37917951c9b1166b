"""Checkpoints C1 to C9 and C15 to C17: written whole or not at all, and never believed unchecked."""

import builtins
import errno
import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import files
from striate.errors import CheckpointError, ResourceError, UserError
from striate.run import checkpoint
from striate.run.checkpoint import Checkpoint, Tensors

STATE = {"elapsed_s": 1.5, "best": {"step": 1, "top1": 0.25}, "plan": {"total_steps": 9}}


def parts(step: int, side: int = 4) -> dict[str, Tensors]:
    """Tensors of several types and memory orders, other ones for each step."""
    numbers = torch.Generator().manual_seed(step)
    kernel = torch.randn(2, 3, side, side, generator=numbers)
    model = {
        "conv.weight": kernel.to(memory_format=torch.channels_last),
        "bn.num_batches_tracked": torch.tensor(step),
        "half": torch.randn(5, generator=numbers).to(torch.bfloat16),
        "empty": torch.zeros(0, 3),
    }
    return {
        "model": model,
        "optimizer": {"conv.weight/momentum_buffer": kernel * 2},
        "ema": {name: tensor.clone() for name, tensor in model.items()},
    }


def saved(folder: Path, *steps: int) -> Path:
    """The folder of the last of some checkpoints."""
    for step in steps:
        path = checkpoint.save(folder, step, parts(step), STATE).path
    return path


def equal(first: Tensors | None, second: Tensors | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


def same(first: Checkpoint, second: Checkpoint) -> bool:
    tensors = (
        equal(first.model, second.model),
        equal(first.optimizer, second.optimizer),
        equal(first.ema, second.ema),
    )
    return all(tensors) and (first.step, first.state, first.variant) == (second.step, second.state, second.variant)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path):
    found = checkpoint.read(saved(tmp_path, 7))
    wanted = parts(7)
    assert (found.step, found.variant) == (7, None)
    assert equal(found.model, wanted["model"]) and equal(found.ema, wanted["ema"])
    assert equal(found.optimizer, wanted["optimizer"])
    assert {name: found.state[name] for name in STATE} == STATE


def test_saved_says_what_it_took(tmp_path: Path):
    took = checkpoint.save(tmp_path, 1, parts(1), STATE)
    assert took.size_bytes == sum(file.stat().st_size for file in took.path.iterdir())
    assert took.seconds > 0


def test_tied_weights_are_saved_each_with_its_own_memory(tmp_path: Path):
    tied = torch.randn(3, 3)
    path = checkpoint.save(tmp_path, 1, {"model": {"a": tied, "b": tied, "c": tied[1:]}, "optimizer": {}}, STATE).path
    found = checkpoint.read(path).model
    assert torch.equal(found["a"], tied) and torch.equal(found["b"], tied) and torch.equal(found["c"], tied[1:])


# ---------------------------------------------------------------- C1, C2: the disk refuses


def test_c01_disk_full_leaves_the_old_checkpoint_and_no_rubbish(tmp_path: Path):
    saved(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores SIGXFSZ, so a write fails with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ResourceError, match="no room left while saving a checkpoint; older checkpoints are untouched"):
            checkpoint.save(tmp_path, 2, parts(2, side=64), STATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["step-1"]
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 1 and complaints == []


def test_c01_room_is_looked_for_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    size = checkpoint.save(tmp_path, 1, parts(1), STATE).size_bytes
    monkeypatch.setattr(checkpoint, "free_bytes", lambda _: int(0.9 * size))
    monkeypatch.setattr(os, "mkdir", lambda *_: pytest.fail("wrote without room"))
    with pytest.raises(ResourceError, match=r"needs 0 MB \(and a fifth to spare\), 0 MB are free") as caught:
        checkpoint.save(tmp_path, 2, parts(2), STATE)
    assert "Older checkpoints are untouched" in str(caught.value) and caught.value.exit_code == 6
    assert names(tmp_path) == ["step-1"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, ResourceError),
        (errno.EDQUOT, ResourceError),
        (errno.EIO, ResourceError),
        (errno.EROFS, UserError),
        (errno.EACCES, UserError),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "fsync", "rename"])
def test_c02_a_save_that_fails_anywhere_is_no_save(tmp_path, monkeypatch, number, kind, call):
    saved(tmp_path, 1)
    tried = []

    def fail(*_: object, **__: object) -> None:
        tried.append(1)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind) as caught:
        checkpoint.save(tmp_path, 2, parts(2), STATE)
    monkeypatch.undo()
    if call != "mkdir":
        assert len(tried) == 1  # above all an fsync is not tried again as if the first had not failed
    assert str(tmp_path / "step-2") in str(caught.value) and "older checkpoints are untouched" in str(caught.value)
    assert names(tmp_path) == ["step-1"]
    assert checkpoint.newest(tmp_path)[0].step == 1  # type: ignore[union-attr]


# ---------------------------------------------------------------- C3, C4, C6, C7: damaged, half there, renamed


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "manifest.json"])
def test_c03_a_cut_file_is_named_and_the_checkpoint_before_it_taken(tmp_path: Path, name: str, share: float):
    saved(tmp_path, 1)
    file = saved(tmp_path, 2) / name
    os.truncate(file, min(int(share * file.stat().st_size), file.stat().st_size - 3))
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 1
    assert len(complaints) == 1 and str(file) in complaints[0]


def test_c03_when_none_is_left_all_are_named_with_the_way_out(tmp_path: Path):
    for step in (1, 2):
        os.truncate(saved(tmp_path, step) / "model.safetensors", 10)
    with pytest.raises(CheckpointError, match="no checkpoint is usable") as caught:
        checkpoint.newest(tmp_path)
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert text.index("step-2/model") < text.index("step-1/model") and "--new" in text


def test_c04_100_flipped_bits_of_100_are_caught(tmp_path: Path):
    path = saved(tmp_path, 3)
    dice = random.Random(0)
    sizes = {name: (path / name).stat().st_size for name in names(path) if name != "manifest.json"}
    for _ in range(100):
        name = dice.choices(list(sizes), list(sizes.values()))[0]
        whole = (path / name).read_bytes()
        changed = bytearray(whole)
        changed[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        (path / name).write_bytes(changed)
        with pytest.raises(CheckpointError, match=rf"{name}: its SHA-256 differs"):
            checkpoint.read(path)
        (path / name).write_bytes(whole)
    assert checkpoint.read(path).step == 3


def test_c06_a_folder_without_a_manifest_is_no_candidate(tmp_path: Path):
    saved(tmp_path, 1, 2)
    (tmp_path / "step-2" / "manifest.json").unlink()
    (tmp_path / "step-3").mkdir()
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 1 and complaints == []
    assert checkpoint.steps_in(tmp_path) == [1]
    saved(tmp_path, 2)  # and such a folder does not stand in the way of the save that comes there again
    assert checkpoint.newest(tmp_path)[0].step == 2  # type: ignore[union-attr]


def test_c07_nothing_points_to_the_newest_so_nothing_can_dangle(tmp_path: Path):
    saved(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "step-2")
    assert checkpoint.newest(tmp_path)[0].step == 1  # type: ignore[union-attr]
    assert checkpoint.newest(tmp_path / "not there") == (None, [])


@pytest.mark.parametrize("change", ["renamed", "swapped", "unlisted", "foreign name", "no size"])
def test_c06_a_checkpoint_put_together_by_hand_is_refused(tmp_path: Path, change: str):
    path = saved(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    if change == "renamed":
        path = path.rename(tmp_path / "step-5")
    elif change == "swapped":
        (path / "model.safetensors").rename(path / "x")
        (path / "optimizer.safetensors").rename(path / "model.safetensors")
        (path / "x").rename(path / "optimizer.safetensors")
    elif change == "unlisted":
        del manifest["files"]["ema.safetensors"]  # a run without averaged weights would score other ones
    elif change == "foreign name":
        manifest["files"]["../../secret.json"] = manifest["files"]["state.json"]
    else:
        del manifest["files"]["state.json"]["bytes"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        checkpoint.read(path)


# ---------------------------------------------------------------- C5: the order of a save, and every place to die in it


class Calls:
    """The calls of a save that change the disk, recorded; dies with `Killed` before (or in the middle of) one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, die_at: int = -1) -> None:
        self.seen: list[tuple[str, str]] = []
        self.die_at = die_at
        self._open_files: dict[int, str] = {}
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, self._named(name, real))
        real_open, real_fsync = os.open, os.fsync

        def opened(path: Any, *given: Any, **named: Any) -> int:
            handle = real_open(path, *given, **named)
            self._open_files[handle] = os.path.basename(os.fspath(path))
            return handle

        def fsync(handle: int) -> None:
            self.call("fsync", self._open_files.get(handle, "?"))
            real_fsync(handle)

        monkeypatch.setattr(os, "open", opened)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(files, "open", self._file, raising=False)

    def call(self, name: str, what: str) -> None:
        self.seen.append((name, what))
        if len(self.seen) - 1 == self.die_at:
            raise Killed

    def _named(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *given: Any, **named: Any) -> Any:
            self.call(name, os.path.basename(os.fspath(path)))
            return real(path, *given, **named)

        return called

    def _file(self, path: Path, mode: str, buffering: int = -1) -> Any:
        calls = self
        calls.call("open", path.name)
        file = builtins.open(path, mode, buffering=buffering)  # noqa: SIM115 - closed by Recorded
        calls._open_files[file.fileno()] = path.name

        class Recorded:
            def __enter__(self) -> "Recorded":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def fileno(self) -> int:
                return int(file.fileno())

            def write(self, data: memoryview) -> int:
                half = data[: max(1, len(data) // 2)]  # the system may take less than it was given
                done = int(file.write(half))
                calls.call("write", path.name)
                return done

        return Recorded()


class Killed(BaseException):
    """The process ends here."""


def test_c05_data_is_on_the_disk_before_the_name_and_the_name_before_we_go_on(tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    saved(tmp_path, 1)
    seen = calls.seen
    temporary = f"step-1.tmp-{os.getpid()}"
    contents = ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "manifest.json"]
    assert [what for name, what in seen if name == "open"] == contents  # the manifest last
    for name in contents:
        mine = [kind for kind, what in seen if what == name]
        assert mine[0] == "open" and mine[-1] == "fsync" and set(mine[1:-1]) == {"write"}
    synced = [seen.index(("fsync", name)) for name in contents]
    renamed = seen.index(("rename", temporary))
    assert seen.index(("mkdir", temporary)) < min(synced)
    assert max(synced) < seen.index(("fsync", temporary)) < renamed
    assert renamed < len(seen) - 1 and seen[-1] == ("fsync", tmp_path.name)


def test_f6_c05_a_kill_at_any_call_of_a_save_leaves_the_old_or_the_new(tmp_path: Path):
    old = tmp_path / "old"
    saved(old, 1)
    old_one, new_one = checkpoint.read(old / "step-1"), checkpoint.read(saved(tmp_path / "new", 2))
    outcomes = []
    for place in range(1000):
        folder = tmp_path / f"run-{place}"
        shutil.copytree(old, folder)
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch, die_at=place)
            try:
                saved(folder, 2)
                finished = True
            except Killed:
                finished = False
        assert len(calls.seen) > place or finished
        checkpoint.sweep(folder)
        found, complaints = checkpoint.newest(folder)
        assert found is not None and complaints == []
        assert same(found, new_one if found.step == 2 else old_one)
        assert set(names(folder)) <= {"step-1", "step-2"}
        outcomes.append(found.step)
        shutil.rmtree(folder)
        if finished:
            break
    assert len(outcomes) > 25 and set(outcomes) == {1, 2}
    assert outcomes == sorted(outcomes)  # old up to the rename, new from there on


def test_f6_c09_a_kill_at_any_call_of_a_rotation_loses_neither_last_nor_best(tmp_path: Path):
    old = tmp_path / "old"
    saved(old, 1, 2, 3, 4, 5)
    for place in range(1000):
        folder = tmp_path / f"run-{place}"
        shutil.copytree(old, folder)
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, die_at=place)
            try:
                checkpoint.rotate(folder, 5, 2, [1])
                finished = True
            except Killed:
                finished = False
        checkpoint.sweep(folder)
        left = checkpoint.steps_in(folder)
        assert {5, 4, 1} <= set(left)
        for step in left:
            assert checkpoint.read(folder / f"step-{step}").step == step  # what looks whole is whole
        shutil.rmtree(folder)
        if finished:
            break
    assert place > 10 and left == [5, 4, 1]


def test_t02_what_a_killed_save_left_is_swept_and_named(tmp_path: Path):
    saved(tmp_path, 1)
    (tmp_path / "step-2.tmp-123").mkdir()
    (tmp_path / "step-2.tmp-123" / "model.safetensors").write_bytes(b"half")
    assert checkpoint.sweep(tmp_path) == ["step-2.tmp-123"]
    assert names(tmp_path) == ["step-1"]
    assert checkpoint.sweep(tmp_path) == [] == checkpoint.sweep(tmp_path / "not there")


# ---------------------------------------------------------------- C8, C9: order and rotation


def test_c08_steps_are_ordered_by_number_not_by_name_or_clock(tmp_path: Path):
    for step in (100, 9, 10):  # the oldest step is written last
        saved(tmp_path, step)
    (tmp_path / "step-1000.tmp-7").mkdir()
    (tmp_path / "step-abc").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert checkpoint.steps_in(tmp_path) == [100, 10, 9]
    assert checkpoint.newest(tmp_path)[0].step == 100  # type: ignore[union-attr]


def test_c09_the_last_two_and_the_best_stay(tmp_path: Path):
    for step in range(1, 8):
        saved(tmp_path, step)
        assert checkpoint.rotate(tmp_path, step, 2, [min(step, 3)]) == []
    assert checkpoint.steps_in(tmp_path) == [7, 6, 3]
    assert names(tmp_path) == ["step-3", "step-6", "step-7"]


def test_c09_a_delete_that_fails_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved(tmp_path, 1, 2, 3, 4)

    def fail(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", fail)
    complaints = checkpoint.rotate(tmp_path, 4, 2, [])
    assert [f"step-{step}: an old checkpoint could not be deleted (Permission denied)" in text for step, text in
            zip((2, 1), complaints, strict=True)] == [True, True]  # fmt: skip
    assert checkpoint.steps_in(tmp_path) == [4, 3, 2, 1]


def test_c09_damaged_later_ones_do_not_push_out_the_new_ones(tmp_path: Path):
    saved(tmp_path, 5, 10, 20)
    for step in (10, 20):
        os.truncate(tmp_path / f"step-{step}" / "model.safetensors", 3)
    assert checkpoint.newest(tmp_path)[0].step == 5  # type: ignore[union-attr]
    for step in (6, 7, 8):  # the run goes on from 5
        saved(tmp_path, step)
        checkpoint.rotate(tmp_path, step, 2, [5])
        assert checkpoint.newest(tmp_path)[0].step == step  # type: ignore[union-attr]
    saved(tmp_path, 9, 10)  # and the new step 10 takes the place of the damaged one
    checkpoint.rotate(tmp_path, 10, 2, [5])
    assert checkpoint.steps_in(tmp_path) == [20, 10, 9, 5]
    assert checkpoint.newest(tmp_path)[0].step == 10  # type: ignore[union-attr]


# ---------------------------------------------------------------- C15 to C17: formats, parts, devices


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (checkpoint.FORMAT + 1, rf"written by a newer striate \(format {checkpoint.FORMAT + 1}, .* Update striate"),
        (0, "of format 0, older than this striate reads"),
        (None, "not a manifest of format"),
        ("2", "not a manifest of format"),
    ],
)
def test_c15_another_format_is_refused_clearly(tmp_path: Path, written: Any, words: str):
    path = saved(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": written}))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(path)


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_c16_a_missing_part_is_an_error(tmp_path: Path, part: str):
    tensors = parts(1)
    del tensors[part]
    path = checkpoint.save(tmp_path, 1, tensors, STATE).path
    with pytest.raises(CheckpointError, match=rf"{part}\.safetensors missing from the manifest"):
        checkpoint.read(path)


def test_c17_tensors_come_back_on_the_cpu_whatever_they_were_saved_on(tmp_path: Path):
    state = STATE | {"environment": {"device": "cuda:0"}}
    found = checkpoint.read(checkpoint.save(tmp_path, 1, parts(1), state).path)
    tensors = [tensor for part in (found.model, found.optimizer, found.ema or {}) for tensor in part.values()]
    assert len(tensors) == 9 and {tensor.device.type for tensor in tensors} == {"cpu"}


@pytest.mark.gpu
def test_c17_saved_on_a_gpu_loads_on_the_cpu(tmp_path: Path):
    on_gpu = {name: {key: tensor.cuda() for key, tensor in tensors.items()} for name, tensors in parts(1).items()}
    found = checkpoint.read(checkpoint.save(tmp_path, 1, on_gpu, STATE).path)
    assert equal(found.model, parts(1)["model"])


def test_the_variant_travels_with_the_weights(tmp_path: Path):
    path = checkpoint.save(tmp_path, 1, parts(1), STATE, "v1.5").path
    assert checkpoint.read(path).variant == "v1.5"
    from safetensors import safe_open

    for name, variant in (("model", "v1.5"), ("ema", "v1.5"), ("optimizer", None)):
        with safe_open(path / f"{name}.safetensors", framework="pt") as file:
            assert (file.metadata() or {}).get("variant") == variant


# ---------------------------------------------------------------- F3: 2,000 mutated checkpoints


def mutate(path: Path, dice: random.Random) -> None:
    """Changes a checkpoint folder in one place: its bytes, its lengths, its JSON, its names."""
    name = dice.choice(names(path))
    file = path / name
    data = bytearray(file.read_bytes())
    match dice.randrange(8):
        case 0:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        case 1:
            del data[dice.randrange(len(data)) :]
        case 2:
            data += dice.randbytes(dice.randrange(1, 30))
        case 3:
            place = dice.randrange(len(data))
            data[place : place + 8] = dice.randbytes(8)
        case 4:
            place = dice.randrange(len(data))
            del data[place : place + dice.randrange(1, 60)]
        case 5 | 6:
            file = path / dice.choice(["manifest.json", "manifest.json", "state.json"])
            value = json.loads(file.read_bytes())
            table = value["files"] if "files" in value and dice.random() < 0.7 else value
            key = dice.choice(list(table))
            if isinstance(table[key], dict) and dice.random() < 0.5:
                table, key = table[key], dice.choice(list(table[key]))
            junk = [None, -1, 0, 1, 1e9, "", "a" * 64, [], {}, True, {"bytes": 1, "sha256": 2}]
            if dice.random() < 0.3:
                table[dice.choice(["model", "x.json", "../x.json", "state.json", "ema.safetensors"])] = table.pop(key)
            elif dice.random() < 0.5:
                del table[key]
            else:
                table[key] = dice.choice(junk)
            data = bytearray(json.dumps(value).encode())
        case 7:
            other = path / dice.choice(names(path))
            other_data = other.read_bytes()
            other.write_bytes(data)
            data = bytearray(other_data)
    file.write_bytes(data)
    if dice.random() < 0.05:
        (path / dice.choice(names(path))).unlink()


def test_f3_2000_mutated_checkpoints_load_bit_equal_or_not_at_all(tmp_path: Path):
    path = saved(tmp_path, 1)
    wanted = checkpoint.read(path)
    whole = {name: (path / name).read_bytes() for name in names(path)}
    dice = random.Random(0)
    refused = 0
    for _ in range(2000):
        mutate(path, dice)
        try:
            found = checkpoint.read(path)
        except CheckpointError as error:
            refused += 1
            assert str(path) in str(error)
        else:
            assert same(found, wanted)
        for name in names(path):
            if name not in whole:
                (path / name).unlink()
        for name, data in whole.items():
            (path / name).write_bytes(data)
    assert 1700 < refused < 2000  # the rest changed nothing that is read: spaces, the step in the manifest


def test_c02_the_old_one_has_its_name_back_when_the_new_one_cannot_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved(tmp_path, 4)
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if ".tmp-" in str(source) and "aside" not in str(source):
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(ResourceError):
        saved(tmp_path, 4)
    assert checkpoint.steps_in(tmp_path) == [4] and names(tmp_path) == ["step-4"]
