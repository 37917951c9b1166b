"""Images without content, all images the same, or numbers that are not finite.

Looks at the first training batch as the network gets it: how much pixels differ within each image, and images from each other.
A loader that swallows errors puts black squares where photos could not be read; a wrong path or a buffer that is used again gives
the same image every time; a division by a deviation of 0 gives NaN. None of these says a word.
"""

from __future__ import annotations

import itertools
import statistics

import torch

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient

SOURCE = (
    "pytorch/vision issue 138 (what a loader does with an image that cannot be read); "
    "Goodfellow, Bengio and Courville 2016 (Deep Learning), section 11.5: look at what the network gets"
)
# Deviation within an image, over the median of the batch, below which it has no content. Of 20,000 photos of Tiny ImageNet the
# plainest has 0.03.
EMPTY = 0.01
# Deviation within images over the size of the pixels, below which all of them are empty: less than a level of 255.
ALL_EMPTY = 1e-3
# A picture has at least so many different values among its first ones.
LEVELS, LOOKED_AT = 24, 4096
# What differs between images over what differs within them, below which they are one image.
SAME = 1e-3
# A single plain image is a photo of the night; so many are a fault.
LEAST_IMAGES, LEAST_SHARE = 2, 0.02
# An image whose largest value is so many times the usual one is far outside, where at most this share of the images is; looked
# for in so many batches.
FAR, FEW_SHARE, BATCHES = 10.0, 0.1, 16


def check(patient: Patient) -> Finding | None:
    """The finding, or None where every image has content of its own."""
    images = patient.images.detach().float().flatten(1).cpu()
    if images.numel() == 0:
        raise NotJudged("no images")
    if (spoilt := _first_spoilt(patient)) is not None:
        return _not_finite(*spoilt)
    if (found := _outliers(patient)) is not None:
        return found
    size = float(images.square().mean().sqrt())
    within = _within(patient.images.detach().float().cpu())
    median = float(within.median())
    is_squeezed = median <= ALL_EMPTY * size  # nothing in any image, or pictures whose scale is wrong, which is another rule's
    is_empty = (within <= ALL_EMPTY * size) & ~_has_levels(images) if is_squeezed else within <= EMPTY * median
    empty, count = int(is_empty.sum()), len(images)
    between = float((images - images.mean(dim=0)).square().mean().sqrt())
    evidence = {
        "images": count,
        "images without content": empty,
        "deviation within images": median,
        "difference between images": between,
    }
    if empty == count or empty >= max(LEAST_IMAGES, LEAST_SHARE * count):
        return _empty(evidence, empty, count)
    if count > 1 and between <= SAME * median:
        sentence = f"All {count} images of a batch are the same image."
        because = f"they differ by {between:.2g}, where pixels within them differ by {median:.2g}"
        advice = "Look at how the data set finds image number i: a path, an index or a buffer stays the same."
        return _finding("error", sentence, evidence, because, advice)
    return None


def _first_spoilt(patient: Patient) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The first of some batches with numbers that are not finite, and which of its images they are in; None without one."""
    batches = itertools.chain([(patient.images, patient.labels)], itertools.islice(patient.train(), BATCHES))
    for images, _ in batches:
        flat = images.detach().float().flatten(1).cpu()
        is_bad = ~torch.isfinite(flat).all(dim=1)
        if bool(is_bad.any()):
            return flat, is_bad
    return None


def _has_levels(images: torch.Tensor) -> torch.Tensor:
    """Which images have many different values: a picture, however small its numbers. images: [B, numbers]. Returns [B] bool."""
    return torch.tensor([len(torch.unique(one[:LOOKED_AT])) >= LEVELS for one in images], dtype=torch.bool)


def _outliers(patient: Patient) -> Finding | None:
    """Images whose values lie far beyond those of all others, in the first batches."""
    largest: list[float] = []
    for images, _ in itertools.islice(patient.train(), BATCHES):
        largest += images.detach().float().flatten(1).abs().amax(dim=1).cpu().tolist()
    if len(largest) < LEAST_IMAGES:
        return None
    usual = statistics.median(largest)
    far = [place for place, value in enumerate(largest) if value > FAR * max(usual, 1e-12)]
    if not far or len(far) > FEW_SHARE * len(largest):
        return None
    worst = max(largest)
    return Finding(
        "constant-images",
        "error" if worst > FAR * FAR * usual else "warning",
        f"{len(far)} of the first {len(largest)} images hold values up to {worst:.3g}, where {usual:.3g} is the usual largest.",
        {
            "images": len(largest),
            "far outside": len(far),
            "places": far[:10],
            "largest value": worst,
            "usual largest value": usual,
        },
        (
            Cause("bad-batch", 0.9, f"{len(far)} images reach {worst / max(usual, 1e-12):.0f} times what the others do"),
            Cause("pixel-range", 0.4, "as images of 16 bits among those of 8, all divided by 255"),
        ),
        (
            Remedy(
                "Look at these images: another depth (16 bits), or a division by a deviation near 0; scale each by its own range."
            ),
            Remedy("`striate data audit DATA` names images of 16 bits."),
        ),
        SOURCE,
    )


def _within(images: torch.Tensor) -> torch.Tensor:
    """Deviation within each image, about the mean of each of its channels: black is no grey level once it is normalised. [B]."""
    flat = images.flatten(2) if images.dim() > 2 else images[:, None]
    return (flat - flat.mean(dim=2, keepdim=True)).square().mean(dim=(1, 2)).sqrt()


def _not_finite(images: torch.Tensor, is_bad: torch.Tensor) -> Finding:
    bad, count = int(is_bad.sum()), len(images)
    share = 1 - float(torch.isfinite(images).float().mean())
    places = torch.nonzero(is_bad).flatten().tolist()
    return Finding(
        "constant-images",
        "error",
        f"{bad} of {count} images of a batch hold NaN or infinite numbers, so the loss will too.",
        {"images": count, "images that are not finite": bad, "share of numbers": share, "places in the batch": places[:10]},
        (
            Cause("bad-batch", 0.9, f"{share:.2%} of all numbers of the batch are not finite"),
            Cause("pixel-range", 0.2, "a division by a deviation of 0 or by the maximum of a black image gives such numbers"),
        ),
        (Remedy("Check the images before they are normalised; a deviation or a maximum that divides them must not be 0."),),
        SOURCE,
    )


def _empty(evidence: dict[str, float], empty: int, count: int) -> Finding:
    because = f"{empty} of {count} images vary by less than a hundredth of what the others do"
    if empty == count:
        because = "in no image the pixels differ by more than a thousandth of their size"
    advice = "Look at such images, and at what the data set does with a file that it cannot read: a black square hides the error."
    return _finding(
        "error" if empty > count / 2 else "warning",
        f"{empty} of {count} images of a batch have no content: all their pixels are (nearly) the same.",
        evidence,
        because,
        advice,
    )


def _finding(severity: str, sentence: str, evidence: dict[str, float], because: str, advice: str) -> Finding:
    return Finding(
        "constant-images",
        "error" if severity == "error" else "warning",
        sentence,
        evidence,
        (Cause("constant-images", 0.9, because),),
        (Remedy(advice), Remedy("`striate data audit DATA` decodes every file and names those that are damaged or plain.")),
        SOURCE,
    )
