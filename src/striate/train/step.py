"""One optimiser step: forward, loss, backward, checks, update; or nothing at all when a number is not finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from striate.data.loader import Batch
from striate.machine import reseed_torch
from striate.taps import Tap, taps
from striate.train import loss as losses_of
from striate.train import optim
from striate.train.vitals import DeadUnits, Vitals
from striate.view import View

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Outcome:
    """What one step did.

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
        smoothing: float,
        aux_weight: float,
        l2: float,
        l2_layers: tuple[str, ...],
        seed: int,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._forward: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
        self._compiled = compiled
        self._view, self._device, self._precision = view, device, precision
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._accumulate, self._clip_norm = accumulate, clip_norm
        self._smoothing, self._aux_weight, self._l2 = smoothing, aux_weight, l2
        self._penalised = losses_of.penalised(model, l2_layers) if l2 > 0 else []
        self._seed = seed
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._buffers = list(model.buffers())
        self._spare = [buffer.clone() for buffer in self._buffers]
        self._relus = DeadUnits.layers(model)

    def __call__(self, batch: Batch, step: int, lr: float, look: bool) -> Outcome:
        """Takes step number `step` (from 0) at learning rate `lr`; `look` measures norms and dead units as well."""
        count = len(batch.labels)
        if count < 2:
            return Outcome(0.0, {}, 0, count, 0.0, skipped=f"{count} readable images in the batch")
        optim.set_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        if self._buffers:
            torch._foreach_copy_(self._spare, self._buffers)
        dead = DeadUnits()
        watched = {name: dead.watch(name) for name in self._relus} if look and not self._compiled else {}
        sums: dict[str, torch.Tensor] = {}
        total = torch.zeros((), device=self._device)
        hits = torch.zeros((), dtype=torch.int64, device=self._device)
        with taps(self.model, watched):
            for micro, (images, labels) in enumerate(self._micro_batches(batch)):
                reseed_torch(self._seed, step, micro)
                outputs, heads = self._losses(images, labels)
                part = len(labels) / count
                loss = losses_of.total(heads, self._aux_weight, self._l2, self._penalised) * part
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
                hits += (outputs["main"].detach().argmax(1) == labels).sum()
                for name, value in heads.items():
                    sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() * part
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        gradient_norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        loss_value, norm_value = torch.stack([total.float(), gradient_norm.float()]).tolist()  # the one wait for the device
        losses = {name: float(value) for name, value in sums.items()} if look else {}
        if not torch.isfinite(torch.tensor([loss_value, norm_value])).all():
            return self._skip(batch, step, loss_value, norm_value)
        if 0 < self._clip_norm < norm_value:
            torch._foreach_mul_(gradients, self._clip_norm / (norm_value + 1e-6))
        vitals = Vitals(self.model) if look else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return Outcome(
            loss_value,
            losses,
            int(hits),
            count,
            norm_value,
            norms=vitals.after() if vitals else None,
            dead_share=dead.shares if watched else None,
        )

    def fits(self, count: int, size_px: int) -> bool:
        """Whether a forward and backward pass of that many black images finds enough memory; nothing is updated."""
        images = torch.zeros(count, 3, size_px, size_px, dtype=torch.uint8)
        try:
            pixels = self._view.normalise(images.to(self._device), torch.float32).contiguous(memory_format=self._format)
            _, heads = self._losses(pixels, torch.zeros(count, dtype=torch.int64, device=self._device))
            losses_of.total(heads, self._aux_weight, 0.0, []).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:
            return False
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return True

    def _micro_batches(self, batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
        images = batch.images.to(self._device, non_blocking=True)
        labels = batch.labels.to(self._device, non_blocking=True)
        pixels = self._view.normalise(images, torch.float32).contiguous(memory_format=self._format)
        # Bad images make a batch smaller: then fewer parts, for batch normalisation needs two images in each.
        parts = min(self._accumulate, len(labels) // 2)
        return list(zip(pixels.tensor_split(parts), labels.tensor_split(parts), strict=True))

    def _losses(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        with torch.autocast(self._device.type, DTYPES[self._precision], enabled=self._precision != "fp32"):
            outputs = losses_of.heads(self._forward(images))
        return outputs, losses_of.per_head(outputs, labels, self._smoothing)

    def _skip(self, batch: Batch, step: int, loss: float, norm: float) -> Outcome:
        """Undoes what the forward pass changed, and finds out where the first bad value arose."""
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # sees the infinite gradients that unscale_ found, and does nothing
            self.scaler.update()
        layer, keys = self._diagnose(batch, step)
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._spare)
        self.optimizer.zero_grad(set_to_none=True)
        reason = f"loss is {loss}" if not _finite(loss) else f"gradient norm is {norm}"
        return Outcome(loss, {}, 0, len(batch.labels), norm, skipped=reason, first_bad_layer=layer, bad_keys=keys)

    @torch.no_grad()
    def _diagnose(self, batch: Batch, step: int) -> tuple[str | None, tuple[str, ...]]:
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
            for micro, (images, labels) in enumerate(self._micro_batches(batch)):
                reseed_torch(self._seed, step, micro)
                with torch.autocast(self._device.type, DTYPES[self._precision], enabled=self._precision != "fp32"):
                    logits = losses_of.heads(self._forward(images))["main"].float()
                each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
                keys += [batch.keys[place + int(row)] for row in (~torch.isfinite(each)).nonzero()[:, 0]]
                place += len(labels)
        return (bad[0] if bad else None), tuple(keys)


def _finite(value: float) -> bool:
    return value - value == 0.0
