"""The pixels' scale: not normalised, normalised twice, or in 0..255 where 0..1 is expected (or the other way round).

Looks at the first training batch as the network gets it: the least and the largest value, mean and deviation, and the step
between neighbouring values. Pixels come from 256 levels; where nothing but a scale and a shift was done to them since, that step
is 1 / (255 * deviation), and it tells what they were divided by. Where striate's view says what the scale should be (Caffe's
0..255 less the mean), that is what is expected.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from striate.doctor import passes
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy, Severity
from striate.doctor.patient import Patient
from striate.taps import taps

SOURCE = "LeCun, Bottou, Orr and Müller 1998 (Efficient BackProp), section 4.3: inputs with mean near 0 and like deviations"
# Deviation of all pixels. Every usual normalisation of photos gives 0.3 to 1.7; ImageNet's applied twice gives 3.5 to 5.5.
MOST_DEVIATION = 3.0
# Where the levels tell that pixels in 0..1 were divided by less than any deviation of photos, this is enough; a set of low
# contrast that is divided by its own deviation has 1.
STEEP, STEEP_DEVIATION = 0.12, 1.7
# Deviation that only 0..255 gives, divided by nothing (photos: 50 to 80) or by a deviation meant for 0..1 (200 to 350).
RAW_DEVIATION = 20.0
# What a network that is meant for 0..255 makes of them at most: CaffeNet's first layer 11, features below 1.
BORNE_FIRST, BORNE = 30.0, 10.0
# And of its sigmoids or tanhs this share is at their limits at most.
BORNE_FULL = 0.3
# Largest value of pixels in 0..1 that were divided by 255 once more is 1 / 255.
TWICE_DIVIDED = 0.006
# ... and normalised behind that: the deviation is that of photos, over 255.
TWICE_DIVIDED_DEVIATION = 0.012
# Mean over deviation. Photos in 0..1 have 1.2 to 2.5; below this, as for pen strokes on black, a shift gains little.
OFFSET = 1.0
# Ends of the range of pixels in 0..1 normalised by mean and deviation 0.5 twice.
TWICE_HALF = (-3.0, 1.0)
_MOST_IMAGES = 64
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def check(patient: Patient) -> Finding | None:
    """The finding, or None where the pixels have a usual scale, or the one that the view says."""
    return _of_batch(patient) or _inside(patient)


def _inside(patient: Patient) -> Finding | None:
    """What the first layer with weights gets, where the network scales its images itself: they may come scaled already."""
    first = next((name for name, layer in patient.model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))), None)
    if first is None or patient.view is not None:
        return None
    seen: list[torch.Tensor] = []
    images = patient.images[:_MOST_IMAGES]
    look = taps(patient.model, {}, {first: lambda _layer, inputs: seen.append(inputs[0].detach().float().cpu())})
    try:
        with torch.no_grad(), passes.preserved(patient.model), passes.as_trained(patient.model), look:
            patient.model(images)
    except Exception:  # a network that cannot be run says so in another rule
        return None
    inner = seen[0] if seen else None
    outer = images.detach().float().cpu()
    if inner is None or inner.shape != outer.shape or torch.allclose(inner, outer, atol=1e-3, rtol=1e-3):
        return None
    low, high, mean = float(inner.min()), float(inner.max()), float(inner.mean())
    deviation = float((inner - inner.mean(dim=(0, 2, 3), keepdim=True)).square().mean().sqrt()) if inner.dim() == 4 else 0.0
    if _kind(low, high, mean, deviation, []) != "twice":
        return None
    return Finding(
        "input-scale",
        "warning",
        f"The network normalises its images by itself, and they come normalised: mean {mean:.3g}, deviation {deviation:.3g} "
        f"before {first}.",
        {"mean before the first layer": mean, "deviation before the first layer": deviation, "mean": float(outer.mean())},
        (Cause("normalised-twice", 0.85, f"deviation {deviation:.3g} behind the network's own normalisation, where 1 is usual"),),
        (Remedy("Give the network pixels in 0..1, or take its own normalisation out."),),
        SOURCE,
        layer=first,
    )


def _of_batch(patient: Patient) -> Finding | None:
    """The finding of the batch as it comes."""
    images = patient.images[:_MOST_IMAGES].detach().float().cpu()
    if images.dim() != 4:
        raise NotJudged("no images of shape [B, C, H, W]")
    images = images[torch.isfinite(images).flatten(1).all(dim=1)]
    if images.numel() == 0:
        raise NotJudged("no finite images")
    low, high = float(images.min()), float(images.max())
    mean = float(images.mean())
    deviation = float((images - images.mean(dim=(0, 2, 3), keepdim=True)).square().mean().sqrt())  # about each channel's mean
    if high - low < 1e-12:
        raise NotJudged("images without content")
    is_said = _is_as_said(patient, low, high)
    if is_said and not _is_divided(patient) and (deviation < RAW_DEVIATION or _bears(patient)):
        return None
    divided_by = [_divisor(images[:, channel]) for channel in range(images.shape[1])]
    evidence: dict[str, Any] = {"least": low, "largest": high, "mean": mean, "deviation": deviation}
    if all(value is not None for value in divided_by):
        evidence["divided by, of 0..1"] = [value for value in divided_by if value is not None]
    is_repaired = _is_repaired(patient.model)
    evidence["normalised by the network"] = is_repaired
    kind = _kind(low, high, mean, deviation, [value for value in divided_by if value is not None])
    if kind is None:
        return None
    cause, sentence, advice = _words(kind, low, high, mean, deviation)
    return Finding(
        "input-scale",
        "note" if _is_meant(patient, kind, is_said) else _severity(kind, is_repaired),  # what the recipe says is no mistake
        sentence,
        evidence,
        _causes(cause, kind, low, high, mean, deviation, is_repaired),
        (Remedy(advice, {"data.normalise": "imagenet"} if patient.recipe is not None else {}),),
        SOURCE,
    )


def _kind(low: float, high: float, mean: float, deviation: float, divisors: list[float]) -> str | None:
    """What was done to the pixels, or None where nothing is wrong. divisors: of the channels whose levels tell them."""
    if deviation > RAW_DEVIATION or (low >= 0 and high > 5):
        return "raw" if low >= 0 else "raw-shifted"
    if low >= 0 and high <= TWICE_DIVIDED:
        return "divided-twice"
    if deviation < TWICE_DIVIDED_DEVIATION and abs(mean) > 10 * deviation:
        return "divided-twice-shifted"
    is_steep = bool(divisors) and max(divisors) < STEEP
    if deviation > MOST_DEVIATION or (is_steep and deviation > STEEP_DEVIATION):
        return "twice"
    at_ends = math.isclose(low, TWICE_HALF[0], abs_tol=0.02) and math.isclose(high, TWICE_HALF[1], abs_tol=0.02)
    if at_ends and mean < -0.4:
        return "twice"
    is_undivided = all(0.9 < value < 1.1 for value in divisors)
    if low >= 0 and 0.2 < high <= 1.001 and mean > OFFSET * deviation and is_undivided:
        return "plain"
    return None


def _words(kind: str, low: float, high: float, mean: float, deviation: float) -> tuple[str, str, str]:
    """Cause, sentence, and what to do."""
    seen = f"mean {mean:.3g}, deviation {deviation:.3g}, from {low:.3g} to {high:.3g}"
    if kind == "plain":
        return (
            "not-normalised",
            f"Pixels are in 0..1 and not normalised: {seen}.",
            "Subtract the mean and divide by the deviation of each channel (ImageNet's, or the data set's own).",
        )
    if kind == "twice":
        return (
            "normalised-twice",
            f"Pixels look normalised twice: {seen}.",
            "Normalise once: often the data set does it and the training loop, or the network, does it again.",
        )
    if kind in ("raw", "raw-shifted"):
        return (
            "pixel-range",
            f"Pixels are in a range of 255, not of 1: {seen}.",
            "Divide by 255 before subtracting a mean: torchvision's ToTensor does so for uint8, but not for float arrays.",
        )
    return (
        "pixel-range",
        f"Pixels are divided by 255 twice: {seen}.",
        "Divide by 255 once: torchvision's ToTensor, and v2.ToDtype with scale=True, already do it.",
    )


def _causes(
    cause: str, kind: str, low: float, high: float, mean: float, deviation: float, is_repaired: bool
) -> tuple[Cause, ...]:
    weight = {"plain": 0.5, "twice": 0.8}.get(kind, 0.9)
    if is_repaired:
        weight *= 0.7
    because = f"deviation {deviation:.3g} and mean {mean:.3g}, where 1 and 0 are usual"
    found = [Cause(cause, weight, because)]
    if kind == "twice" and deviation > MOST_DEVIATION:
        found.append(Cause("pixel-range", 0.2, f"a range of {high - low:.3g} may come from another scale of the stored pixels"))
    if kind == "raw-shifted" and deviation < 100:
        found.append(Cause("not-normalised", 0.3, "Caffe's way, 0..255 less the mean, is right only for weights trained so"))
    return tuple(found)


def _severity(kind: str, is_repaired: bool) -> Severity:
    """Behind a normalisation of its own a network learns from any scale; then it is worth knowing, or at most learns worse."""
    if kind == "plain":
        return "note" if is_repaired else "warning"
    if kind == "twice":
        return "warning"
    return "warning" if is_repaired else "error"


def _is_as_said(patient: Patient, low: float, high: float) -> bool:
    """Whether the values lie within the range that the view's mean and deviation give, and fill a good part of it."""
    view = patient.view
    if view is None:
        return False
    least = min((0 - mean) / std for mean, std in zip(view.mean, view.std, strict=True))
    most = max((1 - mean) / std for mean, std in zip(view.mean, view.std, strict=True))
    slack = 0.02 * (most - least)
    return least - slack <= low and high <= most + slack and high - low > 0.05 * (most - least)


def _is_meant(patient: Patient, kind: str, is_said: bool) -> bool:
    """Whether the view says so, or the network's first layer brings bytes to a mean of 0 and a deviation of 1."""
    first = next((layer for layer in patient.model.modules() if not any(layer.children())), None)
    return (is_said and _is_divided(patient)) or (kind in ("raw", "plain") and isinstance(first, _NORMS))


def _bears(patient: Patient) -> bool:
    """Whether a network keeps pixels of 0..255 at a usual size: its first layer with weights, and its features."""
    if _is_repaired(patient.model):
        return True
    seen = patient.signals
    first = next((layer.scale for layer in seen.layers if layer.kind in ("Conv2d", "Linear")), 0.0)
    full = max((layer.saturated or 0.0 for layer in seen.layers), default=0.0)
    return full < BORNE_FULL and first < BORNE_FIRST and all(part.scale < BORNE for part in passes.trunk(seen)[-1:])


def _is_divided(patient: Patient) -> bool:
    """Whether the view itself only divides by 255."""
    view = patient.view
    return view is not None and all(mean == 0 for mean in view.mean) and all(0.9 < std < 1.1 for std in view.std)


def _is_repaired(model: nn.Module) -> bool:
    """Whether a normalisation stands at the network's input or right behind its first layer."""
    leaves = [layer for layer in model.modules() if not any(layer.children())]
    first = next((place for place, layer in enumerate(leaves) if any(True for _ in layer.parameters())), 0)
    return any(isinstance(layer, _NORMS) for layer in leaves[: first + 2])


def _divisor(values: torch.Tensor) -> float | None:
    """What the levels 0..255 of a channel, as 0..1, were divided by; None where the values lie on no such steps."""
    kept = torch.unique((values.flatten()[:100_000] * 1e5).round() / 1e5)
    if not 16 <= len(kept) <= 256:
        return None
    step = float((kept[1:] - kept[:-1]).min())
    return None if step <= 2e-5 else 1 / (255 * step)
