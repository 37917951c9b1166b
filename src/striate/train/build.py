"""From a recipe and a run folder to everything that the loop needs, at the newest valid checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from striate import machine
from striate.classes import Classes
from striate.data import boxes as boxes_of
from striate.data import resident
from striate.data.augment import colour
from striate.data.augment.draw import Augmentation
from striate.data.index import Boxes, Index
from striate.data.layouts.splits import Splits
from striate.data.loader import Source, Streaming, Workers
from striate.data.order import BLOCK_ROWS, Order, bounds, steps_per_epoch
from striate.data.pack.store import in_blocks
from striate.errors import BatchTooSmallError, CheckpointError, DataError, UserError
from striate.files import sha256_file, write_json
from striate.models import grey, heads, pretrained, sizes
from striate.ranks import Ranks
from striate.recipe import Recipe, change, seconds
from striate.run import checkpoint
from striate.run.folder import Run, build_classifier, with_box_head
from striate.train import average, budget, layers, optim, schedule
from striate.train import loss as losses
from striate.train.state import State
from striate.train.step import Mixing, Step, normalises_batches
from striate.view import View

Progress = Callable[[int, int], None] | None
# Training images that are scored in evaluation mode beside the validation set, to tell over- from underfitting.
TRAIN_SAMPLE = 1000

# Outputs of a convolution from which on channels last is safe everywhere.
NARROW = 8


@dataclass(frozen=True)
class Images:
    """A set of images with where its pixels come from, ready to be scored."""

    index: Index
    source: Source
    split: str


@dataclass
class Training:
    """Everything that `build` put together from a recipe and a run folder.

    boxes: of the training images as their source gives them, where there is a box head to train.
    begun_with: the trained weights that went in just now, as {"weights": where from, "weights_digest": SHA-256}.
    """

    recipe: Recipe
    run: Run
    classes: Classes
    view: View
    train: Index
    source: Source
    boxes: Boxes | None
    scored: list[Images]
    augmentation: Augmentation
    is_batched: bool
    on_device: torch.Tensor | None
    order: Order
    step: Step
    state: State
    device: torch.device
    workers: Workers
    ranks: Ranks
    steps_per_epoch: int
    notes: list[str]
    begun_with: dict[str, str] | None


def build(
    recipe: Recipe,
    run: Run,
    splits: Splits,
    device: torch.device,
    workers: Workers,
    ranks: Ranks,
    progress: Progress = None,
) -> Training:
    """Puts a training together: data, network, optimiser, and the state of the newest valid checkpoint.

    recipe: resolved. run: with classes.json and view.json written. progress: called with (done, total) while
    images are decoded for memory. Raises UserError, DataError, CheckpointError; in every process, when in one.
    """
    training = begin_or_resume(recipe, run, splits, device, workers, ranks)
    seen = ranks.exchange([one.fingerprint for one in (splits.train, splits.val) if one is not None])
    if any(other != seen[0] for other in seen):
        raise DataError(f"{splits.train.root}: the processes do not see the same images. Give all of them the same data.")
    # The first process decodes into the cache, the others read it there.
    for turn in (ranks.is_first, not ranks.is_first)[: min(2, ranks.world)]:
        with ranks.together():
            if turn:
                _open_sources(training, splits, progress)
    return training


def begin_or_resume(recipe: Recipe, run: Run, splits: Splits, device: torch.device, workers: Workers, ranks: Ranks) -> Training:
    """Everything but the pixels: what is wrong with it is told before any of them is decoded.

    Its images come from their files; which ones are scored is left open.
    """
    notes: list[str] = []
    with ranks.together():
        found = _newest(run, notes) if ranks.is_first else None
    stamp = ranks.share(None if found is None else [found.step, _stamp(found.path)])
    with ranks.together():
        model = _fresh_network(recipe, run)
        sizes.check_input(model, recipe.model.name, run.view.size_px, run.view.channels, training=True)
    source = _weights(recipe, ranks) if stamp is None else None
    with ranks.together():
        if source is not None:
            model = _with_weights(model, source, recipe, run, notes)
        model = _with_box_head(model, recipe, run)
        training = _put_together(recipe, run, splits, model, device, workers, ranks, notes)
    if source is not None:
        training.begun_with = {"weights": source.where, "weights_digest": source.digest}
    if stamp is not None:
        _resume(training, found, *stamp)
    return training


def _fresh_network(recipe: Recipe, run: Run) -> torch.nn.Module:
    """The network on the CPU with its initial weights, which only the recipe decides; its box head comes later."""
    machine.forget_global_randomness(machine.stream_seed(recipe.optim.seed, "initial weights"))
    return build_classifier(recipe, len(run.classes.ids))


def _with_box_head(model: torch.nn.Module, recipe: Recipe, run: Run) -> torch.nn.Module:
    """The network with a fresh box head, if the recipe asks for one. Its draws are its own: the network's stay as they were."""
    machine.forget_global_randomness(machine.stream_seed(recipe.optim.seed, "initial box head"))
    return with_box_head(model, recipe, len(run.classes.ids))


def _weights(recipe: Recipe, ranks: Ranks) -> pretrained.Weights | None:
    """The trained weights that the recipe begins with, opened in every process; None where it names none.

    Raises CheckpointError when the processes do not read the same ones, and what opening them raises.
    """
    wanted, source = recipe.model.weights, None
    if wanted is None:
        return None
    # The first process fetches a published set, the others find it on the disk.
    for turn in (ranks.is_first, not ranks.is_first)[: min(2, ranks.world)]:
        with ranks.together():
            if turn:
                source = pretrained.read(recipe.model.name, wanted)
    assert source is not None
    if len(set(ranks.exchange(source.digest))) > 1:
        raise CheckpointError(f"--weights {wanted}: the processes do not read the same weights. Give all of them the same file.")
    return source


def _with_weights(
    model: torch.nn.Module, source: pretrained.Weights, recipe: Recipe, run: Run, notes: list[str]
) -> torch.nn.Module:
    """The network with trained weights, its head fresh where its classes are not those of the weights."""
    name, options, classes = recipe.model.name, recipe.model.options, run.classes
    is_summed = recipe.data.colour == "grey" and not _are_grey(source, model, recipe, run)
    if is_summed:  # weights for three channels go into the network for three, which is then made grey
        model = _fresh_network(change(recipe, {"data.colour": "rgb"}), run)
    outputs = pretrained.outputs_of(source, name, options)
    are_others = source.classes is not None and source.classes.ids != classes.ids
    has_fresh_head = are_others or outputs != len(classes.ids)
    loaded = pretrained.put_into(model, name, source, fresh_head=has_fresh_head, options=options)
    notes.append(f"Weights: {loaded.where}, SHA-256 {loaded.digest[:12]}…")
    notes += loaded.notes
    if not has_fresh_head and source.classes is None:
        notes.append(f"The head is that of the weights: they have {outputs} outputs too, and do not say what these mean.")
    if is_summed:
        notes.append("--data.colour grey: the kernels of the first layer are summed over the three channels of the weights.")
    return grey.one_channel(model, name) if is_summed else model


def _are_grey(source: pretrained.Weights, model: torch.nn.Module, recipe: Recipe, run: Run) -> bool:
    """Whether weights go as they are into a grey network: they are of one channel, or it takes one by its own options."""
    three = _fresh_network(change(recipe, {"data.colour": "rgb"}), run)
    own = [tensor.shape for tensor in model.state_dict().values()]
    shapes = {name: tensor.shape for name, tensor in source.tensors.items()}
    return own == [tensor.shape for tensor in three.state_dict().values()] or grey.are_one_channel(shapes, three)


def _put_together(
    recipe: Recipe,
    run: Run,
    splits: Splits,
    model: torch.nn.Module,
    device: torch.device,
    workers: Workers,
    ranks: Ranks,
    notes: list[str],
) -> Training:
    """Everything but the pixels and what a checkpoint holds."""
    o, b = recipe.optim, recipe.budget
    view, classes = run.view, run.classes
    per_epoch = steps_per_epoch(len(splits.train), o.batch_size)
    if ranks.world > o.batch_size:
        raise UserError(
            f"--batch-size {o.batch_size}: {ranks.world} processes need at least one image each. Start fewer processes, or "
            f"take --batch-size {ranks.world} or more."
        )
    for field, wanted in {"--patience": b.patience > 0, "--schedule plateau": o.schedule == "plateau"}.items():
        if wanted and splits.val is None:
            raise UserError(
                f"{field}: needs validation images, and {splits.train.root} has none. Leave it out, or add a val folder."
            )
    order = Order(
        o.seed,
        len(splits.train),
        o.batch_size,
        splits.train.labels if recipe.data.sampling == "classes" else None,
        ranks.rank,
        ranks.world,
        recipe.data.order == "blocks",
        recipe.data.sampling == "bootstrap",
    )
    channels_last = o.channels_last and not (device.type == "cpu" and is_narrow(model))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(device).to(memory_format=layout).train()
    rates = _tuned(model, recipe, notes)
    least = min(last - first for first, last in bounds(o.batch_size, ranks.world)) // o.accumulate
    if least < 2 and normalises_batches(model):
        raise BatchTooSmallError(
            "optim.batch_size: batch normalisation needs 2 images or more per micro-batch and process; raise --batch-size."
        )
    optimizer = optimizer_of(recipe, model, o.lr, rates)
    augmentation = augmentation_of(recipe, view)
    is_batched = recipe.augment.execution == "batched"
    class_weights = _class_weights(recipe, splits, len(classes.ids))
    step = Step(
        model,
        optimizer,
        view=view,
        device=device,
        precision=machine.choose_precision(o.precision, device),
        channels_last=channels_last,
        compiled=o.compile,
        accumulate=o.accumulate,
        clip_norm=o.clip_norm,
        filter_rms=o.filter_rms,
        smoothing=recipe.loss.smoothing,
        aux_weight=recipe.loss.aux_weight,
        l2=recipe.loss.l2,
        l2_layers=recipe.loss.l2_layers,
        box=recipe.loss.box,
        box_weight=recipe.loss.box_weight,
        class_weights=class_weights.to(device) if class_weights is not None else None,
        augmentation=augmentation if is_batched else None,
        mixing=Mixing(recipe.augment.mixup, recipe.augment.cutmix, recipe.augment.mix_share),
        seed=o.seed,
        ranks=ranks,
    )
    total = total_steps(recipe, per_epoch)
    plan = budget.first_plan(total, round(o.warmup_epochs * per_epoch))
    mean = average.Average(model, None if o.swa_from else o.ema) if o.ema or o.swa_from else None
    state = State(model, optimizer, mean, step.scaler, plan)
    if not o.deterministic:
        notes.append("Not deterministic (--no-deterministic): the same command may give other bits, also after a resume.")
    if b.time is not None and not schedule.ends(o.schedule):
        notes.append(f"--schedule {o.schedule} keeps its rule: it is not laid out to end with --for {b.time}.")
    if o.lr_scaling != "none":
        notes.append(schedule.peak_in_words(o.lr, o.lr_scaling, o.batch_size, o.lr_batch_size))
    if class_weights is not None:
        shown = [f"{name} {weight:.3g}" for name, weight in zip(classes.ids, class_weights.tolist(), strict=True)]
        more = f" … ({len(shown)} in all)" if len(shown) > 8 else ""
        notes.append(f"Weights of the classes in the loss: {', '.join(shown[:8])}{more}.")
    if ranks.world > 1 and normalises_batches(model):
        notes.append(
            f"Batch normalisation sees the {least} images of one process at a time; its running statistics are the mean over "
            f"the {ranks.world} processes."
        )
    if recipe.data.order == "blocks":
        splits = replace(splits, train=in_blocks(splits.train, BLOCK_ROWS))
    source = Streaming(splits.train, recipe.data.exif == "on", recipe.data.shrink_px)
    boxes = _boxes(recipe, splits.train, notes)
    return Training(
        recipe,
        run,
        classes,
        view,
        splits.train,
        source,
        boxes,
        [],
        augmentation,
        is_batched,
        None,
        order,
        step,
        state,
        device,
        workers,
        ranks,
        per_epoch,
        notes,
        None,
    )


def _boxes(recipe: Recipe, train: Index, notes: list[str]) -> Boxes | None:
    """The boxes that a box head learns from. Raises DataError where there are none, or one that cannot be."""
    if recipe.model.boxes == "none":
        return None
    found = boxes_of.seen(train, recipe.data.exif == "on", recipe.data.shrink_px)
    without = int((np.diff(found.rows) == 0).sum())
    if without:
        notes.append(
            f"--boxes {recipe.model.boxes}: {without:,} of {len(train):,} training images have no box; they train classes."
        )
    return found


def optimizer_of(recipe: Recipe, model: torch.nn.Module, lr: float, rates: dict[str, float]) -> torch.optim.Optimizer:
    """The optimiser that the recipe names, at a learning rate. rates: factor of each parameter's rate, see `layers.rates`."""
    o = recipe.optim
    return optim.build(
        model,
        o.name,
        lr=lr,
        momentum=o.momentum,
        nesterov=o.nesterov,
        betas=o.betas,
        eps=o.eps,
        rms_decay=o.rms_decay,
        trust=o.trust,
        weight_decay=o.weight_decay,
        decay_all=o.decay_all,
        rates=rates,
    )


def is_narrow(model: torch.nn.Module) -> bool:
    """Whether a convolution has fewer than 8 outputs: on some processors oneDNN's backward pass of such ones with channels last
    writes beyond its memory, and the process dies (docs/log.md)."""
    return any(isinstance(layer, torch.nn.Conv2d) and layer.out_channels < NARROW for layer in model.modules())


def _tuned(model: torch.nn.Module, recipe: Recipe, notes: list[str]) -> dict[str, float]:
    """Freezes what the recipe freezes; returns the factor of each parameter's rate, empty where all are the same."""
    o, name, options = recipe.optim, recipe.model.name, recipe.model.options
    head = tuple(key for key, _ in model.named_parameters() if key.startswith(f"{heads.BOX_HEAD}."))
    if o.freeze == "backbone" or (o.freeze != "classifier" and (o.head_lr, o.layer_decay) != (1, 1)):
        head += heads.of(name, options)
    layers.freeze(model, o.freeze, head)
    if o.freeze != "none":
        notes.append(layers.frozen_in_words(model, o.freeze))
        if recipe.model.weights is None:
            notes.append(f"--freeze {o.freeze} without --weights: the frozen layers keep their random start.")
    if (o.head_lr, o.layer_decay) == (1, 1):
        return {}
    rates = layers.rates(model, head, o.head_lr, o.layer_decay)
    notes.append(layers.rates_in_words(model, rates))
    return rates


def _open_sources(training: Training, splits: Splits, progress: Progress) -> None:
    """Where the pixels come from: of the training images, and of those that are scored."""
    recipe, workers, notes = training.recipe, training.workers, training.notes
    training.source, more = _source(recipe, splits.train, None, workers, progress)
    notes += more
    if training.is_batched and isinstance(training.source, resident.Resident) and training.device.type != "cpu":
        training.on_device = training.source.on(training.device)
    sample = machine.permutation(recipe.optim.seed, "train sample", 0, len(splits.train))
    part = splits.train.select(np.sort(sample[: min(TRAIN_SAMPLE, len(splits.val or splits.train))]), "train-sample")
    if splits.val is not None:
        source, more = _source(recipe, splits.val, training.view, workers, progress)
        training.scored.append(Images(splits.val, source, "val"))
        notes += more
    training.scored.append(Images(part, _source(recipe, part, training.view, workers, progress)[0], "train-sample"))


def _class_weights(recipe: Recipe, splits: Splits, classes: int) -> torch.Tensor | None:
    """Weight of each class in the loss, or None where all count the same. Raises UserError for a wrong number of them."""
    if recipe.loss.balance:
        return losses.balanced_weights(splits.train.labels, classes)
    if recipe.loss.class_weights:
        return losses.given_weights(recipe.loss.class_weights, splits.train.labels, classes)
    return None


def augmentation_of(recipe: Recipe, view: View) -> Augmentation:
    """What the recipe does to each training image. recipe: resolved."""
    a = recipe.augment
    red, green, blue = (round(255 * mean) for mean in view.mean_rgb)
    return Augmentation(
        crop=a.crop,
        scale=a.scale,
        ratio=a.ratio,
        shift_px=a.shift_px,
        flip=a.flip,
        size_px=recipe.data.size_px,
        interpolation=recipe.data.interpolation,
        fit=recipe.data.fit,
        shorter_px=a.shorter_px if a.shorter_px != (0, 0) else (round(recipe.data.size_px / recipe.data.crop_share),) * 2,
        rotate=a.rotate,
        translate=a.translate,
        shear=a.shear,
        brightness=a.brightness,
        contrast=a.contrast,
        saturation=a.saturation,
        hue=a.hue,
        lighting=a.lighting,
        lighting_axes=(a.lighting_axes if a.lighting_from == "dataset" else ()) or colour.IMAGENET_AXES,
        policy=a.policy,
        policy_operations=a.policy_operations,
        policy_magnitude=a.policy_magnitude,
        erase=a.erase,
        erase_area=a.erase_area,
        erase_ratio=a.erase_ratio,
        cutout_px=a.cutout_px,
        cutout_colour=(red, green, blue),
        resampler="pillow" if a.resampler == "auto" else a.resampler,  # runs begun before there was a choice say nothing
    )


def _source(recipe: Recipe, index: Index, view: View | None, workers: Workers, progress: Progress) -> tuple[Source, list[str]]:
    """Where an index's pixels come from: memory if the recipe says so, else the files. view: None for training."""
    if recipe.data.resident != "yes":
        return Streaming(index, recipe.data.exif == "on", 0 if view else recipe.data.shrink_px), []
    prepare = view or resident.Prepare(recipe.data.exif == "on", recipe.data.shrink_px)
    # Of several processes one decodes at a time, so it takes the others' cores.
    images = resident.build(index, prepare, max(machine.cores(shared=False), workers.count), progress=progress)
    return images, [f"{index.split}: {note}" for note in images.notes]


def _resume(training: Training, found: checkpoint.Checkpoint | None, step: int, stamp: str) -> None:
    """Takes over the newest valid checkpoint. found: it, in the first process."""
    state, recipe = training.state, training.recipe
    with training.ranks.together():
        if found is None:
            found = _the_same(training, step, stamp)
        state.restore(found)
    patience = recipe.budget.patience
    if found.state.get("recipe") != recipe.hash:
        state.since_best = 0  # an --override was accepted: what was out of patience gets another chance
    if training.ranks.is_first and state.best is not None and state.best != training.run.best:
        write_json(training.run.path / "best.json", state.best)  # a kill came between a save and its best.json
    if 0 < patience <= state.since_best:
        return  # ended early, and only its last evaluation or its report may be missing
    total = total_steps(recipe, training.steps_per_epoch)
    warmup = round(recipe.optim.warmup_epochs * training.steps_per_epoch)
    if recipe.budget.time is not None:
        share = state.elapsed_s / seconds(recipe.budget.time)
        if share < 0.9:  # ended, and then given more time: --override budget.time
            state.plan = budget.reopened(state.plan, state.step, share, warmup)
    if total is not None and state.plan.total_steps != total:
        training.notes.append(
            f"The schedule is laid anew over {total} steps instead of {state.plan.total_steps}, from step {state.step} on."
        )
        state.plan = budget.first_plan(total, min(warmup, total))


def _newest(run: Run, notes: list[str]) -> checkpoint.Checkpoint | None:
    """The newest valid checkpoint on the disk, after cleaning up what a save that was killed left behind."""
    swept = checkpoint.sweep(run.checkpoints)
    found, complaints = checkpoint.newest(run.checkpoints)
    notes += [f"Passed over: {complaint}" for complaint in complaints]
    notes += [f"Removed {name}, left by a save that was cut short." for name in swept]
    return found


def _the_same(training: Training, step: int, stamp: str) -> checkpoint.Checkpoint:
    """The checkpoint that the first process chose. Raises CheckpointError when this process does not see the same one."""
    path = training.run.checkpoints / f"step-{step}"
    if not (path / "manifest.json").is_file() or _stamp(path) != stamp:
        raise CheckpointError(
            f"{path}: not the checkpoint that the first process goes on from. All processes need the same run folder: "
            "put --out on a disk that all of them see."
        )
    return checkpoint.read(path)


def _stamp(path: Path) -> str:
    return sha256_file(path / "manifest.json")


def total_steps(recipe: Recipe, per_epoch: int) -> int | None:
    """Optimiser steps of the budget; None for a time budget. Raises UserError when there is none."""
    b = recipe.budget
    total = b.steps if b.steps is not None else (round(b.epochs * per_epoch) if b.epochs is not None else None)
    if total == 0:
        raise UserError(f"budget.epochs: {b.epochs} epochs of {per_epoch} steps are less than one step.")
    return total
