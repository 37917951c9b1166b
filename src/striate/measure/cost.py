"""What a network costs: parameters, multiply-accumulates and memory, of each layer and in total.

Counted on shapes alone, with two passes: one image in evaluation mode, two images as a training step (batch norm wants
two; numbers are given for one). MACs are those of every convolution and matrix product that torch carries out,
whichever module it stands in and also where it stands in none (attention); biases, normalisation, pooling and
additions are not counted. That is half of what torch's FlopCounterMode says, and the "FLOPs" of the papers from
ResNet on. What compiled code of other packages does inside one operation of its own is not seen.
"""

from __future__ import annotations

import contextlib
import functools
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
    None where the network takes the size in evaluation mode only. last_conv: the line of
    `receptive.last_conv`.
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
    last_conv: Layer | None

    @property
    def has_aux(self) -> bool:
        """Whether there are layers that run in training mode only."""
        return self.parameters_without_aux < self.parameters


@dataclass(frozen=True)
class Totals:
    """What a table of networks says of one: as in `Cost`."""

    parameters: int
    parameters_without_aux: int
    macs: int


def totals(model: nn.Module, size_px: int, channels: int = 3, *, name: str = "") -> Totals:
    """The counts alone, with one pass where evaluation mode uses all parameters. Otherwise as `cost`."""
    with sizes.explained(model, name or type(model).__name__, size_px, channels):
        found = _run(model, sizes.blank(model, size_px, channels), of_modules=False)
    parameters = sum(weight.numel() for weight in model.parameters())
    return Totals(parameters, parameters - _of_heads(found, _trained(model, found, size_px, channels)), found.macs)


def cost(model: nn.Module, size_px: int, channels: int = 3, *, name: str = "") -> Cost:
    """Counts what a network costs. name: for messages. The network is as before afterwards.

    An auxiliary head is what runs in training mode only; so a layer that the forward passes do not call (its weights used by
    another one) is none. Of parameters that two layers share, the first has the line.
    Raises UserError when the network cannot take the input; the message names the smallest.
    """
    fields = receptive.fields(model, size_px, channels, name=name or type(model).__name__)
    found, forward_bytes = _inference(model, sizes.blank(model, size_px, channels))
    try:
        trained, training_bytes = _training(model, sizes.blank(model, size_px, channels, _BATCH))
        macs_with_aux: int | None = trained.macs
    except Exception:  # its heads want larger images
        trained, training_bytes, macs_with_aux = _trained(model, found, size_px, channels), None, None
    in_inference = {use.name for use in found.uses}
    lines = tuple(_lines(model, found.uses, [use for use in trained.uses if use.name not in in_inference], fields))
    last_conv = receptive.last_conv(model, fields)
    parameters = sum(weight.numel() for weight in model.parameters())
    return Cost(
        size_px=size_px,
        channels=channels,
        layers=lines,
        parameters=parameters,
        parameters_without_aux=parameters - _of_heads(found, trained),
        macs=found.macs,
        macs_with_aux=macs_with_aux,
        weight_bytes=_size_bytes([*model.parameters(), *model.buffers()]),
        forward_bytes=forward_bytes,
        training_bytes=training_bytes,
        last_conv=next((line for line in reversed(lines) if line.name == last_conv), None),
    )


def _of_heads(inference: _Pass, training: _Pass) -> int:
    """How many parameters only the training mode uses."""
    return sum(size for place, size in training.used.items() if place not in inference.used)


def _trained(model: nn.Module, inference: _Pass, size_px: int, channels: int) -> _Pass:
    """A pass in training mode at a size that training takes; an empty one where no parameters are left for it to use."""
    if all(id(weight) in inference.used for weight in model.parameters()):
        return _Pass(model, _BATCH)
    for side in (size_px, *(side for side in _TRAINING_SIDES if side > size_px)):
        with contextlib.suppress(Exception):  # a network of any origin fails with any error at a size that it cannot take
            return _run(model, sizes.blank(model, side, channels, _BATCH), training=True)
    return _Pass(model, _BATCH)


# ---------------------------------------------------------------- passes


@dataclass
class _Use:
    """One call of a module. macs: carried out within it for one image, but in none of the modules that it calls."""

    name: str
    layer: nn.Module
    macs: int = 0
    shape: tuple[int, ...] | None = None
    output_bytes: int = 0


class _Pass:
    """One pass on shapes, while it goes on. uses: calls of modules in the order in which they end. macs: of one image.

    used: sizes of the parameters that its operations take, by identity.
    """

    def __init__(self, model: nn.Module, images: int) -> None:
        self.uses: list[_Use] = []
        self.macs = 0
        self.used: dict[int, int] = {}
        self._open: list[_Use] = []
        self._images = images
        self._sizes = {id(weight): weight.numel() for weight in model.parameters()}

    def enter(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """As a tap before a module."""
        self._open.append(_Use(name, layer))

    def leave(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """As a tap behind the module that was entered last."""
        use = self._open.pop()
        outputs = list(sizes.tensors(output))
        use.output_bytes = _size_bytes(outputs) // self._images
        use.shape = tuple(outputs[0].shape[1:]) if len(outputs) == 1 else None
        self.uses.append(use)

    def count(self, operation: Any, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        """After each operation."""
        self.used |= {id(given): self._sizes[id(given)] for given in sizes.tensors((args, named)) if id(given) in self._sizes}
        formula = flop_registry.get(operation.overloadpacket)
        if formula is not None:
            macs = formula(*args, **named, out_val=result) // (2 * self._images)
            self.macs += macs
            if self._open:
                self._open[-1].macs += macs


def _inference(model: nn.Module, images: torch.Tensor) -> tuple[_Pass, int]:
    """The pass, and the most bytes of live tensors at one time."""
    live = _Live(images, [*model.parameters(), *model.buffers()])
    return _run(model, images, look=live.look), live.most


def _training(model: nn.Module, images: torch.Tensor) -> tuple[_Pass, int]:
    """The pass, and the bytes that autograd keeps for one image."""
    weights = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}  # the storages themselves, so that none is taken for another one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = _run(model, images, training=True)
    return found, sum(storage.nbytes() for storage in kept.values()) // len(images)


def _run(
    model: nn.Module,
    images: torch.Tensor,
    *,
    training: bool = False,
    of_modules: bool = True,
    look: Callable[[Any], None] | None = None,
) -> _Pass:
    """One pass on shapes. of_modules: with the uses of each. look: is told of each result."""
    found = _Pass(model, len(images))

    def count(operation: Any, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        found.count(operation, args, named, result)
        if look is not None:
            look(result)

    names = [name for name, _ in model.named_modules()] if of_modules else []
    before = {name: functools.partial(found.enter, name) for name in names}
    with taps(model, dict.fromkeys(names, found.leave), before):
        sizes.outline(model, images, training=training, look=count)
    return found


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
        for tensor in sizes.tensors(result):
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


def _size_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
