"""Training views of a batch, from stored photos and a plan: the twin of `augment.apply`, in the same order of operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from striate.data.augment.draw import Augmentation
from striate.data.batched import colour, erase, resampling, warp
from striate.data.batched.plan import Plan
from striate.data.loader import Batch
from striate.errors import expect

# What an operation of a plan does to uint8 [b, S, S, 3]; its numbers come as [b, 6] float64.
OPERATIONS: Final[dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "nearest": warp.nearest,
    "bilinear": warp.bilinear,
    "brightness": lambda images, numbers: colour.brightness(images, numbers[:, 0]),
    "contrast": lambda images, numbers: colour.contrast(images, numbers[:, 0]),
    "saturation": lambda images, numbers: colour.saturation(images, numbers[:, 0]),
    "hue": lambda images, numbers: colour.hue(images, numbers[:, 0]),
    "lighting": lambda images, numbers: colour.lighten(images, numbers[:, :3]),
    "Brightness": lambda images, numbers: colour.brightness(images, 1 + numbers[:, 0]),
    "Color": lambda images, numbers: colour.saturation(images, 1 + numbers[:, 0]),
    "Contrast": lambda images, numbers: colour.contrast(images, 1 + numbers[:, 0]),
    "Sharpness": lambda images, numbers: colour.sharpness(images, 1 + numbers[:, 0]),
    "Posterize": lambda images, numbers: colour.posterize(images, numbers[:, 0]),
    "Solarize": lambda images, numbers: colour.solarize(images, numbers[:, 0]),
    "AutoContrast": lambda images, _: colour.autocontrast(images),
    "Equalize": lambda images, _: colour.equalize(images),
}


def apply(batch: Batch, augmentation: Augmentation, device: torch.device) -> torch.Tensor:
    """The training images of a batch that came with a plan: uint8 [B, 3, S, S] on the device, in channels_last memory."""
    if batch.plan is None:
        raise ValueError("the batch has no plan: its images are finished")
    return views(batch.images.to(device, non_blocking=True), batch.plan.to(device), augmentation)


@torch.no_grad()
def views(photos: torch.Tensor, plan: Plan, augmentation: Augmentation) -> torch.Tensor:
    """The views of a plan: uint8 [B, 3, S, S] in channels_last memory, on the device of the photos and the plan.

    photos: uint8 [N, H, W, 3], as stored; smaller ones are padded with anything.
    """
    expect(photos, "N H W 3", "photos")
    with torch.autocast(photos.device.type, enabled=False):
        chosen_BHW3 = photos if plan.photos_B is None else photos[plan.photos_B]
        x, y = (resampling.Axis(plan.longest_px, *place_6B) for place_6B in plan.place_26B)
        views_BSS3 = resampling.resize(
            chosen_BHW3, x, y, plan.columns_first_b, plan.rows_first_b, augmentation.size_px, augmentation.interpolation
        )
        for name, number, first, last in plan.groups:
            rows_b, numbers_b6 = plan.rows_RB[number, first:last], plan.numbers_RB6[number, first:last]
            if last - first == len(views_BSS3):
                views_BSS3 = OPERATIONS[name](views_BSS3, numbers_b6)  # sorting kept their order
            else:
                views_BSS3[rows_b] = OPERATIONS[name](views_BSS3[rows_b], numbers_b6)
        if plan.erased_B4 is not None and plan.noise_B is not None:
            views_BSS3 = erase.fill_noise(views_BSS3, plan.erased_B4, plan.noise_B, plan.erased_px)
        if plan.cutout_B4 is not None:
            views_BSS3 = erase.fill_colour(views_BSS3, plan.cutout_B4, augmentation.cutout_colour)
    return views_BSS3.permute(0, 3, 1, 2)
