"""Kills `striate data pack` with SIGKILL again and again, and compares its packs with one that was left alone.

    python benchmarks/kill_pack.py --kills 40 [--seed 0] [--images 3000] [--data DIR] [--keep DIR] [--write FILE.json]

The images are rendered ones under many names, or those of DIR. Each sitting is a process that was forked from one that has
imported everything, and runs the command. The first kill of a pack falls into the middle of a shard; the others at random
moments from the first sign of a change in the pack's folder, or from a shard's beginning, to the manifest. The same command
then goes on; where it was too fast to be killed, its pack is compared and another one begun. In the end every pack must have
the same files as the one that was never killed, bit for bit, and every image of the source exactly once. Exit code 0 only
then, and when rows written before a kill were kept at least once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OPTIONS: tuple[str, ...] = ("--workers", "1")
LIMIT_S = 600.0
_DIFFERENT = 24  # pictures that are rendered

# Imports once what every sitting needs, then forks: no thread has been started by then.
SERVER = """
import json, os, sys
import striate.cli, striate.data.pack.write, striate.train.budget, tyro, rich.progress

for line in sys.stdin:
    words, out = json.loads(line)
    child = os.fork()
    if child == 0:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        code = 1
        try:
            code = striate.cli.run(words)
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(child, flush=True)
    sys.stdin.readline()  # until then the child keeps its number, ended or not
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Kill:
    """One kill. aim, after_s: as `watch` takes them. files: what lay in the folder, bytes by name."""

    aim: str
    after_s: float
    files: dict[str, int]


@dataclass
class Result:
    """What a campaign found. kept: of each finished pack, the rows that its last sitting found written."""

    images: int = 0
    kills: list[Kill] = field(default_factory=list)
    packs: int = 0
    kept: list[int] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the packs are equal, and something was kept."""
        return not self.differences and sum(self.kept) > 0

    def numbers(self) -> dict[str, Any]:
        """The figures to report."""
        in_shards = [any(name.endswith((".part", ".before")) for name in kill.files) for kill in self.kills]
        return {
            "images": self.images,
            "kills": len(self.kills),
            "kills_within_a_shard": sum(in_shards),
            "packs_finished_and_compared": self.packs,
            "rows_kept_by_the_last_sittings": self.kept,
            "equal": not self.differences,
            "differences": self.differences,
            "seconds": round(self.seconds, 1),
        }


def write_images(folder: Path, count: int) -> None:
    """Rendered pictures, each under many names (hard links)."""
    from striate.data import synthetic

    drawn = folder.with_name("drawn")
    synthetic.make(drawn, layout="tiny", classes=4, per_class=_DIFFERENT // 4, val_per_class=1)
    pictures = sorted((drawn / "train").rglob("*.JPEG"))
    for number in range(count):
        place = folder / ("val" if number % 10 == 0 else "train") / f"class{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(pictures[number % len(pictures)], place / f"{number:06d}.JPEG")


class Packer:
    """Starts sittings: a process that waits for commands, forks for each, and says how it ended."""

    def __init__(self, out: Path) -> None:
        source = str(Path(__file__).resolve().parent.parent / "src")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
            "OMP_NUM_THREADS": "1",
        }
        self.out = out
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def start(self, data: Path, folder: Path) -> int:
        """Begins a sitting; the number of its process."""
        command = ["data", "pack", str(data), str(folder), *OPTIONS, "--json"]
        return self._asked(json.dumps([command, str(self.out)]))

    def wait(self) -> dict[str, Any] | None:
        """What the sitting printed last when it ended well, None when it was killed. Raises RuntimeError when it failed."""
        code = self._asked("how did it end?")
        if code == -signal.SIGKILL:
            return None
        text = self.out.read_text(errors="replace")
        if code != 0:
            raise RuntimeError(f"a sitting ended with exit code {code}:\n{text[-3000:]}")
        facts: dict[str, Any] = json.loads(text.splitlines()[-1])
        return facts

    def _asked(self, line: str) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that forks has ended with {self._process.wait()}")
        return int(line)


@dataclass(frozen=True)
class Moment:
    """Seconds since the folder's first sign: when a shard was first seen, and when the manifest was."""

    shard_s: float
    manifest_s: float


def watch(folder: Path, process: int, aim: str, until_s: float = LIMIT_S, until_bytes: int = 0) -> Moment:
    """Looks at a folder that a sitting has just begun with, until the moment of the kill, or the manifest.

    aim: "any" for so many seconds after the first change, "shard" for so many after a shard's first, "middle" for a shard
    of so many bytes.
    """
    before, began, shard_at = set(times(folder)), None, None
    while True:
        now, found = time.monotonic(), set(times(folder)) - before
        parts = [size_bytes for name, _, size_bytes in found if name.endswith(".part")]
        if began is None and found:
            began = now
        if shard_at is None and parts:
            shard_at = now
        since = shard_at if aim == "shard" else began
        is_time = max(parts, default=0) > until_bytes if aim == "middle" else since is not None and now - since >= until_s
        if is_time or is_gone(process) or any(name == "manifest.json" for name, _, _ in found):
            start = began or now
            return Moment((shard_at or now) - start, now - start)
        time.sleep(0.002)


def is_gone(process: int) -> bool:
    """Whether a process has ended."""
    try:
        return " Z " in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True


def times(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, time of change and bytes of each file."""
    for path in folder.rglob("*") if folder.exists() else ():
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        yield path.name, facts.st_mtime_ns, facts.st_size


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file, by name."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def campaign(home: Path, kills: int, seed: int, images: int, data: Path | None = None) -> Result:
    """Packs once undisturbed, then under kills. home: an empty folder. Raises RuntimeError when a sitting fails by itself."""
    began, dice, result = time.monotonic(), random.Random(seed), Result()
    if data is None:
        data = home / "images"
        write_images(data, images)
    whole = home / "whole"
    with Packer(home / "out") as packer:
        alone = watch(whole, packer.start(data, whole), "any")
        facts = packer.wait()
        assert facts is not None
        result.images = facts["images"]
        middle = max(path.stat().st_size for path in whole.glob("*.arrow")) // 2
        while len(result.kills) < kills or not result.packs:
            folder, facts, is_first = home / f"pack-{result.packs}", None, True
            while facts is None:
                aim = "middle" if is_first else dice.choice(("any", "shard", "shard"))
                after_s = dice.uniform(0.0, alone.manifest_s - (alone.shard_s if aim == "shard" else 0.0))
                process = packer.start(data, folder)
                if len(result.kills) < kills:
                    watch(folder, process, aim, after_s, middle)
                    os.kill(process, signal.SIGKILL)  # one that has just ended takes no harm
                facts = packer.wait()
                if facts is None:
                    result.kills.append(Kill(aim, round(after_s, 3), sizes(folder)))
                is_first = False
            result.kept.append(facts["images"] - facts["written"])
            result.differences += [f"pack {result.packs}: {text}" for text in different(whole, folder, data)]
            result.packs += 1
            shutil.rmtree(folder)
    result.seconds = time.monotonic() - began
    return result


def different(whole: Path, folder: Path, data: Path) -> Iterator[str]:
    """What is not the same in two packs, and which images of the source are not there exactly once."""
    import pyarrow as pa

    from striate.data.layouts.detect import open_whole

    names = {name for name in (*sizes(whole), *sizes(folder)) if not name.startswith(".")}
    for name in sorted(names):
        contents = [(place / name).read_bytes() if (place / name).exists() else None for place in (whole, folder)]
        if contents[0] != contents[1]:
            yield f"{name}: {', '.join('not there' if one is None else f'{len(one):,} bytes' for one in contents)}"
    for name in sizes(folder):
        if name.endswith((".part", ".before", ".tmp")):
            yield f"{name} was left behind"
    for split, index in open_whole(data).indexes.items():
        keys = [
            key
            for path in sorted(folder.glob(f"{split}-*.arrow"))
            for key in pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("key").to_pylist()
        ]
        if keys != list(index.keys):
            yield f"{split}: {len(keys):,} rows ({len(set(keys)):,} different) of {len(index):,} images"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--images", type=int, default=3000, help="how many are rendered")
    parser.add_argument("--data", type=Path, help="a set to be packed instead")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in, which then stays")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-pack-") as temporary:
        home = given.keep or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        result = campaign(home, given.kills, given.seed, given.images, given.data)
    numbers = result.numbers()
    for name, value in numbers.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print("equal, nothing lost, nothing twice" if result.is_good else "NOT EQUAL, or nothing was kept")
    if given.write:
        import torch

        from striate import machine

        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "environment": machine.describe(torch.device("cpu")),
            **numbers,
            "each": [asdict(kill) for kill in result.kills],
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
