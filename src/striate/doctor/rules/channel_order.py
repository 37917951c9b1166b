"""Channels in the wrong place or order: height, width and channels mixed up, or blue and red exchanged.

Looks at the shape of the first training batch, and at how much neighbouring pixels resemble each other. In every photo a pixel is
like the next one and less like the third. Where an array [H, W, 3] was reshaped to [3, H, W] instead of permuted, red, green and
blue stand beside each other and the third one is the neighbour: a pattern with period 3 that no photo has.

Exchanged colours are hard to see. Two things are looked at: whether training and validation images have like colours only when
the channels of one are exchanged, which is sure; and whether the images are bluer than photos are (in Tiny ImageNet red is above
blue in every choice of 300 images of all classes), which is a hint and no more. Images that striate decodes are always red,
green, blue, so that is asked of a stranger's loader only, and of weights that want Caffe's order.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from striate.doctor import thumbnails
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.view import IMAGENET_MEAN, IMAGENET_STD

SOURCE = (
    "torchvision's ToTensor and torch's NCHW convention; OpenCV's imread, which gives blue, green, red; "
    "Ruderman 1994, section 3 (neighbouring pixels of natural images)"
)
# Correlation of a pixel with the third one along its row, less that with the next one. Photos: -0.25 to -0.02.
PERIOD_3 = 0.02
# For grey photos: the largest over the smallest mean step in memory, by place modulo 3. Photos: 1 to 1.1.
PHASES = 1.5
# Correlation of a pixel with the next one in both directions; the noisiest photos have 0.5.
NOISE = 0.1
# How far the colours of two sets must lie apart, in deviations of chance, to be compared; and how much nearer they must come.
APART, NEARER = 8.0, 0.4
# Mean of red less blue over its deviation of the mean. Of Tiny ImageNet +7 to +14 for 300 images.
BLUE = -5.0
LEAST_IMAGES = 200
_MOST_IMAGES = 32


def check(patient: Patient) -> Finding | None:
    """The finding, or None where the order is right as far as one can see."""
    images = patient.images[:_MOST_IMAGES].detach().float().cpu()
    if images.dim() != 4 or images.numel() == 0:
        raise NotJudged("no images of shape [B, C, H, W]")
    hindrance = "striate orders them itself" if patient.view is not None else _hindrance(images)
    found = _by_shape(images) or (_by_neighbours(images) if hindrance is None else None) or _by_colours(patient)
    if found is None and hindrance is not None:
        raise NotJudged(hindrance)
    return found


# ---------------------------------------------------------------- height, width, channels


def _by_shape(images: torch.Tensor) -> Finding | None:
    shape = tuple(images.shape)
    if shape[1] in (1, 3) or not {shape[2], shape[3]} & {1, 3}:
        return None
    place = 3 if shape[3] in (1, 3) else 2
    order = "0, 3, 1, 2" if place == 3 else "0, 2, 1, 3"
    return _mixed(
        f"A batch has the shape {list(shape)}: the channels stand in place {place + 1} instead of 2.",
        {"shape": str(list(shape))},
        f"{shape[1]} channels, and a side of {shape[place]}",
        f"images = images.permute({order})",
        0.95,
    )


def _hindrance(images: torch.Tensor) -> str | None:
    """Why neighbouring pixels cannot be compared; None where they can."""
    if images.shape[1] not in (1, 3):
        return "neither one nor three channels"
    if min(images.shape[2:]) < 12:
        return "images too small"
    if not bool(torch.isfinite(images).all()):
        return "no finite images"
    return "images without content" if math.isnan(_resemblance(images, 3, 3) + _resemblance(images, 1, 2)) else None


def _by_neighbours(images: torch.Tensor) -> Finding | None:
    if images.shape[1] != 3:
        return None
    across = [_resemblance(images, lag, 3) for lag in (1, 3)]
    down = _resemblance(images, 1, 2)
    phases = _phases(images)
    evidence = {"resemblance of neighbours": across[0], "of every third": across[1], "along columns": down, "phases": phases}
    if across[1] - across[0] > PERIOD_3 or phases > PHASES:
        return _mixed(
            "Red, green and blue stand beside each other along the rows: images were reshaped from [H, W, 3], not permuted.",
            evidence,
            f"every third pixel resembles its like by {across[1]:.2f}, the next one by {across[0]:.2f}; "
            f"steps between triples are {phases:.2g} times those within",
            "images = images.permute(0, 3, 1, 2) instead of view or reshape",
            0.95,
        )
    if max(across[0], down) < NOISE:
        found = _mixed(
            "Neighbouring pixels do not resemble each other: the images look like noise.",
            evidence,
            f"a pixel resembles the next one by {max(across[0], down):.2f}; in photos by 0.5 to 0.99",
            "Draw a batch as the network gets it, and compare it with the files",
            0.5,
        )
        return found
    return None


def _resemblance(images: torch.Tensor, lag: int, axis: int) -> float:
    """Correlation of pixels with those `lag` further along an axis, each image and channel about its own mean."""
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    length = images.shape[axis]
    first, second = centred.narrow(axis, 0, length - lag), centred.narrow(axis, lag, length - lag)
    power = float((first.square().sum() * second.square().sum()).sqrt())
    return float((first * second).sum()) / power if power > 0 else float("nan")


def _phases(images: torch.Tensor) -> float:
    """The largest over the smallest mean step from one number to the next in memory, by place modulo 3."""
    rows = images.flatten(1)
    steps = (rows[:, 1:] - rows[:, :-1]).abs()
    count = steps.shape[1] // 3 * 3
    means = steps[:, :count].reshape(len(steps), count // 3, 3).double().mean(dim=(0, 1))
    return float(means.max() / means.min().clamp_min(1e-12))


def _mixed(sentence: str, evidence: dict[str, float] | dict[str, str], because: str, advice: str, weight: float) -> Finding:
    causes = [Cause("channels-last", weight, because)]
    if weight < 0.9:
        causes.append(Cause("bad-batch", 0.4, "a wrong type or stride of the stored pixels makes noise of them too"))
    return Finding(
        "channel-order",
        "error" if weight >= 0.9 else "warning",
        sentence,
        evidence,
        tuple(causes),
        (Remedy(f"{advice}."),),
        SOURCE,
    )


# ---------------------------------------------------------------- red, green, blue


def _by_colours(patient: Patient) -> Finding | None:
    if patient.view is not None or patient.train_index is not None:
        return None
    train = thumbnails.of(patient, "train")
    if train is None or patient.images.shape[1] != 3:
        return None
    scored = thumbnails.of(patient, "scored")
    if scored is not None and min(len(train), len(scored)) >= 32:
        apart = distance(train.pixels_NSS3, scored.pixels_NSS3)
        exchanged = min(distance(train.pixels_NSS3, other) for other in _exchanged(scored.pixels_NSS3))
        if apart > APART and exchanged < NEARER * apart:
            return Finding(
                "channel-order",
                "error",
                "Blue and red are exchanged between the training and the validation images.",
                {"distance of their colours": apart, "with blue and red exchanged": exchanged},
                (
                    Cause("colour-order", 0.9, f"their colours lie {apart:.1f} deviations apart, exchanged {exchanged:.1f}"),
                    Cause("preprocessing-mismatch", 0.4, "the two sets are prepared by different code"),
                ),
                (Remedy("Read both with the same code; after OpenCV's imread, turn BGR to RGB: image = image[..., ::-1]."),),
                SOURCE,
            )
    return _blue(train)


def _exchanged(pixels_NSS3: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The images with blue and red exchanged: behind their normalisation, and before ImageNet's."""
    mean, std = np.array(IMAGENET_MEAN, dtype=np.float32), np.array(IMAGENET_STD, dtype=np.float32)
    turned = pixels_NSS3[..., ::-1]
    return [turned, (turned * std[::-1] + mean[::-1] - mean) / std]


def _blue(train: thumbnails.Thumbnails) -> Finding | None:
    redder_N = (train.pixels_NSS3[..., 0] - train.pixels_NSS3[..., 2]).mean(axis=(1, 2), dtype=np.float64)
    classes = len(np.unique(train.labels_N))
    if len(train) < LEAST_IMAGES or classes < 5 or not _is_plain(train.pixels_NSS3):
        return None
    deviations = float(redder_N.mean() / max(redder_N.std() / math.sqrt(len(train)), 1e-12))
    if deviations > BLUE:
        return None
    return Finding(
        "channel-order",
        "note",
        "The images are bluer than photos usually are: blue and red may be exchanged.",
        {"red less blue": float(redder_N.mean()), "in deviations": deviations, "images": len(train)},
        (Cause("colour-order", 0.35, f"red is below blue by {-deviations:.0f} deviations of the mean; in photos it is above"),),
        (Remedy("Draw a batch: skin and wood are blue where channels are exchanged. OpenCV's imread gives BGR."),),
        SOURCE,
    )


def _is_plain(pixels_NSS3: NDArray[np.float32]) -> bool:
    """Whether the three channels have one scale and no own mean, so that red less blue means something: 0..1 or 0..255."""
    return float(pixels_NSS3.min()) >= 0


def distance(a_NSS3: NDArray[np.float32], b_NSS3: NDArray[np.float32]) -> float:
    """How far the colours of two sets of images lie apart: the largest of some means' differences, in deviations of chance.

    Means over images of: each channel, its deviation within the image, and differences of the channels.
    """
    a, b = _colours(a_NSS3), _colours(b_NSS3)
    chance = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
    apart = (a.mean(axis=0) - b.mean(axis=0)) / np.maximum(chance, 1e-9)
    return float(np.sqrt(np.square(apart).mean()))


def _colours(pixels_NSS3: NDArray[np.float32]) -> NDArray[np.float64]:
    x = pixels_NSS3.astype(np.float64)
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    differences = np.stack([red - blue, red - green, green - blue], axis=-1)
    return np.concatenate(
        [x.mean(axis=(1, 2)), x.std(axis=(1, 2)), differences.mean(axis=(1, 2)), differences.std(axis=(1, 2))], axis=1
    )
