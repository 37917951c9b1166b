"""Images a second from disk to uint8 batches in memory, beside the loaders that people use today.

    python benchmarks/loader.py --data DIR [--peers torchvision,timm,…] [--quick] [--json] [--write FILE.json]
        [--cores 1,2] [--rounds 3] [--images 2000] [--seconds 4] [--tracks originals,repacked,raw]

DIR holds photos: flat (imagenet-samples) or in class folders. A class folder of `--images` links to them is made in a
temporary folder (few photos are repeated); DIR is not written to. Everybody makes the same: batches of 256, random resized crop
to 224 (antialiased), half of them mirrored, with as many workers as cores.

Tracks: "originals", photos as they are, in each loader's own container where it has one. "repacked": shorter side 256, JPEG
quality 85, 4:2:0, again each in its own form; ours is `striate data pack`. "raw": ours only, `striate data pack --raw 256`.

Contenders take turns, each time in a fresh process bound to the cores; the order is turned around from round to round. Starting
and the first two batches of each worker do not count. Given are medians of the rounds with least and most; processor seconds
of all processes of a loader; memory as the sum of proportional set sizes (PSS, shared pages counted once) and as the sum of the
processes' peaks (RSS, shared pages counted in each); what others and the hypervisor (steal) took of the cores meanwhile.

`originals_ratio`: ours over the fastest named peer, on originals. `pack_ratio`: ours from its pack over the fastest named peer at
what it offers: one with a format of its own reads its own repacked form; torchvision, timm and spdl, which have none, read
originals. Both are the least of the ratios at each number of cores. `pack_over_repacked` in `ratios` compares on the repacked
track alone, where those without a format get a class folder of the same small JPEGs.
Exits 1 when pixels are not those of the reference, when ours fails, or, but for --quick, when a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import loader_peers
import numpy as np
import torch
from loader_peers import PEERS, File
from PIL import Image

from striate import machine
from striate.data import resample
from striate.data.augment import draw
from striate.data.augment.draw import Augmentation
from striate.data.layouts.detect import open_data
from striate.data.loader import Streaming, Workers, train_batches
from striate.data.order import Order

SIDE = loader_peers.SIDE
SHORTER, QUALITY = 256, 85
WARM_UP = 2  # batches of each worker
LEAST = 3  # batches of each worker in a measurement
PLAUSIBLE = 4  # batches whose pixels are looked at
MOST_LEVELS = 2.0  # mean difference of an image from the reference, of 255
LEAST_PICTURES = 1000  # for the two limits that follow: chance is 2 % there
MOST_LEVEL_OFF = 6.0  # mean level from the reference's
MOST_ROUGHNESS_OFF = 0.08  # share; without antialiasing it is 0.15 on ImageNet's originals
CHILD_S = 240  # of one measurement or conversion: by then it hangs
MOST_HOME = 60  # characters: below it lie Unix sockets of worker processes, whose names may have 107; longer ones hang
TRACKS = ("originals", "repacked", "raw")
OURS = {
    "striate": "auto",
    "striate-torch": "torch",
}  # contender: resampler. The second is what an installation without OpenCV does

# name, (numerator track, contender), (denominator track, contender or "best"), at least, aim
GOALS = [
    ("originals over torchvision", ("originals", "striate"), ("originals", "torchvision"), 1.5, 2.0),
    ("originals over timm", ("originals", "striate"), ("originals", "timm"), 1.4, None),
    ("originals over webdataset", ("originals", "striate"), ("originals", "webdataset"), 1.0, None),
    ("originals over streaming", ("originals", "striate"), ("originals", "streaming"), 1.0, None),
    ("originals over litdata", ("originals", "striate"), ("originals", "litdata"), 1.0, None),
    ("originals over datasets", ("originals", "striate"), ("originals", "datasets"), 1.0, None),
    ("originals over spdl", ("originals", "striate"), ("originals", "spdl"), 1.0, None),
    ("originals over spdl-io", ("originals", "striate"), ("originals", "spdl-io"), 1.0, None),
    ("pack over torchvision on originals", ("repacked", "striate"), ("originals", "torchvision"), 5.0, 7.0),
    ("pack over the best peer repacked", ("repacked", "striate"), ("repacked", "best"), 1.3, None),
    ("raw over torchvision on originals", ("raw", "striate"), ("originals", "torchvision"), 12.0, 20.0),
]


# ---------------------------------------------------------------- ours


def augmentation_of(resampler: Literal["auto", "pillow", "torch", "opencv"], size_px: int = SIDE) -> Augmentation:
    """The training view that all contenders make."""
    chosen = resample.chosen(resampler, "bilinear", False)
    return Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 0, 0.5, size_px, "bilinear", "crop", resampler=chosen)


def ours(form: Path, batch_size: int, workers: int, resampler: Literal["auto", "pillow", "torch", "opencv"]) -> Iterator[Any]:
    """What a training gets: `loader.train_batches` on threads, with the allocator and the threads set as `sitting` sets them."""
    machine.keep_freed_memory()
    machine.use_threads(machine.threads_wanted())
    index = open_data(form).train
    order = Order(0, len(index), batch_size)
    source = Streaming(index, exif=False)  # as the peers, which do not turn photos
    batches = train_batches(source, index, augmentation_of(resampler), order, 0, None, Workers("threads", workers))
    return (batch.images for batch in batches)


# ---------------------------------------------------------------- one measurement, in a process of its own


def processes(root: int) -> list[int]:
    """A process and its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
    tree = [root]
    for pid in tree:
        tree += [child for child, parent in parents.items() if parent == pid]
    return tree


def processor_s() -> float:
    """Processor seconds of this process and its descendants, living or gone."""
    ticks = 0
    for pid in processes(os.getpid()):
        ticks += sum(int(field) for field in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory() -> tuple[int, int]:
    """Bytes of this process and its descendants: sum of the proportional set sizes, and of the peaks of the resident sets."""
    pss = peak = 0
    for pid in processes(os.getpid()):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        pss += 1024 * next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        peak += 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return pss, peak


def ticks_of(cores: list[int]) -> tuple[int, int, int]:
    """Of these cores since the machine started: all ticks, those that were used, those that the hypervisor took."""
    every = used = stolen = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, idle, wait, irq, soft, steal = (int(field) for field in fields[:8])
            busy = user + nice + system + irq + soft
            every, used, stolen = every + busy + idle + wait + steal, used + busy, stolen + steal
    return every, used, stolen


def look(images: Any, batch_size: int) -> np.ndarray:
    """The pixels of a batch as [B, S, S, 3] uint8. Raises ValueError when it is not what was asked for."""
    tensor = images if isinstance(images, torch.Tensor) else torch.as_tensor(images)
    if tensor.shape[1:] == (3, SIDE, SIDE):
        tensor = tensor.permute(0, 2, 3, 1)
    if tensor.shape != (batch_size, SIDE, SIDE, 3) or tensor.dtype != torch.uint8:
        raise ValueError(
            f"a batch of shape {tuple(images.shape)} and type {images.dtype}; expected {batch_size} x 3 x {SIDE} x {SIDE}, uint8"
        )
    return tensor.numpy()


def traits(pixels_BSS3: np.ndarray) -> dict[str, float]:
    """Mean level, and mean step between neighbours: aliasing makes pictures rougher."""
    levels = pixels_BSS3.astype(np.int16)
    rough = (np.abs(np.diff(levels, axis=1)).mean() + np.abs(np.diff(levels, axis=2)).mean()) / 2
    return {"pictures": len(pixels_BSS3), "level": float(levels.mean()), "roughness": float(rough)}


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Runs one contender: warms up, counts for the wanted seconds, then looks at what came out."""
    cores, batch_size = task["cores"], task["batch_size"]
    os.sched_setaffinity(0, cores)
    workers, form = len(cores), Path(task["form"])
    if task["name"] in OURS:
        batches = ours(form, batch_size, workers, OURS[task["name"]])
    else:
        batches = PEERS[task["name"]].read(form, batch_size, workers)
    for _ in range(WARM_UP * workers):
        look(next(batches), batch_size)
    count, ticks, spent = 0, ticks_of(cores), processor_s()
    began = time.perf_counter()
    while True:
        look(next(batches), batch_size)
        count += 1
        passed = time.perf_counter() - began
        if passed >= task["seconds"] and count >= LEAST * workers and count % workers == 0:
            break
    spent, after = processor_s() - spent, ticks_of(cores)
    every, used, stolen = (new - old for new, old in zip(after, ticks, strict=True))
    pss, peak = memory()
    found: dict[str, Any] = {
        "images_per_s": count * batch_size / passed,
        "images": count * batch_size,
        "cpu_s_per_1000": 1000 * spent / (count * batch_size),
        "pss_bytes": pss,
        "peak_rss_bytes": peak,
        "steal_share": stolen / max(1, every),
        "others_share": max(0.0, used / os.sysconf("SC_CLK_TCK") - spent) / (passed * workers),
    }
    if task["look"]:
        found["traits"] = traits(np.concatenate([look(next(batches), batch_size) for _ in range(PLAUSIBLE)]))
    return found


def leave() -> None:
    """Ends this process and its workers at once, so that none still makes batches while the next contender starts.

    The resource tracker stays: it removes the named shared memory that others leave behind, and ends by itself.
    """
    for pid in reversed(processes(os.getpid())[1:]):
        with contextlib.suppress(OSError):
            if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    os._exit(0)


def in_child(work: str, task: dict[str, Any], home: Path) -> dict[str, Any]:
    """Does `work` of this file in a fresh process that keeps its temporary files within `home`; {"error": …} when it fails."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", work]
    pipe, own = subprocess.PIPE, loader_peers.confined(home / "own")
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=own, start_new_session=True)
    try:
        output, said = child.communicate(json.dumps(task), timeout=CHILD_S)
    except BaseException as stopped:  # its workers too, or they would go on and hold the pipes open
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if isinstance(stopped, subprocess.TimeoutExpired):
            return {"error": f"not done after {CHILD_S} s"}
        raise
    lines = output.splitlines()
    if child.returncode or not lines or not lines[-1].startswith("{"):
        return {"error": (said.strip().splitlines() or [f"exit code {child.returncode}, nothing said"])[-1][:400]}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


# ---------------------------------------------------------------- the forms of the data


def photos_of(data: Path) -> list[tuple[str, Path]]:
    """(class, file) of the JPEG files of a folder: by the folder's name, or, where it is flat, by the name up to a "_"."""
    paths = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        sys.exit(f"{data}: no JPEG files in it. Name a folder of photos, flat or in class folders.")
    return [(path.stem.split("_")[0] if path.parent == data else path.parent.name, path.resolve()) for path in paths]


def state_of(data: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of change of the photos: what must be the same afterwards."""
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for _, path in photos_of(data))


def expect_untouched(data: Path, before: list[tuple[str, int, int]]) -> None:
    """Stops everything when a writer, ours or a peer's, has changed the photos."""
    if not data.is_dir() or state_of(data) != before:
        sys.exit(f"{data}: the photos changed while the benchmark ran. Stopped; see which writer ran last, and restore them.")


def make_folder(data: Path, folder: Path, count: int) -> None:
    """A class folder of `count` links: every k-th of many photos, or all of few again and again."""
    photos = photos_of(data)
    if len(photos) > count:
        photos = [photos[number * len(photos) // count] for number in range(count)]
    for number in range(count):
        name, path = photos[number % len(photos)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{number:06d}_{path.name}").symlink_to(path)


def files_of(folder: Path) -> list[File]:
    """The files of a class folder with their classes, in an order that mixes the classes."""
    classes = sorted(child for child in folder.iterdir() if child.is_dir())
    files = [(path, label) for label, child in enumerate(classes) for path in sorted(child.iterdir())]
    return sorted(files, key=lambda file: file[0].name)


def shrink(paths: tuple[Path, Path]) -> None:
    """One photo for the peers' repacked forms, by Pillow as their users do it: shorter side 256, never enlarged."""
    source, target = paths
    with Image.open(source) as image:
        photo = image if image.mode in ("RGB", "L") else image.convert("RGB")
        factor = SHORTER / min(photo.size)
        if factor < 1:
            photo = photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BICUBIC)
        photo.save(target, "JPEG", quality=QUALITY, subsampling="4:2:0")


def make_small(folder: Path, small: Path, cores: int) -> None:
    """A class folder of small JPEGs, made by as many processes as there are cores."""
    pairs = [(path, small / path.parent.name / f"{path.stem}.jpg") for path, _ in files_of(folder)]
    for _, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(shrink, pairs, chunksize=16))


def pack(folder: Path, form: Path, *options: str) -> None:
    """`striate data pack`, as a user calls it."""
    command = [sys.executable, "-m", "striate", "data", "pack", str(folder), str(form), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"striate data pack ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")


@dataclass
class Form:
    """What a contender reads. seconds: to make it of the originals, for repacked ones with the encoding; size_bytes: on disk."""

    path: str
    seconds: float = 0.0
    size_bytes: int = 0
    error: str = ""


def made(path: Path, make: Callable[[], Any], seconds: float = 0.0) -> Form:
    """Makes a form; one that cannot be made says so, and the others go on."""
    path.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    error = ""
    try:
        answer = make()
        error = answer.get("error", "") if isinstance(answer, dict) else ""
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"[:400]
    seconds += time.perf_counter() - began
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())  # of links: what they lead to
    return Form(str(path), round(seconds, 2), size, error)


def make_forms(home: Path, folder: Path, peers: list[str], tracks: list[str], cores: int) -> dict[tuple[str, str], Form]:
    """What each contender reads on each track."""
    forms = {}
    plain = made(folder, lambda: None)
    if "originals" in tracks:
        forms |= {("originals", name): plain for name in OURS}
    if "repacked" in tracks:
        # Our own form goes into a folder that does not exist before, as a user's would.
        ours_packed = made(home / "ours", lambda: pack(folder, home / "ours" / "pack"))
        ours_packed.path = str(home / "ours" / "pack")
        forms |= {("repacked", name): ours_packed for name in OURS}
    if "raw" in tracks:
        raw = made(home / "ours-raw", lambda: pack(folder, home / "ours-raw" / "pack", "--raw", str(SHORTER)))
        raw.path = str(home / "ours-raw" / "pack")
        forms["raw", "striate"] = raw
    sources = {"originals": (folder, plain)} if "originals" in tracks else {}
    if "repacked" in tracks and peers:
        small = home / "small"
        sources["repacked"] = (small, made(small, lambda: make_small(folder, small, cores)))
    for track, (source, form) in sources.items():
        for name in peers:
            if PEERS[name].write is None:
                forms[track, name] = form
                continue
            target = home / f"{track}-{name}"
            task = {"name": name, "source": str(source), "target": str(target), "cores": cores}
            seconds = form.seconds if track == "repacked" else 0.0
            forms[track, name] = made(target, lambda task=task: in_child("write", task, home), seconds)  # type: ignore[misc]
    return forms


def write(task: dict[str, Any]) -> dict[str, Any]:
    """A peer's writer, in a process of its own."""
    writer = PEERS[task["name"]].write
    assert writer is not None
    writer(files_of(Path(task["source"])), Path(task["target"]), task["cores"])
    return {"done": True}


# ---------------------------------------------------------------- are they the right pixels?


def reference(photo: Image.Image, augmentation: Augmentation, uniforms_row: np.ndarray) -> np.ndarray:
    """The view by Pillow alone, with the same crop and mirror image: uint8 [S, S, 3]."""
    drawn = draw.choose(photo.width, photo.height, augmentation, uniforms_row)
    part = photo.crop((drawn.left, drawn.top, drawn.left + drawn.width, drawn.top + drawn.height))
    view = part.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if drawn.flipped else view)


def stored_photos(track: str, form: Path) -> Callable[[str], Image.Image]:
    """From a key to the stored photo, read without striate: by Pillow from files, by pyarrow from a pack."""
    if track == "originals":
        return lambda key: Image.open(form / key).convert("RGB")
    import pyarrow as pa

    rows: dict[str, Image.Image] = {}
    for shard in sorted(form.glob("train-*.arrow")):
        with pa.memory_map(str(shard)) as source:
            for row in pa.ipc.open_file(source).read_all().to_pylist():
                if track == "raw":
                    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(SHORTER, SHORTER, 3)
                    rows[row["key"]] = Image.fromarray(pixels)
                else:
                    rows[row["key"]] = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    return lambda key: rows[key]


def compare(task: dict[str, Any]) -> dict[str, Any]:
    """Mean difference of each image of some batches from the reference, in levels of 255; and the reference's own traits."""
    form, batch_size = Path(task["form"]), task["batch_size"]
    index = open_data(form).train
    augmentation, order = augmentation_of(task["resampler"]), Order(0, len(index), batch_size)
    photo = stored_photos(task["track"], form)
    source = Streaming(index, exif=False)
    batches = train_batches(source, index, augmentation, order, 0, task["steps"], Workers("threads", 1))
    differences, references = [], []
    for step, batch in enumerate(batches):
        rows = order.step(step)
        uniforms_BD = draw.draw(order.seed, rows.epoch, rows.counters_b)
        images_BSS3 = look(batch.images, batch_size)
        for image_SS3, key, uniforms_row in zip(images_BSS3, batch.keys, uniforms_BD, strict=True):
            wanted = reference(photo(key), augmentation, uniforms_row)
            differences.append(float(np.abs(image_SS3.astype(np.int16) - wanted).mean()))
            references.append(wanted)
    return {
        "images": len(differences),
        "mean_levels": statistics.fmean(differences),
        "worst_levels": max(differences),
        "traits": traits(np.stack(references)),
    }


# ---------------------------------------------------------------- the run


def spread(values: list[float], digits: int) -> dict[str, Any]:
    """Median, least, most and all."""
    rounded = [round(value, digits) for value in values]
    return {"median": round(statistics.median(values), digits), "min": min(rounded), "max": max(rounded), "rounds": rounded}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The rounds of one contender."""
    return {
        "images_per_s": spread([run["images_per_s"] for run in runs], 1),
        "cpu_s_per_1000": spread([run["cpu_s_per_1000"] for run in runs], 3),
        "pss_bytes": max(run["pss_bytes"] for run in runs),
        "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs),
        "steal_share": round(max(run["steal_share"] for run in runs), 4),
        "others_share": round(max(run["others_share"] for run in runs), 4),
    }


Result = dict[str, dict[str, dict[str, Any]]]  # track, contender, summary; of one number of cores


def speed(result: Result, track: str, name: str) -> float | None:
    """Median images a second, None where it did not run. "best": of the peers on that track."""
    if name == "best":
        peers = [median for peer in result.get(track, {}) if peer in PEERS if (median := speed(result, track, peer))]
        return max(peers, default=None)
    found = result.get(track, {}).get(name)
    return None if found is None else float(found["images_per_s"]["median"])


def ratio(results: dict[str, Result], above: tuple[str, str], below: tuple[str, str]) -> float | None:
    """The least over the numbers of cores; None where one of the two did not run."""
    ratios = []
    for result in results.values():
        ours_per_s, theirs_per_s = speed(result, *above), speed(result, *below)
        if ours_per_s is None or theirs_per_s is None:
            return None
        ratios.append(ours_per_s / theirs_per_s)
    return round(min(ratios), 3) if ratios else None


def headline(results: dict[str, Result], peers: list[str]) -> dict[str, Any]:
    """The ratios by which others judge, and those that explain them."""
    own = {name: "originals" if PEERS[name].write is None else "repacked" for name in peers}

    def least(above: tuple[str, str], below: list[tuple[str, str]]) -> float | None:
        ratios = [found for one in below if (found := ratio(results, above, one)) is not None]
        return min(ratios, default=None)

    def each(above: tuple[str, str], track: str) -> dict[str, float | None]:
        return {name: ratio(results, above, (track, name)) for name in peers}

    return {
        "originals_ratio": least(("originals", "striate"), [("originals", name) for name in peers]),
        "pack_ratio": least(("repacked", "striate"), [(own[name], name) for name in peers]),
        "ratios": {
            "originals_over_originals": each(("originals", "striate"), "originals"),
            "pack_over_originals": each(("repacked", "striate"), "originals"),
            "pack_over_repacked": each(("repacked", "striate"), "repacked"),
            "raw_over_originals": each(("raw", "striate"), "originals"),
        },
    }


def versions(peers: list[str]) -> dict[str, str]:
    """Of the peers and of what decides our own speed."""
    names = {PEERS[name].package for name in peers} | {"opencv-python-headless", "pyarrow"}
    found = {}
    for name in sorted(names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def campaign(given: argparse.Namespace, home: Path, peers: list[str], cores_list: list[int]) -> dict[str, Any]:
    """Makes the forms, checks our pixels, lets everybody run, and puts the result together."""
    before = state_of(given.data)
    folder = home / "photos"
    make_folder(given.data, folder, given.images)
    every_core = sorted(os.sched_getaffinity(0))
    forms = make_forms(home, folder, peers, given.tracks, len(every_core))
    expect_untouched(given.data, before)
    failed = {f"{track}: {name}": form.error for (track, name), form in forms.items() if form.error}
    for (track, name), form in forms.items():
        print(f"form {track:10}{name:15} {form.seconds:8.1f} s {form.size_bytes / 1e6:9.1f} MB {form.error}", flush=True)
    equality = {}
    steps = max(1, min(2, given.images // given.batch_size))
    for (track, name), form in forms.items():
        if name in OURS and not form.error:
            task = {"form": form.path, "track": track, "resampler": OURS[name], "batch_size": given.batch_size, "steps": steps}
            equality[f"{track}: {name}"] = in_child("compare", task, home)
            print(f"pixels {track}: {name}: {equality[f'{track}: {name}']}", flush=True)
    turns = [(track, name) for (track, name), form in forms.items() if not form.error]
    runs: dict[int, dict[tuple[str, str], list[dict[str, Any]]]] = {cores: {} for cores in cores_list}
    outputs = {}
    for number in range(given.rounds):
        for cores in cores_list:
            for track, name in turns if number % 2 == 0 else reversed(turns):
                if f"{track}: {name}" in failed:
                    continue
                is_first = number == 0 and cores == cores_list[0]
                task = {"name": name, "form": forms[track, name].path, "cores": every_core[:cores], "look": is_first}
                run = in_child("measure", task | {"batch_size": given.batch_size, "seconds": given.seconds}, home)
                if "error" in run:
                    failed[f"{track}: {name}"] = run["error"]
                    print(f"{cores} cores, {track}: {name}: {run['error']}", flush=True)
                    continue
                if is_first:
                    outputs[f"{track}: {name}"] = run.pop("traits")
                runs[cores].setdefault((track, name), []).append(run)
                print(
                    f"round {number + 1}, {cores} cores, {track:10}{name:15}{run['images_per_s']:9.0f} images/s "
                    f"{run['cpu_s_per_1000']:7.3f} cpu s/1000 {run['pss_bytes'] / 1e6:7.0f} MB, "
                    f"others {run['others_share']:.0%}, steal {run['steal_share']:.0%}",
                    flush=True,
                )
    expect_untouched(given.data, before)
    results: dict[str, Result] = {}
    for cores, of_cores in runs.items():
        result: Result = {}
        for (track, name), several in of_cores.items():
            if f"{track}: {name}" not in failed:
                result.setdefault(track, {})[name] = summary(several)
        results[str(cores)] = result
    return {
        "forms": {
            f"{track}: {name}": {k: v for k, v in asdict(form).items() if k != "path"} for (track, name), form in forms.items()
        },
        "equality": {"limit_levels": MOST_LEVELS, **equality},
        "outputs": outputs,
        "failed": failed,
        "results": results,
    }


def odd_outputs(found: dict[str, Any]) -> list[str]:
    """Contenders whose pictures are not those of the reference in the mean: another crop, no antialiasing, wrong colours."""
    odd = []
    for track in TRACKS:
        wanted = found["equality"].get(f"{track}: striate", {}).get("traits")
        for key, seen in found["outputs"].items():
            if wanted is None or seen["pictures"] < LEAST_PICTURES or not key.startswith(f"{track}:"):
                continue
            level, rough = seen["level"] - wanted["level"], seen["roughness"] / wanted["roughness"] - 1
            if abs(level) > MOST_LEVEL_OFF or abs(rough) > MOST_ROUGHNESS_OFF:
                odd.append(f"{key}: mean level {level:+.1f}, roughness {rough:+.0%} against the reference")
    return odd


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of JPEG photos, flat or in class folders")
    parser.add_argument("--peers", help=f"some of {', '.join(PEERS)}; all that are installed when left out; 'none'")
    parser.add_argument("--quick", action="store_true", help="one number of cores, two rounds, short, fewer images")
    parser.add_argument("--cores", help="numbers of cores to measure with, 1,2 when left out")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--seconds", type=float, help="of a measurement")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--tracks", default=",".join(TRACKS))
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on the last line")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    parser.add_argument("--child", choices=("measure", "compare", "write"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        work = {"measure": measure, "compare": compare, "write": write}[given.child]
        print("\n" + json.dumps(work(json.load(sys.stdin))), flush=True)
        leave()
    if given.data is None or not given.data.is_dir():
        parser.error("--data: expected a folder of photos")
    given.rounds = given.rounds or (2 if given.quick else 3)
    given.images = given.images or (768 if given.quick else 2000)
    given.seconds = given.seconds or (3.0 if given.quick else 4.0)
    given.tracks = given.tracks.split(",")
    if not set(given.tracks) <= set(TRACKS):
        parser.error(f"--tracks: expected some of {', '.join(TRACKS)}")
    if given.images < given.batch_size:
        parser.error(f"--images {given.images}: expected at least a batch of {given.batch_size}")
    have = len(os.sched_getaffinity(0))
    wanted_cores = [int(text) for text in given.cores.split(",")] if given.cores else [2] if given.quick else [1, 2]
    cores_list = sorted({min(cores, have) for cores in wanted_cores})
    wanted = [] if given.peers == "none" else given.peers.split(",") if given.peers else list(PEERS)
    if unknown := [name for name in wanted if name not in PEERS]:
        parser.error(f"--peers: no {', '.join(unknown)}; expected some of {', '.join(PEERS)}")
    missing = {name: reason for name in wanted if (reason := loader_peers.absent(name))}
    for name, reason in missing.items():
        print(f"{name} cannot run here and is left out ({reason})", flush=True)
    peers = [name for name in wanted if name not in missing]
    if wanted and not peers:
        parser.error("--peers: none of them can run here")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="striate-loader-") as temporary:
        if len(temporary) > MOST_HOME:
            parser.error(
                f"the temporary folder {temporary} has too long a name: set TMPDIR to one of {MOST_HOME - 24} characters"
            )
        found = campaign(given, Path(temporary), peers, cores_list)
    heads = headline(found["results"], peers)
    goals = {}
    for name, above, below, least, aim in GOALS:
        value = ratio(found["results"], above, below)
        if value is not None:
            goals[name] = {"ratio": value, "at_least": least, "aim": aim, "is_reached": value >= least}
            print(f"{'reached' if value >= least else 'MISSED '} {name}: {value:.2f} (at least {least:g})")
    odd = odd_outputs(found)
    wrong = [
        f"{key}: {pair.get('error') or pair['worst_levels']}"
        for key, pair in found["equality"].items()
        if isinstance(pair, dict) and ("error" in pair or pair["worst_levels"] > MOST_LEVELS)
    ]
    wrong += [f"{key}: {error}" for key, error in found["failed"].items() if key.partition(": ")[2] in OURS]
    for line in [*odd, *wrong]:
        print(f"NOT RIGHT: {line}")
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "data": {"folder": given.data.name, "images": given.images, "photos": len(photos_of(given.data))},
        "batch_size": given.batch_size,
        "size_px": SIDE,
        "rounds": given.rounds,
        "seconds_of_a_measurement": given.seconds,
        "memory": "pss_bytes: proportional set sizes after the measurement; peak_rss_bytes: the processes' peaks; sums",
        **found,
        "missing": missing,
        "odd_outputs": odd,
        "goals": goals,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "versions": versions(peers),
        "environment": machine.describe(torch.device("cpu")),
        **heads,
    }
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(result))
    is_missed = not given.quick and not all(goal["is_reached"] for goal in goals.values())
    return 1 if wrong or is_missed else 0


if __name__ == "__main__":
    sys.exit(main())
