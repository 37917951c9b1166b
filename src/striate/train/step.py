"""One optimiser step: forward, loss, backward, checks, update; or nothing at all when a number is not finite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from striate.data import mixing
from striate.data.augment.draw import Augmentation
from striate.data.batched import apply as batched
from striate.data.loader import Batch
from striate.data.order import bounds
from striate.machine import autocast, copied, reseed_torch
from striate.ranks import Ranks
from striate.taps import Tap, taps
from striate.train import filters, optim
from striate.train import loss as losses_of
from striate.train.buckets import Buckets
from striate.train.vitals import DeadUnits, Vitals
from striate.view import View


@dataclass(frozen=True)
class Mixing:
    """What is done to pairs of images: alpha of MixUp and of CutMix, and the share of the batches it is done to."""

    mixup: float
    cutmix: float
    share: float


@dataclass(frozen=True)
class _Micro:
    """A micro-batch on the device. partners: labels mixed in, with the share of the image's own label, or None.

    boxes: [B, 4] of the objects in pixels of the view, four NaN where there is none; None for a network without a box head.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    partners: torch.Tensor | None = None
    own_share: torch.Tensor | None = None
    boxes: torch.Tensor | None = None


@dataclass(frozen=True)
class Outcome:
    """What one step did, over all processes.

    loss: the minimised total. losses: by head, before weighing. hits: images whose main head was right.
    gradient_norm: before clipping. skipped: why the step was not taken, or None. first_bad_layer, bad_keys: of
    a skipped step, where the first value that is not finite appeared and for which images.
    """

    loss: float
    losses: dict[str, float]
    hits: int
    images: int
    gradient_norm: float
    skipped: str | None = None
    first_bad_layer: str | None = None
    bad_keys: tuple[str, ...] = ()
    norms: dict[str, dict[str, float]] | None = None
    dead_share: dict[str, float] | None = None


class Step:
    """The step of one training; holds what lives on between steps: the loss scaler and a spare copy of the buffers.

    model: in training mode; layers that are in evaluation mode stay in it, as the batch norms of frozen layers do.
    ranks: each process takes its part of the batch; what counts is added up, so all of them do the same step.
    augmentation: what is left to do to a batch on the device, or None when its images came finished.

    A step that is skipped leaves everything as it was: weights, momentum, BatchNorm statistics. (One batch
    with an infinite value would otherwise make a running variance NaN for good.)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        view: View,
        device: torch.device,
        precision: Literal["bf16", "fp16", "fp32"],
        channels_last: bool,
        compiled: bool,
        accumulate: int,
        clip_norm: float,
        filter_rms: float,
        smoothing: float,
        aux_weight: float,
        l2: float,
        l2_layers: tuple[str, ...],
        box: Literal["giou", "l2"],
        box_weight: float,
        class_weights: torch.Tensor | None,
        augmentation: Augmentation | None,
        mixing: Mixing,
        seed: int,
        ranks: Ranks,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._forward: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
        self._compiled = compiled
        self._view, self._device, self._precision = view, device, precision
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self._accumulate, self._clip_norm, self._filter_rms = accumulate, clip_norm, filter_rms
        self._smoothing, self._aux_weight, self._l2 = smoothing, aux_weight, l2
        self._penalised = losses_of.penalised(model, l2_layers) if l2 > 0 else []
        self._box: Literal["giou", "l2"] = box
        self._box_weight = box_weight
        self._class_weights = class_weights
        self._augmentation, self._mixing = augmentation, mixing
        self._seed, self._ranks = seed, ranks
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._buckets = Buckets(self._parameters) if ranks.world > 1 else None
        self._buffers = list(model.buffers())
        self._resting = [module for module in model.modules() if not module.training]
        self._statistics = [
            statistic
            for module in _normalising(model)
            for statistic in (module.running_mean, module.running_var)
            if statistic is not None
        ]
        self._least = 2 if normalises_batches(model) else 1
        self._spare = [buffer.clone() for buffer in self._buffers]
        self._relus = DeadUnits.layers(model)

    def __call__(self, batch: Batch, step: int, lr: float, look: bool, count: int) -> Outcome:
        """Takes step number `step` (from 0) at learning rate `lr`; `look` measures norms and dead units as well.

        count: images of the step over all processes; `batch` has this process' part of them.
        """
        if count < self._least:
            return Outcome(0.0, {}, 0, count, 0.0, skipped=f"{count} readable images in the batch")
        optim.set_rate(self.optimizer, lr)
        self._clear_gradients()
        for module in self._resting:  # a model.train() elsewhere must not set the statistics of frozen layers in motion
            module.training = False
        if self._buffers:
            torch._foreach_copy_(self._spare, self._buffers)
        dead = DeadUnits()
        watched = {name: dead.watch(name) for name in self._relus} if look and not self._compiled else {}
        sums: dict[str, torch.Tensor] = {}
        facts = torch.zeros(2, device=self._device)  # loss, and how many images the main head got right
        with taps(self.model, watched):
            micros = list(self._micro_batches(batch, step))
            for number, micro in micros:
                reseed_torch(self._seed, step, number)
                outputs, heads = self._losses(micro)
                part = len(micro.labels) / count
                loss = losses_of.total(heads, self._aux_weight, self._l2, self._penalised, self._box_weight) * part
                with self._backward(is_last=number == micros[-1][0]):
                    self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                facts += torch.stack([loss.detach(), _right(outputs["main"].detach(), micro)])
                for name, value in heads.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() * part
        if not sums:  # of this process' images none is usable: its gradients are zeros, and the scaler has seen no loss
            self.scaler.scale(torch.zeros((), device=self._device))
        if self._buckets is not None:
            self._add_up(self._buckets, facts)
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        gradient_norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        loss_value, hits, norm_value = torch.cat(
            [facts, gradient_norm.float().reshape(1)]
        ).tolist()  # the one wait for the device
        losses = self._summed({name: float(value) for name, value in sums.items()}) if look else {}
        if not torch.isfinite(torch.tensor([loss_value, norm_value])).all():
            return self._skip(batch, step, loss_value, norm_value, count)
        if 0 < self._clip_norm < norm_value:
            torch._foreach_mul_(gradients, self._clip_norm / (norm_value + 1e-6))
        vitals = Vitals(self.model) if look else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self._filter_rms > 0:
            filters.limit_rms(self.model, self._filter_rms)
        return Outcome(
            loss_value,
            losses,
            int(hits),
            count,
            norm_value,
            norms=vitals.after() if vitals else None,
            dead_share=dead.shares if watched else None,
        )

    def usable(self, images: int) -> int:
        """How many of a process' images count: batch normalisation can do nothing with a single one."""
        return images if images >= self._least else 0

    def _clear_gradients(self) -> None:
        if self._buckets is not None:
            self._buckets.clear()
        else:
            self.optimizer.zero_grad(set_to_none=True)

    def _backward(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Around a backward pass: after the last one of several processes the gradients leave as they come."""
        if self._buckets is not None and is_last:
            return self._buckets.leaving(self._ranks)
        return contextlib.nullcontext()

    def _add_up(self, buckets: Buckets, facts: torch.Tensor) -> None:
        """Gradients and facts become those of the whole batch; BatchNorm's statistics the mean over the processes."""
        averaged = self._statistics
        flat = torch.cat([facts, *(buffer.reshape(-1).float() / self._ranks.world for buffer in averaged)])
        buckets.add_up(self._ranks, flat)
        facts.copy_(flat[:2])
        parts = torch.split(flat[2:], [buffer.numel() for buffer in averaged])
        for buffer, part in zip(averaged, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def _summed(self, losses: dict[str, float]) -> dict[str, float]:
        """Losses by head, over all processes."""
        found = self._ranks.exchange(losses)
        return {name: sum(one.get(name, 0.0) for one in found) for name in dict.fromkeys(name for one in found for name in one)}

    def fits(self, count: int, size_px: int) -> bool:
        """Whether a forward and backward pass of that many black images finds enough memory; nothing is updated."""
        images = torch.zeros(count, 3, size_px, size_px, dtype=torch.uint8)
        try:
            pixels = self._view.normalise(images.to(self._device), torch.float32).contiguous(memory_format=self.layout)
            _, heads = self._losses(_Micro(pixels, torch.zeros(count, dtype=torch.int64, device=self._device)))
            losses_of.total(heads, self._aux_weight, 0.0, []).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:
            return False
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return True

    def _micro_batches(self, batch: Batch, step: int) -> Iterator[tuple[int, _Micro]]:
        """This process' part of the batch on the device, cut up: (number over all processes, micro-batch)."""
        if len(batch.labels) < self._least:
            return  # bad images left too few for batch normalisation here; the other processes take the step
        if self._augmentation is not None:
            images = batched.apply(batch, self._augmentation, self._device)
        else:
            images = copied(batch.images, self._device)
        labels = copied(batch.labels, self._device)
        pixels = self._view.normalise(images, torch.float32)
        partners = own_share = None
        m = self._mixing
        mix = mixing.choose(self._seed, step, mixup=m.mixup, cutmix=m.cutmix, share=m.share, side=self._view.size_px)
        if mix is not None:
            pixels, partners, own_share = mixing.apply(pixels, labels, mix)
        pixels = pixels.contiguous(memory_format=self.layout)
        boxes = None if batch.boxes is None else copied(batch.boxes, self._device)
        # Bad images make a batch smaller: then fewer parts, for batch normalisation needs two images in each.
        parts = min(self._accumulate, len(labels) // self._least)
        for number, (first, last) in enumerate(bounds(len(labels), parts)):
            yield (
                self._ranks.rank * self._accumulate + number,
                _Micro(
                    pixels[first:last],
                    labels[first:last],
                    None if partners is None else partners[first:last],
                    None if own_share is None else own_share[first:last],
                    None if boxes is None else boxes[first:last],
                ),
            )

    def _losses(self, micro: _Micro) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        with autocast(self._device, self._precision):
            said = self._forward(micro.pixels)
        outputs = losses_of.heads(said)
        losses = losses_of.per_head(
            outputs,
            micro.labels,
            self._smoothing,
            class_weights=self._class_weights,
            partner_labels=micro.partners,
            share=micro.own_share,
        )
        if micro.boxes is not None:
            losses["boxes"] = losses_of.boxes(said["boxes"], micro.boxes, micro.labels, self._view.size_px, self._box)
        return outputs, losses

    def _skip(self, batch: Batch, step: int, loss: float, norm: float, count: int) -> Outcome:
        """Undoes what the forward pass changed, and finds out where the first bad value arose."""
        if self.scaler.is_enabled():
            self.scaler.update()  # by the infinite gradients that unscale_ found, if any; no step is taken
        found = self._ranks.exchange(self._diagnose(batch, step))
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._spare)
        self._clear_gradients()
        reason = f"loss is {loss}" if not _finite(loss) else f"gradient norm is {norm}"
        layer = next((layer for layer, _ in found if layer is not None), None)
        keys = tuple(key for _, keys in found for key in keys)
        return Outcome(loss, {}, 0, count, norm, skipped=reason, first_bad_layer=layer, bad_keys=keys)

    @torch.no_grad()
    def _diagnose(self, batch: Batch, step: int) -> tuple[str | None, list[str]]:
        """The first layer with a value that is not finite in a forward pass, and the images whose own loss is not finite."""
        bad: list[str] = []

        def look(name: str) -> Tap:
            def note(_layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
                if isinstance(output, torch.Tensor) and not bool(torch.isfinite(output).all()):
                    bad.append(name)

            return note

        leaves = {name: look(name) for name, module in self.model.named_modules() if name and not any(module.children())}
        keys: list[str] = []
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._spare)
        place = 0
        with taps(self.model, {} if self._compiled else leaves):
            for number, micro in self._micro_batches(batch, step):
                reseed_torch(self._seed, step, number)
                with autocast(self._device, self._precision):
                    logits = losses_of.heads(self._forward(micro.pixels))["main"].float()
                each = torch.nn.functional.cross_entropy(logits, micro.labels, reduction="none")
                keys += [batch.keys[place + int(row)] for row in (~torch.isfinite(each)).nonzero()[:, 0]]
                place += len(micro.labels)
        return (bad[0] if bad else None), keys


def _right(logits: torch.Tensor, micro: _Micro) -> torch.Tensor:
    """How many images got the label that has the larger share in them."""
    labels = micro.labels
    if micro.partners is not None and micro.own_share is not None:
        labels = torch.where(micro.own_share >= 0.5, labels, micro.partners)
    return (logits.argmax(1) == labels).sum().float()


def normalises_batches(model: nn.Module) -> bool:
    """Whether the network, in its present modes, normalises by the batch, which needs two images at a time."""
    return bool(_normalising(model))


def _normalising(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norms that look at the batch: those in training mode, which frozen ones are not, and those that keep no
    statistics."""
    found = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [module for module in found if module.training or module.running_mean is None]


def _finite(value: float) -> bool:
    return value - value == 0.0
