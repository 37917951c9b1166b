"""Several processes on one training, as torchrun starts them: the same order, the same steps, one outcome.

Most tests share three processes that stay alive (`member`); those that kill one start torchrun itself.
"""

from __future__ import annotations

import functools
import json
import operator
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from striate.data import synthetic
from striate.data.order import Order
from striate.files import read_json
from striate.run import checkpoint

HERE = Path(__file__).parent
CHANGES: dict[str, Any] = {
    "model.name": "jobs:plain",
    "data.size_px": 32,
    "data.shrink_px": 40,
    "data.resident": "no",
    "optim.lr": 0.05,
    "optim.batch_size": 12,
    "optim.ema": 0.9,
    "optim.precision": "fp32",
    "budget.epochs": 2.0,
    "budget.log_every": 1,
}
Answers = list[dict[str, Any]]
Ask = Callable[..., Answers]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    source = HERE.parent.parent / "src"
    path = os.pathsep.join(filter(None, (str(HERE), str(source), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 classes: 40 photos to train on, 16 to validate; 12 does not divide 40, and 3 processes do not divide 16."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    synthetic.make(folder, layout="folder", classes=4, per_class=10, val_per_class=4)
    return folder


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """ask(world, function, **arguments): the answers of that many processes, by rank."""
    cache = str(tmp_path_factory.mktemp("cache"))
    members = [
        subprocess.Popen(
            [sys.executable, str(HERE / "member.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(STRIATE_CACHE=cache),
            text=True,
        )
        for _ in range(3)
    ]
    for member in members:
        assert member.stdout is not None and member.stdout.readline() == "ready\n"

    def asked(world: int, function: str, **arguments: Any) -> Answers:
        port = str(free_port())
        for rank, member in enumerate(members[:world]):
            place = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
            variables = {name: str(value) for name, value in place.items()}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            assert member.stdin is not None
            member.stdin.write(json.dumps({"function": function, "arguments": arguments, "environment": variables}) + "\n")
            member.stdin.flush()
        return [json.loads(member.stdout.readline()) for member in members[:world] if member.stdout is not None]

    yield asked
    for member in members:
        member.communicate(timeout=30)


def trained(answers: Answers) -> list[dict[str, Any]]:
    """What the processes of a training returned; fails with what one of them said."""
    assert [answer["code"] for answer in answers] == [0] * len(answers), answers[0]["words"] or answers[-1]["words"]
    return [answer["value"] for answer in answers]


def last(run: Path) -> checkpoint.Checkpoint:
    found = checkpoint.newest(run / "checkpoints")[0]
    assert found is not None
    return found


def largest_difference(one: Path, other: Path) -> float:
    ours, theirs = last(one).model, last(other).model
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)


# ---------------------------------------------------------------- one training, whatever the number of processes


def test_p03_p04_order_and_weights_are_those_of_one_process(ask: Ask, photos: Path, tmp_path: Path) -> None:
    ends = {}
    for world in (1, 2, 3):
        found = trained(ask(world, "train", data=str(photos), out=str(tmp_path), name=f"w{world}", changes=CHANGES))
        together = [functools.reduce(operator.iadd, (one["rows"][step] for one in found), []) for step in range(found[0]["step"])]
        expected = [Order(0, 40, 12).step(step).rows_b.tolist() for step in range(6)]
        assert together == expected
        assert all(one["losses"] == found[0]["losses"] for one in found)
        ends[world] = found[0]
    for world in (2, 3):
        assert largest_difference(tmp_path / "w1", tmp_path / f"w{world}") < 1e-5
        assert ends[world]["evaluations"] == ends[1]["evaluations"]
        assert ends[world]["used"] == ends[1]["used"]
        np.testing.assert_allclose(ends[world]["losses"], ends[1]["losses"], atol=1e-5)


def test_p04_the_number_of_processes_may_change_at_a_resume(ask: Ask, photos: Path, tmp_path: Path) -> None:
    job = {"data": str(photos), "out": str(tmp_path), "changes": CHANGES}
    trained(ask(1, "train", name="whole", **job))
    first = trained(ask(1, "train", name="parts", stop_at=[0, 2], **job))[0]
    second = trained(ask(2, "train", name="parts", stop_at=[0, 4], **job))
    third = trained(ask(3, "train", name="parts", **job))
    assert [first["step"], second[0]["step"], third[0]["step"]] == [2, 4, 6]
    assert [first["exit_code"], second[0]["exit_code"], third[0]["exit_code"]] == [75, 75, 0]
    seen = first["rows"][:2]
    for found, steps in ((second, 2), (third, 2)):
        seen += [functools.reduce(operator.iadd, (one["rows"][step] for one in found), []) for step in range(steps)]
    assert seen == [Order(0, 40, 12).step(step).rows_b.tolist() for step in range(6)]
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") < 1e-5


def test_resuming_with_three_processes_is_bit_for_bit_the_uninterrupted_run(ask: Ask, photos: Path, tmp_path: Path) -> None:
    changes = CHANGES | {"model.name": "jobs:normalised", "optim.accumulate": 2, "augment.mixup": 0.2, "augment.cutmix": 1.0}
    job = {"data": str(photos), "out": str(tmp_path), "changes": changes}
    whole = trained(ask(3, "train", name="whole", **job))
    trained(ask(3, "train", name="parts", stop_at=[0, 1], **job))
    trained(ask(3, "train", name="parts", stop_at=[2, 4], **job))
    end = trained(ask(3, "train", name="parts", **job))
    assert end[0]["evaluations"][-1] == whole[0]["evaluations"][-1]
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") == 0.0
    assert all(one["losses"] == end[0]["losses"] for one in end)


def test_frozen_layers_are_the_weights_of_the_file_in_all_processes(ask: Ask, photos: Path, tmp_path: Path) -> None:
    """A third of a statistic three times is not always that statistic: frozen ones must not be averaged."""
    torch.manual_seed(5)
    theirs = runpy.run_path(str(HERE / "jobs.py"))["normalised"](7).state_dict()
    theirs["1.running_mean"].uniform_(0.5, 1.5)
    theirs["1.running_var"].uniform_(0.5, 1.5)
    save_file(theirs, tmp_path / "theirs.safetensors")
    changes = CHANGES | {"model.name": "jobs:normalised", "model.weights": str(tmp_path / "theirs.safetensors")}
    changes |= {"optim.freeze": "until:2", "optim.head_lr": 10.0}
    job = {"data": str(photos), "out": str(tmp_path), "changes": changes}
    trained(ask(3, "train", name="whole", **job))
    trained(ask(3, "train", name="parts", stop_at=[1, 3], **job))
    (tmp_path / "theirs.safetensors").unlink()
    trained(ask(3, "train", name="parts", **job))
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") == 0.0
    end = last(tmp_path / "whole")
    assert end.ema is not None
    for name in ("0.weight", "1.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(end.model[name], theirs[name]) and torch.equal(end.ema[name], theirs[name]), name
    assert not torch.equal(end.model["6.weight"], end.ema["6.weight"])


def test_dropout_and_batch_norm_are_the_same_for_the_same_micro_batches(ask: Ask, photos: Path, tmp_path: Path) -> None:
    """Three processes of one micro-batch each compute what one process computes in three."""
    changes = CHANGES | {"model.name": "jobs:normalised", "optim.ema": 0.0, "budget.epochs": None, "budget.steps": 1}
    job = {"data": str(photos), "out": str(tmp_path)}
    one = trained(ask(1, "train", name="one", changes=changes | {"optim.accumulate": 3}, **job))
    three = trained(ask(3, "train", name="three", changes=changes | {"optim.accumulate": 1}, **job))
    np.testing.assert_allclose(one[0]["losses"], three[0]["losses"], rtol=1e-6)
    ours, theirs = last(tmp_path / "one").model, last(tmp_path / "three").model
    for name in ("0.weight", "1.weight", "6.weight"):
        np.testing.assert_allclose(ours[name].numpy(), theirs[name].numpy(), atol=1e-6)


# ---------------------------------------------------------------- evaluation


def test_e01_p05_every_image_is_scored_once_whatever_the_processes(ask: Ask, photos: Path, tmp_path: Path) -> None:
    job = {"data": str(photos), "changes": CHANGES, "sizes": [1, 2, 12, 13, 14, 15, 16], "batch_sizes": [1, 2, 3, 4, 5, 6]}
    alone = trained(ask(1, "score", out=str(tmp_path / "1"), **job))[0]
    assert all(used == size for size, _, used, _, _ in alone)
    for size in job["sizes"]:
        assert len({right for one, _, _, right, _ in alone if one == size}) == 1
    for world in (2, 3):
        for found in trained(ask(world, "score", out=str(tmp_path / str(world)), **job)):
            assert [row[:4] for row in found] == [row[:4] for row in alone]
            np.testing.assert_allclose([row[4] for row in found], [row[4] for row in alone], atol=1e-6)


# ---------------------------------------------------------------- signals, faults


def test_p02_a_signal_to_one_process_saves_once_and_ends_all_with_75(ask: Ask, photos: Path, tmp_path: Path) -> None:
    found = trained(ask(3, "train", data=str(photos), out=str(tmp_path), name="run", changes=CHANGES, stop_at=[1, 2]))
    assert {(one["exit_code"], one["step"], one["reason"]) for one in found} == {(75, 2, "SIGTERM")}
    assert [one["saves"] for one in found] == [1, 0, 0]
    assert checkpoint.steps_in(tmp_path / "run" / "checkpoints") == [2]


def test_p06_other_checkpoints_on_another_machine_are_refused(ask: Ask, photos: Path, tmp_path: Path) -> None:
    job = {"data": str(photos), "changes": CHANGES, "name": "run"}
    trained(ask(1, "train", out=str(tmp_path / "0"), stop_at=[0, 2], **job))
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    again = trained(ask(2, "train", out=str(tmp_path), own_folder=True, stop_at=[0, 3], **job))
    assert again[0]["step"] == 3  # a copy on another disk is the same checkpoint
    found = ask(2, "train", out=str(tmp_path), own_folder=True, **job)
    assert [answer["code"] for answer in found] == [4, 4]  # the first process alone wrote step 3
    assert "not the checkpoint that the first process goes on from" in found[1]["words"]


def test_p07_a_full_disk_at_the_first_process_stops_all_with_6(ask: Ask, photos: Path, tmp_path: Path) -> None:
    changes = CHANGES | {"budget.save_every_s": 1e-9}
    found = ask(3, "train", data=str(photos), out=str(tmp_path), name="run", changes=changes, full_at=3)
    assert [answer["code"] for answer in found] == [6, 6, 6]
    assert all("a checkpoint needs" in answer["words"] for answer in found)
    assert checkpoint.newest(tmp_path / "run" / "checkpoints")[0] is not None


def test_p10_a_bad_number_in_one_process_skips_the_step_in_all(ask: Ask, photos: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "photos"
    synthetic.make(spoilt, layout="folder", classes=4, per_class=10, val_per_class=4)
    key = next(path for path in sorted((spoilt / "train").rglob("*")) if path.is_file())
    Image.new("RGB", (64, 64), "white").save(key)
    changes = CHANGES | {"model.name": "jobs:spoilt", "augment.crop": "resize"}
    found = trained(ask(3, "train", data=str(spoilt), out=str(tmp_path), name="run", changes=changes))
    skips = found[0]["skips"]
    assert len(skips) in (1, 2)  # once an epoch, unless it is in the short batch that is dropped
    assert all(one["skips"] == skips for one in found)
    assert all(one["losses"] == found[0]["losses"] and len(one["losses"]) == 6 - len(skips) for one in found)
    assert key.name in skips[0]["keys"][0]
    assert skips[0]["first_bad_layer"] == "0"
    state = last(tmp_path / "run")
    assert state.state["skipped"] == len(skips)
    assert all(bool(tensor.isfinite().all()) for tensor in state.model.values())


@pytest.mark.parametrize("kind", ["UserError", "DataError", "CheckpointError", "NonFiniteError", "ResourceError"])
def test_an_error_of_one_process_is_an_error_of_all_with_its_exit_code(ask: Ask, kind: str) -> None:
    from striate import errors

    found = ask(3, "fail", which=1, kind=kind)
    assert [answer["code"] for answer in found] == [getattr(errors, kind).exit_code] * 3
    assert [answer["words"].startswith("Process 1: ") for answer in found] == [True, False, True]


def test_more_processes_than_images_of_a_batch(ask: Ask, photos: Path, tmp_path: Path) -> None:
    found = ask(3, "train", data=str(photos), out=str(tmp_path), name="run", changes=CHANGES | {"optim.batch_size": 2})
    assert [answer["code"] for answer in found] == [2, 2, 2]
    assert "--batch-size 2: 3 processes need at least one image each" in found[0]["words"]


def test_p05_batches_of_one_image_for_each_process(ask: Ask, photos: Path, tmp_path: Path) -> None:
    job = {"data": str(photos), "out": str(tmp_path), "changes": CHANGES | {"optim.batch_size": 3}}
    trained(ask(1, "train", name="one", **job))
    found = trained(ask(3, "train", name="three", **job))
    assert all(len(rows) == 1 for one in found for rows in one["rows"])
    assert largest_difference(tmp_path / "one", tmp_path / "three") < 1e-5


def test_processes_come_together_and_tell_each_other(ask: Ask) -> None:
    answers = ask(2, "join")
    assert [answer["value"] for answer in answers] == [[0, 2, 1, 0], [1, 2, 1, 0]]


def test_other_data_in_another_process_are_refused_in_all(ask: Ask, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "photos"
    shutil.copytree(photos, other)
    next(path for path in sorted((other / "train").rglob("*")) if path.is_file()).unlink()
    found = ask(2, "train", data=str(photos), out=str(tmp_path), name="run", changes=CHANGES, data_of_others=str(other))
    assert [answer["code"] for answer in found] == [3, 3]
    assert all("the processes do not see the same images" in answer["words"] for answer in found)


# ---------------------------------------------------------------- torchrun itself


def torchrun(processes: int, *arguments: str, home: Path, restarts: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["--max-restarts", str(restarts), "-m", "striate", *arguments]
    variables = environment(STRIATE_CACHE=str(home / "cache"))
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home)


def typed(photos: Path, home: Path, name: str, steps: int, model: str = "jobs:normalised") -> list[str]:
    words = ["train", str(photos), "--model", model, "--img-size", "32", "--data.shrink-px", "40", "--precision", "fp32"]
    words += ["--steps", str(steps), "--batch-size", "8", "--budget.log-every", "1", "--budget.save-every-s", "0.2"]
    return [*words, "--budget.evaluate-epochs", "1000", "--out", str(home), "--name", name, "--workers", "0", "--device", "cpu"]


def steps_logged(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_text().count('"kind": "step"') if log.exists() else 0


def members_of(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun started, by rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    found = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        rank = next((text for text in variables if text.startswith(b"RANK=")), None)
        if rank is not None:
            found[int(rank.partition(b"=")[2])] = int(child)
    return [found[rank] for rank in sorted(found)]


@pytest.mark.slow
def test_p01_p09_a_killed_process_ends_all_and_a_restart_goes_on_to_the_same_end(ask: Ask, photos: Path, tmp_path: Path) -> None:
    steps = 400
    whole = ask(2, "command", words=typed(photos, tmp_path, "whole", steps))
    assert [answer["value"] for answer in whole] == [0, 0], whole[0]["words"]

    # P1: without restarts all end within half a minute, and the launcher names the process that was killed.
    launcher = torchrun(2, *typed(photos, tmp_path, "run", steps), home=tmp_path)
    wait_for(lambda: steps_logged(tmp_path / "run") > 20, launcher)
    os.kill(members_of(launcher)[1], signal.SIGKILL)
    killed_at = time.monotonic()
    told, _ = launcher.communicate(timeout=60)
    assert time.monotonic() - killed_at < 30
    assert launcher.returncode != 0
    assert re.search(r"rank\s*: 1", told)
    assert "Signal 9 (SIGKILL)" in told

    # P9: with restarts the same training goes on by itself after a kill of the first process.
    before = steps_logged(tmp_path / "run")
    launcher = torchrun(2, *typed(photos, tmp_path, "run", steps), home=tmp_path, restarts=2)
    wait_for(lambda: steps_logged(tmp_path / "run") > before + 20, launcher)
    os.kill(members_of(launcher)[0], signal.SIGKILL)
    told, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, told
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"kind": "resume"') >= 2
    assert read_json(tmp_path / "run" / "status.json")["state"] == "done"
    assert largest_difference(tmp_path / "whole", tmp_path / "run") == 0.0
    ours, theirs = last(tmp_path / "whole"), last(tmp_path / "run")
    assert ours.optimizer.keys() == theirs.optimizer.keys()
    assert all(bool((ours.optimizer[name] == theirs.optimizer[name]).all()) for name in ours.optimizer)
    assert ours.step == theirs.step == steps


def wait_for(holds: Callable[[], bool], launcher: subprocess.Popen[str], limit_s: float = 120) -> None:
    began = time.monotonic()
    while not holds():
        assert launcher.poll() is None, launcher.communicate()[0]
        assert time.monotonic() - began < limit_s
        time.sleep(0.05)


def test_p08_a_port_in_use_or_a_missing_process_is_said_within_half_a_minute(photos: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        command = [sys.executable, "-m", "striate", *typed(photos, tmp_path, "run", 5)]
        began = time.monotonic()
        found = subprocess.run(command, env=environment(**place), capture_output=True, text=True, timeout=60)
    assert time.monotonic() - began < 45
    assert found.returncode == 6
    assert "could not join the others" in found.stderr
    assert "port" in found.stderr
    assert not (tmp_path / "run").exists()
