"""One forward and backward pass, looked at: signal and gradient by depth, heads, gates, dead and saturated units.

The network is seen as it would be trained: in training mode, with the statistics of the batch, but with dropout off, so that
what differs between two images is due to the images. Everything about it is afterwards as it was before.
"""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from striate.machine import reseed_torch
from striate.taps import Tap, taps
from striate.train import loss as losses_of

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
# Values smaller than this share of the largest one say nothing about a gate's factor; of the others nearly all must be between
# 0 and 1.
_GATE_TOLERANCE, _GATED = 1e-3, 0.98
# A sigmoid is at its limit beyond this: its slope there is below 0.02, a twelfth of the largest.
_AT_LIMIT = 0.98
# Names of what makes factors between 0 and 1, of what only shapes them, and of what multiplies by them.
_SIGMOIDS = ("sigmoid", "sigmoid_", "hardsigmoid")
_VIEWS = ("view", "reshape", "unsqueeze", "expand", "expand_as", "__getitem__", "permute")
_PRODUCTS = ("mul", "mul_", "__mul__", "__rmul__", "multiply", "__imul__")
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Layer:
    """What came out of one layer. Root mean squares over all numbers of a batch.

    scale: of the output. spread: of what differs between the images, output less its mean over the images. gradient: of the
    loss by the output, times the number of images. dead: of a ReLU, the share of channels that are zero for all images; active:
    the share of its outputs above zero. saturated: of a sigmoid or tanh, the share at its limits. gate: of a layer that
    multiplies its input by factors between 0 and 1, their mean.
    """

    name: str
    kind: str
    scale: float
    spread: float
    gradient: float | None = None
    dead: float | None = None
    saturated: float | None = None
    gate: float | None = None
    values: int = 0
    active: float | None = None


_NONE = Layer("", "", 0.0, 0.0)


@dataclass(frozen=True)
class Weight:
    """A parameter: root mean squares of it and of its gradient, None where none came. fan_in: inputs of one output, 0 if none."""

    name: str
    scale: float
    gradient: float | None
    fan_in: int
    count: int
    is_trained: bool
    kind: str


@dataclass(frozen=True)
class Head:
    """Logits of one head: their size, what differs between images, cross-entropy in nats, and the head's weight in the loss."""

    outputs: int
    scale: float
    spread: float
    loss: float
    weight: float


@dataclass(frozen=True)
class Signals:
    """What one pass showed.

    images: their number. image_spread: root mean square of what differs between the images of the batch. layers: innermost
    layers in the order in which they ran; stages: the network's own parts in that order. heads: by name, the main one first.
    total: the loss as it is minimised. he_share: the weights' deviation over that of He's start, in the median. overflows: of the
    numbers on the way that are kept for the backward pass, the types of those that left their range, whoever made them.
    resting_norms: batch norms that ran with their running statistics, as in evaluation.
    strays: numbers that take part in the outputs and could learn, and that are no parameters of the network.
    """

    images: int
    image_scale: float
    image_spread: float
    layers: tuple[Layer, ...]
    stages: tuple[Layer, ...]
    weights: tuple[Weight, ...]
    heads: Mapping[str, Head]
    total: float
    has_norms: bool
    he_share: float
    overflows: tuple[str, ...] = ()
    resting_norms: tuple[str, ...] = ()
    strays: int = 0

    @functools.cached_property
    def decay(self) -> list[float]:
        """Spread of each stage's output over that of the images."""
        return [stage.spread / max(self.image_spread, 1e-30) for stage in self.stages]

    @property
    def main(self) -> Head:
        """The head that the classes come from."""
        return next(iter(self.heads.values()))


def look(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, total: Loss) -> Signals:
    """Runs the network forward and backward once and reports what passed through it.

    images: [B, C, S, S] float32 as the network gets them, on its device. labels: [B] int64. total: the loss that is
    minimised, of (outputs, labels).
    """
    found: dict[str, dict[str, Any]] = {}
    order: list[str] = []
    handles: list[Any] = []

    def watch(name: str) -> Tap:
        def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            tensor = main_tensor(output)
            if tensor is None:
                return
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and not layer.training and layer.running_mean is not None:
                resting.append(name)
            if name not in found:  # a layer that runs several times is seen the first time
                order.append(name)
                found[name] = _seen(layer, inputs, tensor.detach())
                if tensor.requires_grad and not isinstance(tensor, nn.Parameter):
                    found[name]["gradient"] = None
                    hook = functools.partial(_keep_gradient, found[name], len(images))
                    handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

        return note

    leaves = [name for name, layer in model.named_modules() if name and not any(layer.children())]
    parts = stage_names(model)
    gates = [name for name, layer in model.named_modules() if name and 0 < len(list(layer.children())) <= 8]
    overflows: list[str] = []
    resting: list[str] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        name = str(tensor.dtype).removeprefix("torch.")
        # In float32 an infinity may be meant, as in the mask of an attention; a half that is one was a number.
        is_left = torch.isnan if tensor.dtype in (torch.float32, torch.float64) else _is_not_finite
        if tensor.is_floating_point() and name not in overflows and bool(is_left(tensor).any()):
            overflows.append(name)
        return tensor

    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with preserved(model), as_trained(model):
        tapped = taps(model, {name: watch(name) for name in dict.fromkeys([*leaves, *parts, *gates])})
        factors = _Gates(lambda: next(reversed(order), ""))
        with tapped, torch.enable_grad(), saved:
            reseed_torch(0, 0, 0)
            with factors:
                outputs = model(images)
            heads = heads_of(outputs)
            for logits in heads.values():
                if logits.requires_grad:
                    logits.retain_grad()
            loss = total(outputs, labels)
            strays = _strays(heads.values(), model)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
        shown = {name: _head(logits, labels) for name, logits in heads.items()}
        weights = tuple(_weights(model))
        for handle in handles:
            handle.remove()
    layer_of = {name: _layer(name, type(model.get_submodule(name)).__name__, seen) for name, seen in found.items()}
    innermost = set(leaves)
    for name, factor in factors.found.items():  # of gates that are no module of their own
        if name in layer_of and not any(
            name.startswith(f"{gate}.") for gate in gates if layer_of.get(gate, _NONE).gate is not None
        ):
            layer_of[name] = replace(layer_of[name], gate=factor)
    is_gate = {name for name in gates if layer_of.get(name) is not None and layer_of[name].gate is not None}
    mean = images.mean(0, keepdim=True)
    return Signals(
        len(images),
        _rms(images),
        _rms(images - mean),
        tuple(layer_of[name] for name in order if name in innermost or name in is_gate),
        tuple(layer_of[name] for name in order if name in set(parts)),
        weights,
        shown,
        float(loss.detach()),
        any(isinstance(layer, _NORMS) for layer in model.modules()),
        _he_share(weights),
        tuple(dict.fromkeys(overflows)),
        tuple(dict.fromkeys(resting)),
        strays,
    )


class _Gates(TorchFunctionMode):
    """Within the block: multiplications by the output of a sigmoid, whoever writes them. found: mean factors, each by the layer
    that ran last before. x times sigmoid(x), a Swish, is an activation and no gate."""

    def __init__(self, last: Callable[[], str]) -> None:
        super().__init__()
        self.found: dict[str, float] = {}
        self._last = last
        self._sigmoids: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        if not isinstance(result, torch.Tensor) or not tensors:
            return result
        if name in _SIGMOIDS:
            self._sigmoids.append((result, tensors[0]))
        elif name in _VIEWS and (source := self._source(tensors[0])) is not None:
            self._sigmoids.append((result, source))
        elif name in _PRODUCTS and len(tensors) == 2:
            for factor, other in (tensors, tensors[::-1]):
                source = self._source(factor)
                if source is not None and source is not other and other.dim() == 4 and self._source(other) is None:
                    self.found.setdefault(self._last(), float(factor.detach().float().mean()))
        return result

    def _source(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return next((before for after, before in self._sigmoids if after is tensor), None)


def _strays(outputs: Iterable[torch.Tensor], model: nn.Module) -> int:
    """Numbers in tensors that take part in the outputs, could learn, and are unknown to the network as its parameters."""
    own = {id(parameter) for parameter in model.parameters()}
    seen: set[Any] = set()
    count, waiting = 0, [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, torch.Tensor) and id(leaf) not in own:
            count += leaf.numel()
        waiting += [following for following, _ in node.next_functions]
    return count


# ---------------------------------------------------------------- the network as it would be trained, and left as it was


@contextlib.contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Within the block the network has no gradients, and after it it is as before: weights, buffers, gradients, modes, what is
    frozen, and torch's generator.

    Buffers that a forward pass replaces instead of changing are put back too.
    """
    values = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    devices = [values[0][0].device] if values and values[0][0].is_cuda else []
    try:
        for parameter, _, _ in gradients:
            parameter.grad = None
        with torch.random.fork_rng(devices):
            yield
    finally:
        for parameter, gradient, is_trained in gradients:
            parameter.requires_grad_(is_trained)
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)
            for module, name, buffer, kept in buffers:
                module._buffers[name] = buffer
                if buffer is not None and kept is not None:
                    buffer.copy_(kept)


@contextlib.contextmanager
def as_trained(model: nn.Module, dropout: bool = False) -> Iterator[None]:
    """Within the block the network is in training mode, with dropout off unless it is wanted.

    Parts that were in evaluation mode within a network in training mode stay so: that is how it would be trained.
    """
    resting = [module for module in model.modules() if not module.training] if model.training else []
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    for module in model.modules():
        if module in resting or (not dropout and _drops(module)):
            module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _drops(module: nn.Module) -> bool:
    """Whether it drops units or paths at random: torch's dropouts, and by name torchvision's, timm's and ours."""
    words = ("Dropout", "DropPath", "StochasticDepth", "DropBlock")
    return isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__.startswith(words)


def heads_of(outputs: Any) -> dict[str, torch.Tensor]:
    """Logits [B, K] by head, the main one first and named "main". Raises UserError as `train.loss.heads`."""
    if isinstance(outputs, list):
        outputs = tuple(outputs)
    if not isinstance(outputs, (torch.Tensor, Mapping, tuple)) and hasattr(outputs, "logits"):
        return heads_of(outputs.logits)
    return {name: logits for name, logits in losses_of.heads(outputs).items() if isinstance(logits, torch.Tensor)}


def summed(aux_weight: float, smoothing: float = 0.0) -> Loss:
    """The loss that striate minimises: cross-entropy of the main head, plus `aux_weight` times that of each other head."""

    def total(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        return losses_of.total(losses_of.per_head(heads_of(outputs), labels, smoothing), aux_weight, 0.0, [])

    return total


def stage_names(model: nn.Module, few: int = 5, most: int = 40) -> list[str]:
    """The network's own parts, from coarse to fine until there are more than `few`: conv1, layer1 …, or features.0, features.3 …

    Parts without parameters (pools, dropout) are left out.
    """
    names = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
    while len(names) <= few:
        finer: list[str] = []
        for name in names:
            inner = [
                f"{name}.{child}"
                for child, part in model.get_submodule(name).named_children()
                if any(True for _ in part.parameters())
            ]
            finer += inner or [name]
        if finer == names or len(finer) > most:
            break
        names = finer
    return names


def main_tensor(output: Any) -> torch.Tensor | None:
    """The tensor of numbers that a layer puts out, the first of several; None where there is none of at least two images."""
    if isinstance(output, (tuple, list)):
        output = next((one for one in output if isinstance(one, torch.Tensor)), None)
    if isinstance(output, Mapping):
        output = next((one for one in output.values() if isinstance(one, torch.Tensor)), None)
    if isinstance(output, torch.Tensor) and output.is_floating_point() and output.dim() >= 2:
        return output
    return None


# ---------------------------------------------------------------- numbers


def _is_not_finite(tensor: torch.Tensor) -> torch.Tensor:
    return ~torch.isfinite(tensor)


def _rms(tensor: torch.Tensor) -> float:
    return float(tensor.float().square().mean().sqrt()) if tensor.numel() else 0.0


def _keep_gradient(seen: dict[str, Any], images: int, gradient: torch.Tensor) -> None:
    seen["gradient"] = _rms(gradient) * images


@torch.no_grad()
def _seen(layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> dict[str, Any]:
    output = output.float()
    seen: dict[str, Any] = {
        "scale": _rms(output),
        "spread": _rms(output - output.mean(0, keepdim=True)),
        "values": output[0].numel(),
    }
    others = [axis for axis in range(output.dim()) if axis != 1]
    if isinstance(layer, (nn.ReLU, nn.ReLU6)):
        seen["dead"] = 1.0 - float((output.amax(dim=others) > 0).float().mean())
        seen["active"] = float((output > 0).float().mean())
    if isinstance(layer, nn.Sigmoid):
        seen["saturated"] = float(((output > _AT_LIMIT) | (output < 1 - _AT_LIMIT)).float().mean())
    if isinstance(layer, nn.Tanh):
        seen["saturated"] = float((output.abs() > 2 * _AT_LIMIT - 1).float().mean())
    elif "tanh" in type(layer).__name__.lower():  # one of another height
        seen["saturated"] = float((output.abs() > (2 * _AT_LIMIT - 1) * output.abs().max()).float().mean())
    before = inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else None
    if before is not None and before.shape == output.shape and output.dim() == 4 and any(layer.children()):
        seen["gate"] = _gate(before.detach().float(), output)
    return seen


def _gate(before: torch.Tensor, after: torch.Tensor) -> float | None:
    """The mean factor of a layer that multiplies each value by one between 0 and 1; None where it does something else.

    A gate's factors are its own: of a channel, a pixel or a value. A ReLU's are 0 and 1, and those of a scale are all the same.
    """
    used = before.abs() > _GATE_TOLERANCE * before.abs().max().clamp_min(1e-30)
    if not bool(used.any()):
        return None
    factors = after[used] / before[used]
    is_between = (factors > 0) & (factors < 1 - 1e-6)
    if float(is_between.float().mean()) < _GATED or float(factors.min()) < -1e-6 or float(factors.max()) > 1 + 1e-6:
        return None
    mean = float(factors.mean())
    return mean if mean < 0.999 else None


def _layer(name: str, kind: str, seen: Mapping[str, Any]) -> Layer:
    return Layer(
        name,
        kind,
        seen["scale"],
        seen["spread"],
        seen.get("gradient"),
        seen.get("dead"),
        seen.get("saturated"),
        seen.get("gate"),
        seen["values"],
        seen.get("active"),
    )


def _head(logits: torch.Tensor, labels: torch.Tensor) -> Head:
    shown = logits.detach().float()
    if shown.dim() != 2:
        return Head(0, _rms(shown), 0.0, float("nan"), float("nan"))
    outputs = shown.shape[1]
    inside = (labels >= 0) & (labels < outputs)
    loss, weight = float("nan"), float("nan")
    if bool(inside.all()):
        loss = float(functional.cross_entropy(shown, labels))
        weight = 0.0
        if logits.grad is not None:
            # What the loss does to the logits, measured in units of their own cross-entropy: the weight of this head in it.
            own = (shown.softmax(1) - functional.one_hot(labels, outputs)) / len(labels)
            weight = float((logits.grad.float() * own).sum() / own.square().sum().clamp_min(1e-30))
    return Head(outputs, _rms(shown), _rms(shown - shown.mean(0, keepdim=True)), loss, weight)


def _weights(model: nn.Module) -> Iterator[Weight]:
    for owner, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            gradient = None if parameter.grad is None else _rms(parameter.grad)
            is_matrix = parameter.dim() >= 2 and parameter[0].numel() > 1  # else a factor for each channel
            yield Weight(
                f"{owner}.{own}" if owner else own,
                _rms(parameter.detach()),
                gradient,
                parameter[0].numel() if is_matrix else 0,
                parameter.numel(),
                parameter.requires_grad,
                type(module).__name__,
            )


def _closed(weight: Weight) -> float:
    """Below this a weight is closed on purpose: a factor for each channel that begins near 0, or a matrix of zeros."""
    return 0.0 if weight.fan_in else 0.02


def _he_share(weights: Sequence[Weight]) -> float:
    shares = [one.scale / math.sqrt(2 / one.fan_in) for one in weights if one.fan_in]
    return statistics.median(shares) if shares else 0.0


def starts_well(signals: Signals) -> bool:
    """Whether weights start with about the deviation that keeps a signal's size through ReLUs (He et al. 2015, section 2.2)."""
    return 0.7 < signals.he_share < 1.5


def begins_closed(signals: Signals) -> bool:
    """Whether some weights start at or near zero on purpose and get a gradient, so that what is behind them opens by training.

    As the last scale of a residual block (Goyal et al. 2017, section 5.1), a layer scale, or a head of zeros.
    """
    return any(
        one.is_trained and (one.gradient or 0.0) > 0.0 and not one.name.endswith("bias") and one.scale <= _closed(one)
        for one in signals.weights
    )


def weighted(signals: Signals) -> Sequence[Weight]:
    """The weights of convolutions and linear layers, without biases and normalisation, in the order of definition."""
    return [weight for weight in signals.weights if weight.fan_in]


def features(signals: Signals) -> Layer | None:
    """The last of the network's own parts before the main head; None where all there is is heads."""
    outputs = signals.main.outputs
    before = [place for place, stage in enumerate(signals.stages) if stage.values == outputs]
    until = signals.stages[: before[0]] if before else signals.stages
    return until[-1] if until else None


def trunk(signals: Signals) -> tuple[Layer, ...]:
    """The network's own parts up to the last one before the main head, in the order in which they ran."""
    last = features(signals)
    if last is None:
        return signals.stages
    return signals.stages[: signals.stages.index(last) + 1]
