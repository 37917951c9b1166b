"""The signal explodes on its way through the network, or shrinks to where numbers mean nothing.

Looks at the root mean square of what each part puts out. Different from a constant function, whose output may have any size:
here it is the size itself that makes logits so large that the softmax has one winner whatever the image, and a gradient that
throws the weights away at the first step.
"""

from __future__ import annotations

import math

from striate.doctor import passes
from striate.doctor.finding import Cause, Curve, Finding, Remedy
from striate.doctor.passes import Signals
from striate.doctor.patient import Patient
from striate.doctor.remedies import initialised, normalised, with_slow_start

SOURCE = "He et al. 2015 (rectifiers), section 2.2; Hanin and Rolnick 2018 (failure modes of the start)"
# Logits and features of the 73 networks as their papers start them are below 3, but VGG's as printed: 1e6 to 1e10.
LARGE_LOGITS = 50.0
# A part that puts out so many times what the images have is named.
GROWN = 100.0


# Weights of half precision: the smallest step that changes one, over its size; and Adam's epsilon, which is 0 in float16.
HALVES = {"torch.float16": 2.0**-11, "torch.bfloat16": 2.0**-8}
# Pixels of this size are in a range of 255, and a network that makes of them at most so many times that hands them on.
RAW, GAIN = 20.0, 5.0


def _halves(patient: Patient) -> Finding | None:
    """Weights that are stored in 16 bits while they are to be trained."""
    trained = [one for one in patient.model.parameters() if one.requires_grad]
    halves = [one for one in trained if str(one.dtype) in HALVES]
    if patient.device.type == "meta" or 2 * sum(one.numel() for one in halves) < sum(one.numel() for one in trained):
        return None
    if not halves:
        return None
    name = str(halves[0].dtype)
    kind, step = name.removeprefix("torch."), HALVES[name]
    return Finding(
        "signal-size",
        "error" if kind == "float16" else "warning",
        f"The weights are stored as {kind}: a step below {step:.1g} of a weight's size changes nothing"
        + (", gradients below 6e-8 are 0, and so is Adam's epsilon of 1e-8." if kind == "float16" else "."),
        {"parameters of that type": sum(one.numel() for one in halves), "least step over the weight": step},
        (Cause("precision", 0.95, f"{len(halves)} of {len(trained)} parameters are {kind}"),),
        (Remedy("Keep weights and optimiser in float32 and compute in 16 bits: torch.autocast, with a GradScaler for float16."),),
        "Micikevicius et al. 2018, section 3.1 (master copy of weights) and 3.2 (loss scaling)",
    )


def _overflow(seen: Signals, largest: float) -> Finding | None:
    """Gradients, or a loss, that are not finite although the signal is of a usual size: some step inside leaves the numbers."""
    bad = [one.name for one in seen.weights if one.gradient is not None and not math.isfinite(one.gradient)]
    usual = [part for part in passes.trunk(seen) if math.isfinite(part.scale)]
    is_usual = bool(usual) and max(part.scale for part in usual) < LARGE_LOGITS
    if not is_usual or (not bad and not seen.overflows and math.isfinite(seen.total) and math.isfinite(largest)):
        return None
    layer = next((one.name for one in seen.layers if not math.isfinite(one.scale)), None)
    return Finding(
        "signal-size",
        "error",
        f"{_what(seen, bad)} not finite, though the signal has a usual size"
        + (
            f"; the first such numbers leave {layer}."
            if layer
            else ": a sum, a root or a logarithm on the way leaves the numbers."
        ),
        {
            "size by part": {part.name: part.scale for part in usual},
            "parameters": bad[:10],
            "loss": seen.total,
            "types whose range was left": list(seen.overflows),
        },
        (
            Cause("precision", 0.9, "numbers that fit until one operation: a half beyond 65,504, a root or a logarithm of 0"),
            Cause("initialisation", 0.2, "or weights that are too large"),
        ),
        (
            Remedy(
                "Compute that operation in float32, with a small constant under roots and logarithms; bf16 has float32's range."
            ),
            Remedy("Train in bf16 or float32."),
        ),
        SOURCE,
        layer=layer,
    )


def _what(seen: Signals, bad: list[str]) -> str:
    if bad:
        return f"Gradients of {len(bad)} parameters are"
    return f"Numbers of type {seen.overflows[0]} on the way are" if seen.overflows else "The loss is"


def _of_pixels(patient: Patient, largest: float) -> list[Cause]:
    """The pixels, where they come in a range of 255 and the network only hands their size on."""
    size = patient.signals.image_scale
    if not (size > RAW and largest < GAIN * size):
        return []
    because = f"pixels have a size of {size:.3g} already, and the network multiplies it by {largest / size:.2g}"
    names = ("not-normalised", "pixel-range") if bool(patient.images.min() < 0) else ("pixel-range", "not-normalised")
    return [Cause(names[0], 1.0, because), Cause(names[1], 0.85, because)]


def _remedies(patient: Patient, causes: list[Cause]) -> tuple[Remedy, ...]:
    usual = (initialised(patient), normalised(patient), with_slow_start(patient))
    if not any(cause.name == "pixel-range" for cause in causes):
        return usual
    changes = {"data.normalise": "imagenet"} if patient.recipe is not None else {}
    return (Remedy("Normalise the pixels: less the mean, over the deviation.", changes), *usual)


def check(patient: Patient) -> Finding | None:
    """The finding, or None where every part puts out a size that a network can work with."""
    seen = patient.signals
    parts = passes.trunk(seen)
    largest = max([seen.main.scale, *(part.scale for part in parts)])
    is_burst = not math.isfinite(largest) or not math.isfinite(seen.total)
    if (found := _halves(patient) or _overflow(seen, largest)) is not None:
        return found
    if not is_burst and seen.main.scale < LARGE_LOGITS:
        return None
    limit = GROWN * max(seen.image_scale, 1e-30)
    layer = next((one.name for one in seen.layers if not one.scale < limit), None)
    growth = (largest / max(seen.image_scale, 1e-30)) ** (1 / max(1, len(parts))) if math.isfinite(largest) else math.inf
    size = f"{seen.main.scale:.2g}" if math.isfinite(seen.main.scale) else "not finite"
    grows = [part.scale for part in parts if math.isfinite(part.scale)]
    # What grows from part to part is a matter of all weights; a jump in the last layer alone is one of the head.
    is_head = bool(grows) and grows[-1] < limit and math.isfinite(seen.main.scale)
    causes = [Cause("head-scale", 0.9, f"its inputs are {grows[-1]:.2g} and its outputs {size}")] if is_head else []
    if not is_head:
        causes.append(Cause("initialisation", 0.9, f"each part multiplies the signal by {growth:.2g} on average"))
        if not seen.has_norms:
            again = patient.drawn_again("he").main.scale
            is_same = not again < LARGE_LOGITS  # whatever the weights are drawn by
            because = f"none of {len(passes.weighted(seen))} layers is normalised, so nothing holds the size" + (
                f": with He's weights it is {again:.2g}" if is_same else ""
            )
            causes.append(Cause("no-normalisation", 0.95 if is_same else 0.4, because))
    causes += _of_pixels(patient, largest)
    return Finding(
        "signal-size",
        "error",
        f"The signal explodes: logits of size {size} before the first step, where about 1 is usual"
        + (f"; it is first {GROWN:g} times that of the pixels in {layer}." if layer else "."),
        {
            "size of the pixels": seen.image_scale,
            "size of the logits": seen.main.scale,
            "size by part": {part.name: part.scale for part in parts},
        },
        tuple(causes),
        _remedies(patient, causes),
        SOURCE,
        layer=layer,
        curve=Curve(
            "Size of the signal, by depth",
            "part of the network",
            "root mean square",
            ["pixels", *(part.name for part in parts), "logits"],
            {"size": [seen.image_scale, *(part.scale for part in parts), seen.main.scale]},
            is_log=True,
            mark=None,
        ),
    )
