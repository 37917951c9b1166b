"""Kills trainings with SIGKILL again and again, and compares their end with that of a training left alone.

    python benchmarks/kill_campaign.py --kills 60 [--data-kind all] [--torchrun 12] [--seed 0] [--keep DIR] [--write FILE.json]

Each sitting is a real `striate train` in a process group of its own, on JPEG files (a part of Tiny ImageNet where
STRIATE_TEST_DATA names it, else rendered ones) or on a pack that `striate data pack` made of them, with everything on that
has or could have state: random crops, flips, turns, colours, TrivialAugment, erasing, MixUp and CutMix, class-balanced
sampling, dropout, AdamW, a plateau schedule, EMA, a mirror, TensorBoard where it is installed, and three checkpoints a
second, written beside the training. Kills fall at random moments of the training, into saves (as soon as a temporary folder
is seen), and before the first step. The workers change from sitting to sitting. The kills are shared by three runs, one that
decodes each file anew, one that decodes the parts that it needs from the pack, and one that keeps the files' pixels in
memory (--data-kind names one of them), and, with --torchrun, by another of two processes. Each must end as the run like it
that was never killed, from memory as from files, in

- every tensor of the last checkpoint (weights, BatchNorm's statistics, optimiser, EMA), by SHA-256,
- its JSON state but for the elapsed time, and the records of steps and evaluations in the log,
- the pixels of the training batch of every step, each time that the step was run, by hash: order and augmentation.

Exit code 0 only when all of that is equal and no byte of a finished checkpoint was lost.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import datetime
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEPS_PER_KILL = 80  # a run can then take all its kills before it is finished
BATCH_SIZE = 16
SAVE_EVERY_S = 0.3
WORKERS = ("0", "2", "processes:2")
KINDS = ("originals", "pack", "resident")
SITTING_LIMIT_S = 300.0

# Writes a hash of each training batch, with the step as BatchNorm's counter (a part of the checkpoint) has it.
NETWORK = """
import hashlib
import os

import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.3)
        self.fc1 = nn.Linear(32 * 8 * 8, 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, images):
        if self.training:
            self.record(images)
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.fc1(self.dropout(x.flatten(1))))
        return self.fc2(self.dropout(x))

    def record(self, images):
        digest = hashlib.blake2b(images.detach().contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        path = os.environ["CAMPAIGN_BATCHES"] + os.environ.get("RANK", "0")
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{int(self.bn1.num_batches_tracked):08d} {digest}\\n".encode())
        os.close(handle)


def network(num_classes):
    return Network(num_classes)
"""
_LINE_BYTES = 8 + 1 + 32 + 1


# ---------------------------------------------------------------- what is found


@dataclass(frozen=True)
class Kill:
    """One kill.

    aim: prepare (the run folder is half made), start, random or save. inside: what it fell into, by what it left behind.
    step: steps that had begun, 0 before the first of the sitting. resumed: the step that the run then went on from.
    lost_bytes: of finished checkpoints later than that.
    """

    run: str
    aim: str
    inside: str
    workers: str
    step: int
    resumed: int
    lost_bytes: int


@dataclass
class Result:
    """What a campaign found. differences: what was not equal to the run left alone, in words; empty is good."""

    kills: list[Kill] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    steps: int = 0
    batches_compared: int = 0
    seconds: float = 0.0

    @property
    def lost_bytes(self) -> int:
        """Bytes of finished checkpoints that were lost; must be 0."""
        return sum(kill.lost_bytes for kill in self.kills)

    @property
    def is_good(self) -> bool:
        """Whether the ends are equal and nothing was lost."""
        return not self.differences and self.lost_bytes == 0

    def numbers(self) -> dict[str, Any]:
        """The figures to report."""
        replayed = [max(0, kill.step - kill.resumed) for kill in self.kills]
        inside = [kill.inside for kill in self.kills]
        return {
            "kills": len(self.kills),
            "kills_inside_a_save": inside.count("save"),
            "kills_in_training": inside.count("training"),
            "kills_before_the_first_step": inside.count("start"),
            "steps": self.steps,
            "steps_replayed_max": max(replayed, default=0),
            "steps_replayed_mean": round(statistics.mean(replayed), 2) if replayed else 0.0,
            "bytes_of_finished_checkpoints_lost": self.lost_bytes,
            "batches_compared": self.batches_compared,
            "equal": not self.differences,
            "differences": self.differences,
            "seconds": round(self.seconds, 1),
        }


# ---------------------------------------------------------------- one run, with its sittings


@dataclass
class Training:
    """One run of the campaign: where it lies and how its next sitting is started. kind: of KINDS."""

    home: Path
    name: str
    kind: str
    steps: int
    processes: int = 1
    sittings: int = 0

    @property
    def data(self) -> Path:
        """What it is trained on."""
        return self.home / ("pack" if self.kind == "pack" else "images")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.home / "runs" / self.name

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints are."""
        return self.folder / "checkpoints"

    def batches_file(self, sitting: int, rank: int = 0) -> Path:
        """Hashes of the training batches of one sitting, as one of its processes saw them."""
        return self.home / f"{self.name}-{sitting}.batches{rank}"

    def start(self, workers: str) -> subprocess.Popen[bytes]:
        """Starts a sitting in a process group of its own."""
        self.sittings += 1
        command = [sys.executable, "-m"]
        if self.processes > 1:
            command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes), "-m"]
        command += ["striate", "train", str(self.data), "--recipe", "small"]
        command += ["--model", "campaign_network:network", "--img-size", "32", "--data.normalise", "imagenet"]
        # From a pack only a part of an image is decoded, where images are not shrunk before they are cut.
        command += ["--data.shrink-px", "0" if self.kind == "pack" else "40", "--precision", "fp32"]
        command += ["--data.resident", "yes" if self.kind == "resident" else "no"]
        command += ["--batch-size", str(BATCH_SIZE), "--steps", str(self.steps), "--optim.warmup-epochs", "0"]
        command += ["--budget.save-every-s", str(SAVE_EVERY_S), "--budget.evaluate-epochs", "6", "--budget.log-every", "5"]
        command += ["--augment.rotate", "10", "--augment.brightness", "0.3", "--augment.hue", "0.1", "--augment.lighting", "0.1"]
        command += ["--augment.policy", "trivialaugment", "--augment.erase", "0.3", "--augment.mixup", "0.2"]
        command += ["--augment.cutmix", "1.0", "--augment.mix-share", "0.7", "--data.sampling", "classes"]
        command += ["--schedule", "plateau", "--optim.plateau", "2", "--optim.drop-factor", "0.7"]
        command += ["--mirror", str(self.home / "mirror")]
        command += ["--track", "tensorboard"] if importlib.util.find_spec("tensorboard") else []
        command += ["--out", str(self.home / "runs"), "--name", self.name, "--workers", workers, "--device", "cpu"]
        command += ["--no-doctor"]  # its looks are forward passes, and the network would record their batches as well
        source = Path(__file__).resolve().parent.parent / "src"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.home), str(source), os.environ.get("PYTHONPATH")))),
            "CAMPAIGN_BATCHES": str(self.batches_file(self.sittings)).removesuffix("0"),
            "STRIATE_CACHE": str(self.home / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        with open(self.home / f"{self.name}.out", "ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)

    def steps_begun(self) -> int:
        """Steps that the sitting under way has begun, counted over all sittings; 0 before its first."""
        try:
            with open(self.batches_file(self.sittings), "rb") as file:
                file.seek(-_LINE_BYTES, os.SEEK_END)
                return int(file.read(8)) + 1
        except OSError:
            return 0

    def finished_checkpoints(self) -> dict[int, int]:
        """{step: bytes} of the checkpoints that lie there under their final name."""
        found = {}
        for name in self.names():
            if match := re.fullmatch(r"step-(\d+)", name):
                files = [path.stat().st_size for path in (self.checkpoints / name).iterdir()]
                found[int(match[1])] = sum(files)
        return found

    def is_saving(self) -> bool:
        """Whether a save is under way, or was cut short."""
        return any(".tmp-" in name and not name.endswith("gone") for name in self.names())

    def names(self) -> list[str]:
        """What lies among the checkpoints."""
        try:
            return os.listdir(self.checkpoints)
        except FileNotFoundError:
            return []

    def finish(self, workers: str) -> None:
        """One sitting that is left alone. Raises RuntimeError unless it ends well."""
        process = self.start(workers)
        try:
            code = process.wait(SITTING_LIMIT_S)
        finally:
            end(process)
        if code != 0:
            raise RuntimeError(f"{self.name}: a sitting ended with exit code {code}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines that the run printed."""
        return "\n".join((self.home / f"{self.name}.out").read_text(errors="replace").splitlines()[-25:])


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the process and all that it started, in whatever group, and waits until they are gone."""
    doomed = [process.pid, *offspring(process.pid)]
    for one in doomed:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(one, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{one}/stat").exists() and " Z " not in _stat(one) for one in doomed):
        time.sleep(0.01)


def offspring(process: int) -> list[int]:
    """The processes that a process started, and theirs (torchrun's are in sessions of their own)."""
    try:
        children = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *offspring(child))]


def _stat(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return " Z "


def sit_and_kill(training: Training, aim: str, workers: str, dice: random.Random, most_steps: int) -> Kill:
    """One sitting, killed: some time after its start, some time after its first step, or in one of its saves.

    most_steps: killed at once when it gets so far. The Kill lacks what only the next sitting can tell.
    Raises RuntimeError when the sitting ends by itself.
    """
    after_start_s, after_step_s, after_seen_s = dice.uniform(0.5, 4.0), dice.uniform(0.0, 1.5), dice.uniform(0.0, 0.004)
    saves = dice.randint(0, 2)
    process = training.start(workers)
    began, first_step_at, was_saving, begun = time.monotonic(), None, False, 0
    try:
        while True:
            now = time.monotonic()
            if process.poll() is not None:
                raise RuntimeError(f"{training.name}: a sitting ended with {process.returncode} unasked:\n{training.tail()}")
            if now - began > SITTING_LIMIT_S:
                raise RuntimeError(f"{training.name}: a sitting takes too long:\n{training.tail()}")
            begun = training.steps_begun()
            if begun and first_step_at is None:
                first_step_at = now
            if aim == "start" and (now - began >= after_start_s or begun):
                break
            if aim == "prepare" and (training.folder / "classes.json").exists():
                break
            if aim == "random" and first_step_at is not None and now - first_step_at >= after_step_s:
                break
            is_saving = first_step_at is not None and training.is_saving()
            if aim == "save" and is_saving:
                if saves == 0:
                    time.sleep(after_seen_s)
                    everyone = [process.pid, *offspring(process.pid)]
                    signalled(everyone, signal.SIGSTOP)  # so that the save cannot end between the look and the kill
                    if training.is_saving():
                        break
                    signalled(everyone, signal.SIGCONT)
                    after_seen_s = 0.0  # too late for this one: the next at once
                saves -= not was_saving
            was_saving = is_saving
            if begun >= most_steps:
                break
            time.sleep(0.001 if is_saving or aim == "save" else 0.004)
    finally:
        end(process)
    begun = training.steps_begun()
    # Before its first step a sitting sweeps; what lies there until then is an earlier kill's.
    inside = "start" if not begun else ("save" if training.is_saving() else "training")
    return Kill(training.name, aim, inside, workers, begun, 0, 0)


def signalled(processes: list[int], number: signal.Signals) -> None:
    """Sends a signal to those that are still there."""
    for one in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, number)


def chain(training: Training, kills: int, seed: int) -> list[Kill]:
    """All sittings of one run: `kills` that are killed, and one to its end."""
    dice = random.Random(f"{training.name} {seed}")
    found: list[Kill] = []
    finished: list[dict[int, int]] = []
    for number in range(kills):
        aim = dice.choices(("start", "random", "save"), (1, 4, 4))[0]
        if number == 0:  # one kill that leaves half a run folder, whatever the dice say
            aim = "save" if training.kind == "resident" else "prepare"
        found.append(sit_and_kill(training, aim, dice.choice(WORKERS), dice, (number + 1) * STEPS_PER_KILL))
        finished.append(training.finished_checkpoints())
    training.finish(dice.choice(WORKERS))
    return [_settled(training, kill, finished[number], number + 2) for number, kill in enumerate(found)]


def _settled(training: Training, kill: Kill, finished: dict[int, int], sitting: int) -> Kill:
    """The kill with what came after it: from which step the run went on, and which checkpoints were not used.

    finished: {step: bytes} of the finished checkpoints that the kill left. sitting: the first one after the kill.
    """
    firsts = (next(_lines(training.batches_file(number)), None) for number in range(sitting, training.sittings + 1))
    resumed = next(first[0] for first in firsts if first is not None)
    lost = sum(size for step, size in finished.items() if step > resumed)
    return dataclasses.replace(kill, resumed=resumed, lost_bytes=lost)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(step, hash) of each training batch that a sitting began, steps from 0."""
    if path.exists():
        for line in path.read_text().splitlines():
            if len(line) == _LINE_BYTES - 1:
                step, digest = line.split()
                yield int(step), digest


# ---------------------------------------------------------------- comparing


def batches(training: Training) -> tuple[dict[tuple[int, int], str], int, list[str]]:
    """The hash of each step's batch, how many were recorded in all, and the steps that were not the same each time.

    The hashes are by (step, process).
    """
    found: dict[tuple[int, int], str] = {}
    count, differences = 0, []
    for sitting in range(1, training.sittings + 1):
        for rank in range(training.processes):
            for step, digest in _lines(training.batches_file(sitting, rank)):
                count += 1
                if found.setdefault((step, rank), digest) != digest:
                    differences.append(f"{training.name}: step {step} of sitting {sitting} saw another batch than before")
    return found, count, differences


def mirrored(training: Training) -> Iterator[str]:
    """What is not the same in the mirror's newest checkpoint."""
    there = training.home / "mirror" / training.name / "checkpoints"
    for name in (f"step-{training.steps}/{file}" for file in ("manifest.json", "model.safetensors", "state.json")):
        if not (there / name).is_file() or (there / name).read_bytes() != (training.checkpoints / name).read_bytes():
            yield f"{training.name}: the mirror's {name}"


def compare(reference: Training, killed: Training) -> Iterator[str]:
    """What differs at the end of two runs, in words."""
    from striate import recipe as recipes
    from striate.files import sha256_bytes
    from striate.run import checkpoint
    from striate.run.folder import Run

    for name in recipes.differences(Run(reference.folder).recipe, Run(killed.folder).recipe):
        if name != "data.resident":
            yield f"{killed.name}: recipe {name}"
    ends = []
    for training in (reference, killed):
        last = checkpoint.newest(training.checkpoints)[0]
        assert last is not None
        tensors = {
            f"{part} {name}": sha256_bytes(tensor.contiguous().view(-1).numpy().tobytes())
            for part, group in (("model", last.model), ("optimizer", last.optimizer), ("ema", last.ema or {}))
            for name, tensor in group.items()
        }
        # The recipe's hash holds data.resident, in which the two may differ; the recipes were compared above.
        state = {name: value for name, value in last.state.items() if name not in {"elapsed_s", "pace", "recipe"}}
        records = [
            {name: record[name] for name in ("kind", "step", "loss", "top1", "lr", "gradient_norm", "weights") if name in record}
            for record in Run(training.folder).log()
            if record["kind"] in {"step", "evaluation"}
        ]
        best = json.loads((training.folder / "best.json").read_text())
        ends.append((last.step, tensors, state, records, best, batches(training)[0]))
    words = ("last step", "tensor", "state", "log", "best.json", "batch of step")
    for what, ours, theirs in zip(words, *ends, strict=True):
        if isinstance(ours, dict) and isinstance(theirs, dict):
            for name in sorted({*ours, *theirs}, key=str):
                if ours.get(name) != theirs.get(name):
                    yield f"{killed.name}: {what} {name}"
        elif ours != theirs:
            yield f"{killed.name}: {what}"


# ---------------------------------------------------------------- the campaign


def write_images(folder: Path) -> str:
    """A small set of JPEG files; returns what it is."""
    named = os.environ.get("STRIATE_TEST_DATA")
    real = Path(named or "") / "tiny-imagenet-200" / "train"
    if named and real.is_dir():
        for wnid in sorted(path.name for path in real.iterdir())[:8]:
            for number in range(25):
                place = folder / ("train" if number < 20 else "val") / wnid
                place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(real / wnid / "images" / f"{wnid}_{number}.JPEG", place / f"{wnid}_{number}.JPEG")
        return "Tiny ImageNet, 8 classes, 160 training images"
    from striate.data import synthetic

    synthetic.make(folder, layout="tiny", classes=8, per_class=20, val_per_class=5)
    return "rendered, laid out as Tiny ImageNet, 8 classes, 160 training images"


def pack(images: Path, folder: Path) -> None:
    """Packs the images. Raises CalledProcessError."""
    command = [sys.executable, "-m", "striate", "data", "pack", str(images), str(folder)]
    source = str(Path(__file__).resolve().parent.parent / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def campaign(home: Path, kills: int, seed: int, torchrun: int = 0, kinds: tuple[str, ...] = KINDS) -> Result:
    """Runs trainings that are left alone and others that share the kills, several at once, and compares their ends.

    torchrun: of the kills, how many go to a training of two processes, after the others. kinds: of the others.
    home: an empty folder. Raises RuntimeError when a sitting ends in another way than it should.
    """
    began = time.monotonic()
    (home / "campaign_network.py").write_text(NETWORK)
    write_images(home / "images")
    if "pack" in kinds:
        pack(home / "images", home / "pack")
    alone = kills - torchrun
    shares = {kind: (alone + number) // len(kinds) for number, kind in enumerate(reversed(kinds))}
    steps = (max(shares.values()) + 1) * STEPS_PER_KILL
    killed = [Training(home, kind, kind, steps) for kind in kinds]
    # Pixels in memory are those of the files: the two end as one and the same run.
    kind_alone = {kind: "pack" if kind == "pack" else "originals" for kind in kinds}
    references = {kind: Training(home, f"reference-{kind}", kind, steps) for kind in dict.fromkeys(kind_alone.values())}
    result = Result(steps=steps)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        chains = [pool.submit(chain, training, shares[training.kind], seed) for training in killed]
        left_alone = [pool.submit(training.finish, "0") for training in references.values()]
        for one in chains:
            result.kills += one.result()
        for other in left_alone:
            other.result()
    pairs = [(references[kind_alone[training.kind]], training) for training in killed]
    if torchrun:
        steps = (torchrun + 1) * STEPS_PER_KILL
        pair = [Training(home, name, "originals", steps, 2) for name in ("reference-torchrun", "torchrun")]
        pair[0].finish("0")
        result.kills += chain(pair[1], torchrun, seed)
        pairs.append((pair[0], pair[1]))
    for reference, training in pairs:
        _, count, differences = batches(training)
        result.batches_compared += count
        result.differences += [*differences, *compare(reference, training), *mirrored(training)]
    result.seconds = time.monotonic() - began
    return result


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="number of SIGKILLs, shared by the runs")
    parser.add_argument("--data-kind", choices=("all", *KINDS), default="all", help="where the killed runs find images")
    parser.add_argument("--torchrun", type=int, default=0, help="of them, how many for a run of two processes")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in, which then stays")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-campaign-") as temporary:
        home = given.keep or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        kinds = KINDS if given.data_kind == "all" else (given.data_kind,)
        result = campaign(home, given.kills, given.seed, given.torchrun, kinds)
        data = "Tiny ImageNet" if (home / "images" / "train").is_dir() and os.environ.get("STRIATE_TEST_DATA") else "rendered"
    for kill in result.kills:
        print(
            f"{kill.run:<10} aimed at {kill.aim:<8} fell into {kill.inside:<9} at step {kill.step:>5}, "
            f"went on from {kill.resumed:>5}"
        )
    numbers = result.numbers()
    for name, value in numbers.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print("equal, nothing lost" if result.is_good else "NOT EQUAL, or something was lost")
    if given.write:
        import torch

        from striate import machine

        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "data": data,
            "environment": machine.describe(torch.device("cpu")),
            **numbers,
            "each": [dataclasses.asdict(kill) for kill in result.kills],
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
