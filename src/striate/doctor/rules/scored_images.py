"""Validation images are prepared otherwise than training images.

Looks at mean and deviation of the pixels of some training and some validation batches, channel by channel, as the network gets
them. Random crops and colour changes move them a little; another normalisation, another range or exchanged channels move them far
beyond, and a network is then scored on images that it was never shown. Also at the recipe's crops: how large things are in each.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from striate.doctor import neighbours, thumbnails
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Batches, Patient

SOURCE = "Touvron et al. 2019 (train-test resolution), section 3; torchvision's references (one normalisation for both splits)"
# Images of each split that are looked at, and fewest to judge by.
IMAGES, FEWEST = 256, 24
# A deviation that is so many times the other, or means so many deviations apart: crops and colour jitter stay below 1.3 and 0.3.
TIMES, APART = 1.6, 0.7
# Images of each split by whose looks they are told apart, and Cohen's kappa from which they are: random crops against the centre
# of the same photos stay below 0.4.
LEAST_LOOKS, MOST_LOOKS = 60, 300
TOLD, SURELY_TOLD = 0.5, 0.7
# What red does not tell of blue, in one split over the same in the other, where only one has colours.
GREY = 0.1
# Times that things may be larger or smaller in scoring; the usual recipe has 0.84.
LARGER = 1.7


def check(patient: Patient) -> Finding | None:
    """The finding, or None where both splits have pixels of one kind, and as much of each photo."""
    return _pixels_apart(patient) or _crops_apart(patient) or _looks_apart(patient)


def _looks_apart(patient: Patient) -> Finding | None:
    """Whether a probe that knows nothing of classes tells by the look of a stranger's image from which split it comes."""
    if patient.recipe is not None:
        return None  # what the recipe does to both is known
    train, scored = thumbnails.of(patient, "train"), thumbnails.of(patient, "scored")
    if train is None or scored is None or min(len(train), len(scored)) < LEAST_LOOKS:
        return None
    count = min(len(train), len(scored), MOST_LOOKS)
    pixels = [one.pixels_NSS3[:count] for one in (train, scored)]
    # What of blue red does not tell, whatever each channel was scaled by.
    colour = [1 - float(np.corrcoef(one[..., 0].ravel(), one[..., 2].ravel())[0, 1]) ** 2 for one in pixels]
    is_grey = min(colour) < GREY * max(colour)
    probe = neighbours.Probe(neighbours.features(np.concatenate(pixels)))
    found = neighbours.agreement(probe, np.repeat(np.arange(2), count), 2)
    if found.kappa < TOLD:
        return None
    return Finding(
        "scored-images",
        "warning" if found.kappa > SURELY_TOLD else "note",
        f"Validation images look unlike training images: by their look {found.share:.0%} of {found.images} are told to be of one "
        "split or the other, where 50% would be chance.",
        {"told apart": found.share, "images": found.images, "deviations above chance": found.above},
        (
            Cause("augmentation-mismatch", 0.75, "edges and colours differ; the pixels' mean and deviation do not"),
            Cause(
                "preprocessing-mismatch",
                0.9 if is_grey else 0.65,
                "only one split has colours" if is_grey else "or one split is read, cut or resized in another way",
            ),
        ),
        (Remedy("Look at images of both splits side by side, as the network gets them."),),
        "Ben-David et al. 2010, section 4 (a classifier of domains measures how far they are apart)",
    )


def _crops_apart(patient: Patient) -> Finding | None:
    """Whether the recipe scores a much smaller or larger part of a photo than it trains on."""
    recipe = patient.recipe
    if recipe is None or recipe.data.fit == "squash" or recipe.augment.crop != "random-resized":
        trained = 1.0 if recipe is not None and recipe.augment.crop == "resize" else None
    else:
        trained = sum(recipe.augment.scale) / 2
    if recipe is None or trained is None or recipe.data.fit == "squash":
        return None
    scored = recipe.data.crop_share**2
    larger = math.sqrt(trained / scored)  # how much larger things are when they are scored
    if 1 / LARGER < larger < LARGER:
        return None
    return Finding(
        "scored-images",
        "warning",
        f"Training sees {trained:.0%} of a photo on average and scoring {scored:.0%}: things are {larger:.2g} times as large "
        "when they are scored.",
        {"share of a photo in training": trained, "share of a photo in scoring": scored, "times as large": larger},
        (Cause("augmentation-mismatch", 0.85, f"crops of {trained:.0%} against {scored:.0%} of the area"),),
        (
            Remedy("Score what is trained on.", {"data.crop_share": 0.875}),
            Remedy("Or train on smaller crops.", {"augment.scale": [round(max(0.08, scored / 4), 2), 1.0]}),
        ),
        SOURCE,
    )


def _pixels_apart(patient: Patient) -> Finding | None:
    """Whether means and deviations of the two splits are far apart."""
    if patient.scored is None:
        raise NotJudged("no validation images")
    train, scored = _pixels(patient.train), _pixels(patient.scored)
    if min(len(train), len(scored)) < FEWEST or train.shape[1] != scored.shape[1]:
        raise NotJudged("too few images")
    means = [pixels.mean(dim=(0, 2)) for pixels in (train, scored)]
    deviations = [pixels.std(dim=(0, 2)) for pixels in (train, scored)]
    if float(deviations[0].min()) <= 0 or float(deviations[1].min()) <= 0:
        raise NotJudged("images without content")
    ratio = float((deviations[1] / deviations[0]).log().mean().exp())
    apart = float(((means[1] - means[0]) / deviations[0]).abs().max())
    if 1 / TIMES < ratio < TIMES and apart < APART:
        return None
    shown = [[round(value, 3) for value in numbers.tolist()] for numbers in (*means, *deviations)]
    return Finding(
        "scored-images",
        "error",
        f"Validation images are prepared otherwise than training images: mean {_list(means[1])} and deviation "
        f"{_list(deviations[1])}, in training {_list(means[0])} and {_list(deviations[0])}.",
        {
            "mean in training": shown[0],
            "mean in validation": shown[1],
            "deviation in training": shown[2],
            "deviation in validation": shown[3],
            "images": [len(train), len(scored)],
        },
        (
            Cause("preprocessing-mismatch", 0.9, f"deviations {ratio:.2g} times, means {apart:.2g} deviations apart"),
            Cause("augmentation-mismatch", 0.2, "or training images are changed so much that they are another kind"),
        ),
        (Remedy("Prepare both splits alike: the same mean and deviation, range of pixels and order of channels."),),
        SOURCE,
    )


def _pixels(batches: Batches) -> torch.Tensor:
    """Some images, [N, C, pixels] float32 on the CPU; images of another size than the first are left out."""
    found: list[torch.Tensor] = []
    count = 0
    for images, _ in itertools.islice(batches(), 64):
        if images.dim() < 3:
            break
        flat = images.detach().float().flatten(2).cpu()
        if found and flat.shape[1:] != found[0].shape[1:]:
            continue
        found.append(flat[: IMAGES - count])
        count += len(found[-1])
        if count >= IMAGES:
            break
    whole = torch.cat(found) if found else torch.zeros(0, 1, 1)
    return whole[torch.isfinite(whole).flatten(1).all(dim=1)]


def _list(numbers: torch.Tensor) -> str:
    return "/".join(f"{value:.2g}" for value in numbers.tolist())
