"""The loaders that `loader.py` compares with, each as its own documentation recommends for speed.

A peer writes its form of a class folder once (`write`), and yields batches of it without end (`read`): uint8, 256 photos of
3 x 224 x 224, random resized crop (area 0.08 to 1, ratio 3/4 to 4/3, bilinear, antialiased), mirrored half of the time.
Peers without a format of their own read the class folder. Labels are loaded by all and thrown away.

No peer stops between epochs here: each uses its own way to go on (replacement sampling, resampled shards, a repeated sampler),
because the set is small and workers that wait at the end of each epoch would be slower than on a large set.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

SIDE = 224
ENDLESS = 10_000_000  # images; more than any run takes
SHARD_BYTES = 64 * 1024**2

FROM_TENSOR = v2.Compose([v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip()])
FROM_PIL = v2.Compose([v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])

File = tuple[Path, int]  # a photo and its class


@dataclass(frozen=True)
class Peer:
    """A loader.

    package: what is installed. module: what is imported. read(form, batch_size, workers): its batches.
    write(files, folder, cores): makes its form; None where it reads a class folder.
    """

    package: str
    module: str
    read: Callable[[Path, int, int], Iterator[Any]]
    write: Callable[[list[File], Path, int], None] | None = None


def from_pil(image: Image.Image) -> torch.Tensor:
    """Grey photos and CMYK become RGB first, as ImageFolder does it."""
    return FROM_PIL(image.convert("RGB"))


def forever(loader: Any) -> Iterator[Any]:
    """Batches of one epoch after another; with the settings here the first lasts longer than any run."""
    while True:
        yield from loader


def of_torch(dataset: Any, batch_size: int, workers: int, **more: Any) -> Iterator[Any]:
    """PyTorch's loader: worker processes that persist."""
    if not isinstance(dataset, torch.utils.data.IterableDataset):
        more["sampler"] = RandomSampler(dataset, replacement=True, num_samples=ENDLESS)
    loader = DataLoader(dataset, batch_size, num_workers=workers, persistent_workers=True, drop_last=True, **more)
    return (images for images, _ in forever(loader))


# ---------------------------------------------------------------- class folders


def torchvision_pil(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """ImageFolder with Pillow, its default."""
    return of_torch(ImageFolder(str(form), FROM_PIL), batch_size, workers)


def torchvision_io(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """ImageFolder with torchvision's own decoder, and the crop on tensors."""
    return of_torch(ImageFolder(str(form), FROM_TENSOR, loader=decoded), batch_size, workers)


def decoded(path: str) -> torch.Tensor:
    """A file by torchvision's decoder."""
    return decode_image(path, ImageReadMode.RGB)


def timm(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """create_loader with its prefetcher's uint8 batches; what the prefetcher does on the device is left out."""
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", str(form)),
        (3, SIDE, SIDE),
        batch_size,
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        num_workers=workers,
        use_prefetcher=True,
        use_multi_epochs_loader=True,
        device=torch.device("cpu"),
    )
    return (images for images, _ in forever(loader.loader))


def spdl_pipeline(
    form: Path, work: Callable[[str], Any], join: Callable[[list[Any]], Any], size: int, workers: int
) -> Iterator[Any]:
    """SPDL: a pipeline of threads, one for each core; batches are put together beside them."""
    from spdl.pipeline import PipelineBuilder

    torch.set_num_threads(1)  # many threads call torch at once
    paths = [path for path, _ in ImageFolder(str(form)).samples]
    source = itertools.chain.from_iterable(random.sample(paths, len(paths)) for _ in itertools.count())
    built = PipelineBuilder().add_source(source).pipe(work, concurrency=workers).aggregate(size, drop_last=True)
    pipeline = built.pipe(join).add_sink(2).build(num_threads=workers)
    with pipeline.auto_stop():
        yield from pipeline


def spdl_torch(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """SPDL's threads around torchvision's decoder and crop, which release the interpreter."""
    return spdl_pipeline(form, lambda path: FROM_TENSOR(decoded(path)), torch.stack, batch_size, workers)


def spdl_io(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """SPDL with its own decoder: FFmpeg decodes, crops, resizes and mirrors in one filter graph; frames become one batch.

    swscale widens its bilinear filter when it makes a picture smaller, so it is antialiased.
    """
    import spdl.io

    def work(path: str) -> Any:
        packets = spdl.io.demux_image(path)
        left, top, width, height = random_box(packets.width, packets.height)
        flip = "hflip," if random.random() < 0.5 else ""
        graph = f"crop={width}:{height}:{left}:{top}:exact=1,scale={SIDE}:{SIDE}:flags=bilinear,{flip}format=rgb24"
        return spdl.io.decode_packets(packets, filter_desc=graph)

    def join(frames: list[Any]) -> torch.Tensor:
        return spdl.io.to_torch(spdl.io.convert_frames(frames))

    return spdl_pipeline(form, work, join, batch_size, workers)


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height as RandomResizedCrop draws them, without tensors: a filter graph takes numbers."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return random.randint(0, width - wide), random.randint(0, height - tall), wide, tall
    wide, tall = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (width - wide) // 2, (height - tall) // 2, wide, tall


# ---------------------------------------------------------------- formats of their own


def write_webdataset(files: list[File], folder: Path, cores: int) -> None:
    """Tar shards."""
    import webdataset

    # One shard for each worker at least: a worker without a shard would have nothing to do.
    count = max(8, sum(path.stat().st_size for path, _ in files) // SHARD_BYTES)
    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=-(-len(files) // count), verbose=0) as sink:
        for number, (path, label) in enumerate(files):
            sink.write({"__key__": f"{number:08d}", "jpg": path.read_bytes(), "cls": label})


def read_webdataset(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """Resampled shards, a shuffle buffer, Pillow; batches are made in the workers."""
    import webdataset

    shards = sorted(str(path) for path in form.glob("*.tar"))
    dataset = webdataset.WebDataset(shards, resampled=True, shardshuffle=False, nodesplitter=None)
    photos = dataset.shuffle(1000).decode("pilrgb").to_tuple("jpg", "cls").map_tuple(FROM_PIL, int).batched(batch_size)
    loader = webdataset.WebLoader(photos, batch_size=None, num_workers=workers, persistent_workers=True)
    return (images for images, _ in loader)


def write_streaming(files: list[File], folder: Path, cores: int) -> None:
    """MDS shards, not compressed a second time; the files' bytes are kept."""
    from streaming import MDSWriter

    columns = {"x": "jpeg", "y": "int"}
    with MDSWriter(out=str(folder), columns=columns, compression=None, size_limit=SHARD_BYTES) as writer:
        for path, label in files:
            with Image.open(path) as image:
                writer.write({"x": image, "y": label})


def read_streaming(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """StreamingDataset on local shards, its own shuffle."""
    from streaming import StreamingDataset

    class Photos(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return from_pil(row["x"]), row["y"]

    dataset = Photos(local=str(form), shuffle=True, batch_size=batch_size, epoch_size=200_000)
    return of_torch(dataset, batch_size, workers)


class LitdataRows:
    """Rows by number: the bytes as they are, typed as an image. litdata sees no path of a source file."""

    def __init__(self, files: list[File]) -> None:
        self.files = files

    def __call__(self, number: int) -> dict[str, Any]:
        import litdata

        path, label = self.files[number]
        return {"image": litdata.Image(bytes=path.read_bytes()), "label": label}


def write_litdata(files: list[File], folder: Path, cores: int) -> None:
    """Optimised chunks, by as many processes as there are cores.

    litdata deletes its two cache folders when it starts, with all that lies in them; where nothing is said they are `chunks` and
    `data` in the system's temporary folder, which may well be somebody's. So they are named, beside the result.
    """
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder.parent / f"{folder.name}-cache" / "chunks")
    os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = str(folder.parent / f"{folder.name}-cache" / "data")
    import litdata

    rows = LitdataRows(files)
    litdata.optimize(rows, list(range(len(files))), str(folder), chunk_bytes=SHARD_BYTES, num_workers=cores, verbose=False)


class Cropped:
    """litdata decodes with torchvision's decoder; the crop follows on the tensor."""

    def __call__(self, row: Any) -> torch.Tensor:
        return FROM_TENSOR(row["image"])


def read_litdata(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """StreamingDataset and StreamingDataLoader, cycled without end."""
    import litdata

    dataset = litdata.StreamingDataset(str(form), shuffle=True, drop_last=True, transform=Cropped())
    endless = litdata.ParallelStreamingDataset([dataset], length=float("inf"))
    loader = litdata.StreamingDataLoader(
        endless, batch_size=batch_size, num_workers=workers, persistent_workers=True, drop_last=True
    )
    return (batch[0] for batch in forever(loader))


def write_datasets(files: list[File], folder: Path, cores: int) -> None:
    """Parquet with the files' bytes inside."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [{"bytes": path.read_bytes(), "path": None} for path, _ in files], "label": [label for _, label in files]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "train.parquet"))


def datasets_transform(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """On the fly, on Pillow images, as its documentation of image classification has it."""
    return {"image": [from_pil(image) for image in rows["image"]], "label": rows["label"]}


def collate(rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to a batch, in the worker."""
    return torch.stack([row["image"] for row in rows]), torch.tensor([row["label"] for row in rows])


def read_datasets(form: Path, batch_size: int, workers: int) -> Iterator[Any]:
    """Memory-mapped Arrow made from the parquet file, in PyTorch's loader."""
    import datasets

    cache = str(form.parent / f"{form.name}-cache")
    dataset = datasets.load_dataset("parquet", data_files=str(form / "train.parquet"), split="train", cache_dir=cache)
    dataset.set_transform(datasets_transform)
    return of_torch(dataset, batch_size, workers, collate_fn=collate)


PEERS = {
    "torchvision": Peer("torchvision", "torchvision", torchvision_pil),
    "torchvision-io": Peer("torchvision", "torchvision", torchvision_io),
    "timm": Peer("timm", "timm", timm),
    "webdataset": Peer("webdataset", "webdataset", read_webdataset, write_webdataset),
    "streaming": Peer("mosaicml-streaming", "streaming", read_streaming, write_streaming),
    "litdata": Peer("litdata", "litdata", read_litdata, write_litdata),
    "datasets": Peer("datasets", "datasets", read_datasets, write_datasets),
    "spdl": Peer("spdl", "spdl.pipeline", spdl_torch),
    "spdl-io": Peer("spdl", "spdl.io", spdl_io),
}
"""Names on the command line."""


def absent(name: str) -> str:
    """Why a peer cannot run here; empty where it can."""
    peer = PEERS[name]
    try:
        importlib.import_module(peer.module)
        if name == "spdl-io":
            import spdl.io

            spdl.io.utils.get_ffmpeg_versions()  # loads FFmpeg's libraries, which do not come with it
    except Exception as error:  # whatever it is, the others go on and the result names it
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ""


def confined(home: Path) -> dict[str, str]:
    """The environment of a peer's process: caches and temporary files within `home` only, no network, no progress bars.

    Some peers write to, or clear, folders below $HOME and $TMPDIR.
    """
    own = {name: str(home / name.lower()) for name in ("TMPDIR", "HOME", "HF_HOME", "XDG_CACHE_HOME", "STRIATE_CACHE")}
    for folder in own.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    off = (
        "HF_HUB_OFFLINE",
        "HF_DATASETS_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_DATASETS_DISABLE_PROGRESS_BARS",
        "DO_NOT_TRACK",
    )
    return {**os.environ, **own, **dict.fromkeys(off, "1")}
