"""What a network costs: parameters, multiply-accumulates and memory, of each layer and in total.

Counted on shapes alone, with two passes: one image in evaluation mode, two images as a training step (batch norm wants
two; numbers are given for one). MACs are those of every convolution and matrix product that torch carries out,
whichever module it stands in and also where it stands in none (attention); biases, normalisation, pooling and
additions are not counted. That is half of what torch's FlopCounterMode says, and the "FLOPs" of the papers from
ResNet on. What compiled code of other packages does inside one operation of its own is not seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import flop_registry

from striate.measure import receptive
from striate.measure.receptive import Field
from striate.models import sizes
from striate.taps import taps

# Images of the training pass, and sides at which it is tried where a smaller one fails.
_BATCH = 2
_TRAINING_SIDES = (224, 256, 299, 384, 512)


@dataclass(frozen=True)
class Layer:
    """One use of one module in evaluation mode, or of an auxiliary head in training mode; containers have no line.

    shape: of the output, without the batch; None where it is no single tensor, or where another layer uses the parameters.
    parameters: of the module itself, at its first use. macs, output_bytes: for one image. field: what its units see of the
    image, as `receptive.fields` says; None for a head.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    macs: int
    output_bytes: int
    field: Field | None
    is_auxiliary: bool


@dataclass(frozen=True)
class Cost:
    """What a network costs for one image of size_px x size_px pixels. Numbers with aux count auxiliary heads, macs does not.

    weight_bytes: parameters and buffers, of the heads too. forward_bytes: the most that live tensors take at one time in
    inference, images and output among them, weights not; what an operation takes and gives back at once is not seen.
    training_bytes: what autograd keeps of a forward pass for the backward pass, images among it; macs_with_aux and this are
    None where the network takes the size in evaluation mode only.
    """

    size_px: int
    channels: int
    layers: tuple[Layer, ...]
    parameters: int
    parameters_without_aux: int
    macs: int
    macs_with_aux: int | None
    weight_bytes: int
    forward_bytes: int
    training_bytes: int | None

    @property
    def has_aux(self) -> bool:
        """Whether there are layers that run in training mode only."""
        return self.parameters_without_aux < self.parameters

    @property
    def last_conv(self) -> Layer | None:
        """The line with MACs that sees most of the image without seeing all of it, the last of several; None where none does."""
        sizes_px = [line.field.size_px or 0 if line.macs and line.field is not None else 0 for line in self.layers]
        most = max(sizes_px, default=0)
        return next((line for line, side in zip(self.layers[::-1], sizes_px[::-1], strict=True) if side == most > 0), None)


@dataclass(frozen=True)
class Totals:
    """What a table of networks says of one: as in `Cost`."""

    parameters: int
    parameters_without_aux: int
    macs: int


def totals(model: nn.Module, size_px: int, channels: int = 3, *, name: str = "") -> Totals:
    """The counts alone, with one pass where every layer runs in evaluation mode. Otherwise as `cost`."""
    with sizes.explained(model, name or type(model).__name__, size_px, channels):
        uses, macs = _run(model, sizes.blank(model, size_px, channels), False, None)
    heads = _heads(model, uses, _training_uses(model, uses, size_px, channels))
    parameters = sum(weight.numel() for weight in model.parameters())
    return Totals(parameters, parameters - sum(heads.values()), macs)


def cost(model: nn.Module, size_px: int, channels: int = 3, *, name: str = "") -> Cost:
    """Counts what a network costs. name: for messages. The network is as before afterwards.

    An auxiliary head is what runs in training mode only; so a layer that the forward passes do not call (its weights used by
    another one) is none. Of parameters that two layers share, the first has the line.
    Raises UserError when the network cannot take the input; the message names the smallest.
    """
    name = name or type(model).__name__
    found = receptive.fields(model, size_px, channels, name=name)
    uses, macs, forward_bytes = _inference(model, sizes.blank(model, size_px, channels))
    try:
        training_uses, macs_with_aux, training_bytes = _training(model, sizes.blank(model, size_px, channels, _BATCH))
    except Exception:  # its heads want larger images
        training_uses, macs_with_aux, training_bytes = _training_uses(model, uses, size_px, channels), None, None
    in_inference = {use.name for use in uses}
    parameters = sum(weight.numel() for weight in model.parameters())
    return Cost(
        size_px=size_px,
        channels=channels,
        layers=tuple(_lines(model, uses, [use for use in training_uses if use.name not in in_inference], found)),
        parameters=parameters,
        parameters_without_aux=parameters - sum(_heads(model, uses, training_uses).values()),
        macs=macs,
        macs_with_aux=macs_with_aux,
        weight_bytes=_size_bytes([*model.parameters(), *model.buffers()]),
        forward_bytes=forward_bytes,
        training_bytes=training_bytes,
    )


def _heads(model: nn.Module, uses: Iterable[_Use], training_uses: Iterable[_Use]) -> dict[int, int]:
    """Sizes of the parameters, by identity, of modules that run in training mode only."""
    of_trunk = {id(weight) for use in uses for weight in use.layer.parameters(recurse=False)}
    of_all = {id(weight): weight.numel() for use in training_uses for weight in use.layer.parameters(recurse=False)}
    return {place: size for place, size in of_all.items() if place not in of_trunk}


def _training_uses(model: nn.Module, uses: Iterable[_Use], size_px: int, channels: int) -> tuple[_Use, ...]:
    """What runs in training mode, where anything with parameters is left for it to run; at a size that training takes."""
    used = {id(use.layer) for use in uses}
    if all(id(layer) in used for layer in model.modules() if any(True for _ in layer.parameters(recurse=False))):
        return ()
    for side in (size_px, *(side for side in _TRAINING_SIDES if side > size_px)):
        with contextlib.suppress(Exception):  # a network of any origin fails with any error at a size that it cannot take
            return _run(model, sizes.blank(model, side, channels, _BATCH), True, None)[0]
    return ()


# ---------------------------------------------------------------- passes


@dataclass
class _Use:
    """One call of a module. macs: carried out within it for one image, but in none of the modules that it calls."""

    name: str
    layer: nn.Module
    macs: int = 0
    shape: tuple[int, ...] | None = None
    output_bytes: int = 0


def _inference(model: nn.Module, images: torch.Tensor) -> tuple[tuple[_Use, ...], int, int]:
    """Uses, MACs, and the most bytes of live tensors at one time."""
    live = _Live(images, [*model.parameters(), *model.buffers()])
    uses, macs = _run(model, images, False, live.look)
    return uses, macs, live.most


def _training(model: nn.Module, images: torch.Tensor) -> tuple[tuple[_Use, ...], int, int]:
    """Uses, MACs, and the bytes that autograd keeps for one image."""
    weights = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}  # the storages themselves, so that none is taken for another one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        uses, macs = _run(model, images, True, None)
    return uses, macs, sum(storage.nbytes() for storage in kept.values()) // len(images)


def _run(
    model: nn.Module, images: torch.Tensor, training: bool, look: Callable[[Any], None] | None
) -> tuple[tuple[_Use, ...], int]:
    """One pass on shapes. Returns the uses of modules in the order in which they end, and the MACs of one image."""
    open_uses: list[_Use] = []
    uses: list[_Use] = []

    def enter(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda layer, inputs: open_uses.append(_Use(name, layer))

    def leave(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        use = open_uses.pop()
        tensors = list(_tensors(output))
        use.output_bytes = _size_bytes(tensors) // len(images)
        use.shape = tuple(tensors[0].shape[1:]) if len(tensors) == 1 else None
        uses.append(use)

    def count(operation: Any, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        formula = flop_registry.get(operation.overloadpacket)
        if formula is not None:
            open_uses[-1].macs += formula(*args, **named, out_val=result) // (2 * len(images))
        if look is not None:
            look(result)

    names = [name for name, _ in model.named_modules()]
    with taps(model, dict.fromkeys(names, leave), before={name: enter(name) for name in names}):
        sizes.outline(model, images, training=training, look=count)
    return tuple(uses), sum(use.macs for use in uses)


class _Live:
    """The bytes of all tensors that are alive, after each operation; `most` of them at one time."""

    def __init__(self, images: torch.Tensor, weights: Iterable[torch.Tensor]) -> None:
        self.weights = {tensor.untyped_storage()._cdata for tensor in weights}
        self.alive: dict[int, tuple[Any, int]] = {}
        self.most = 0
        self.look(images)

    def look(self, result: Any) -> None:
        """After an operation: its result is there, and its arguments are not gone yet."""
        self.alive = {place: held for place, held in self.alive.items() if not held[0].expired()}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if tensor.is_meta and storage._cdata not in self.weights:
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
        self.most = max(self.most, sum(size for _, size in self.alive.values()))


def _lines(model: nn.Module, uses: Iterable[_Use], heads: Iterable[_Use], found: dict[str, Field]) -> Iterator[Layer]:
    """The layers' lines: those of modules that hold no others, or that have parameters or operations of their own.

    At the end those that no pass calls and that have parameters: another layer uses them.
    """
    seen: set[int] = set()
    called = [*((use, False) for use in uses), *((use, True) for use in heads)]
    uncalled = [(_Use(name, layer), False) for name, layer in model.named_modules()]
    for use, is_head in [*called, *uncalled]:
        own = [weight for weight in use.layer.parameters(recurse=False) if id(weight) not in seen]
        seen |= {id(weight) for weight in own}
        is_called = use.shape is not None or use.output_bytes > 0
        if own or use.macs or (is_called and not any(use.layer.children())):
            yield Layer(
                name=use.name,
                kind=type(use.layer).__name__,
                shape=use.shape,
                parameters=sum(weight.numel() for weight in own),
                macs=use.macs,
                output_bytes=use.output_bytes,
                field=None if is_head else found.get(use.name),
                is_auxiliary=is_head,
            )


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _size_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
