"""What the processes of `test_processes` do; each function runs in every process of a job."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from striate import cli, ranks, sitting
from striate.data import loader
from striate.data.loader import Streaming, Workers
from striate.files import free_bytes
from striate.progress import Display
from striate.recipe import Recipe
from striate.run import checkpoint
from striate.train import loop, scoring
from striate.train.budget import Stop
from striate.train.build import Images, build
from striate.train.pace import Pace


def plain(num_classes: int) -> nn.Module:
    """Without batch normalisation and dropout: what several processes compute is then what one computes."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, num_classes)
    )


def normalised(num_classes: int) -> nn.Module:
    """With batch normalisation and dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(128, num_classes),
    )


def spoilt(num_classes: int) -> nn.Module:
    """Sends out infinity for a white image in training."""
    model = plain(num_classes)

    def spoil(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        white = inputs[0].amin(dim=(1, 2, 3)) >= (2.2 if layer.training else torch.inf)
        return torch.where(white[:, None, None, None], torch.inf, output)

    model[0].register_forward_hook(spoil)
    return model


def train(
    data: str,
    out: str,
    name: str,
    changes: dict[str, Any],
    stop_at: list[int] | None = None,
    full_at: int | None = None,
    own_folder: bool = False,
    data_of_others: str | None = None,
) -> dict[str, Any]:
    """One sitting up to the end of the loop.

    stop_at: [rank, step] that gets a SIGTERM there. full_at: the step from which the disk of the first process is full.
    own_folder: each process keeps its runs in a folder of its own, as on machines without a shared disk.
    data_of_others: what all processes but the first read.
    Returns exit code, step, rows of every batch of this process, a hash of the weights, and kinds and values of records.
    """
    request = sitting.Request(data, Recipe(), changes, Path(out), name, workers="0", device="cpu")
    rows: list[list[int]] = []
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(ranks.joined())
        if own_folder:
            request = dataclasses.replace(request, out=Path(out) / str(group.rank))
        if data_of_others is not None and not group.is_first:
            request = dataclasses.replace(request, data=data_of_others)
        stop = stack.enter_context(Stop())
        prepared = sitting._prepared(request, group, Display(quiet=True), stack)
        if own_folder and not group.is_first:
            prepared = dataclasses.replace(prepared, run=type(prepared.run)(Path(out) / str(group.rank) / name))
        real = loader.train_batches

        def watched(*arguments: Any, **named: Any) -> Any:
            for batch in real(*arguments, **named):
                rows.append(batch.indices.tolist())
                yield batch

        loop.train_batches = watched
        stack.callback(setattr, loop, "train_batches", real)
        if full_at is not None:
            stack.callback(setattr, checkpoint, "free_bytes", free_bytes)
        records = []
        for record in loop.steps(
            prepared.recipe, prepared.run, splits=prepared.splits, device="cpu", workers="0", stop=stop, ranks=group
        ):
            records.append(record)
            if stop_at == [group.rank, record.step] and record.kind == "step":
                os.kill(os.getpid(), signal.SIGTERM)
            if full_at is not None and record.step >= full_at:
                checkpoint.free_bytes = lambda folder: 0
    last = records[-1]
    evaluations = [record.values["top1"] for record in records if record.kind == "evaluation"]
    skips = [record.values for record in records if record.kind == "skip"]
    return {
        "exit_code": last.values["exit_code"],
        "reason": last.values["reason"],
        "step": last.step,
        "rows": rows,
        "evaluations": evaluations,
        "used": [record.values["used"] for record in records if record.kind == "evaluation"],
        "losses": [record.values["loss"] for record in records if record.kind == "step"],
        "skips": skips,
        "saves": sum(record.kind == "checkpoint" for record in records),
        "notes": [record.values["text"] for record in records if record.kind == "note"],
        "threads": threading.active_count(),
    }


def score(data: str, out: str, changes: dict[str, Any], sizes: list[int], batch_sizes: list[int]) -> list[list[Any]]:
    """Scores the first images of the validation set, so many, with each batch size.

    Returns [size, batch size, used, right, mean loss] for each pair.
    """
    request = sitting.Request(data, Recipe(), changes, Path(out), "score", workers="0", device="cpu")
    found: list[list[Any]] = []
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(ranks.joined())
        prepared = sitting._prepared(request, group, Display(quiet=True), stack)
        training = build(prepared.recipe, prepared.run, prepared.splits, torch.device("cpu"), Workers.parse("0"), group)
        real = scoring.scoring_batch_size
        stack.callback(setattr, scoring, "scoring_batch_size", real)
        for size in sizes:
            assert prepared.splits.val is not None
            index = prepared.splits.val.select(np.arange(size))
            for batch_size in batch_sizes:
                scoring.scoring_batch_size = lambda view, size=batch_size: size
                images = Images(index, Streaming(index, training.view.exif), "val")
                facts = scoring._score(training, images, training.state.model, Stop(), Pace(1.0))
                assert facts is not None
                found.append([size, batch_size, facts["used"], round(facts["top1"] * facts["used"]), facts["loss"]])
    return found


def fail(which: int, kind: str) -> None:
    """One process has an error in a block that all go through together."""
    from striate import errors

    with ranks.joined() as group, group.together():
        if group.rank == which:
            raise getattr(errors, kind)("the disk of this process is full")


def command(words: list[str]) -> int:
    """The command itself, in this process."""
    return cli.run(words)


def join() -> list[int]:
    """Comes together and goes apart."""
    with ranks.joined() as group:
        return [group.rank, group.world, *group.most([group.rank]), *group.collect(np.arange(group.rank)).tolist()]
