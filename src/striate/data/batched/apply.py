"""Training views of a batch, from stored photos and a plan: the twin of `augment.apply`, in the same order of operations."""

from __future__ import annotations

import torch

from striate.data.augment.draw import Augmentation
from striate.data.batched import changes, erase, resampling
from striate.data.batched.plan import Plan
from striate.data.loader import Batch
from striate.errors import expect


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
        levels_B3SS = resampling.resize(
            chosen_BHW3, x, y, plan.columns_first_b, plan.rows_first_b, augmentation.size_px, augmentation.interpolation
        )
        levels_B3SS = changes.apply(levels_B3SS, plan.changes)
        views_BSS3 = torch.stack([levels_BSS.to(torch.uint8) for levels_BSS in levels_B3SS.unbind(1)], -1)
        if plan.erased_B4 is not None and plan.noise_B is not None:
            views_BSS3 = erase.fill_noise(views_BSS3, plan.erased_B4, plan.noise_B, plan.erased_px)
        if plan.cutout_B4 is not None:
            views_BSS3 = erase.fill_colour(views_BSS3, plan.cutout_B4, augmentation.cutout_colour)
    return views_BSS3.permute(0, 3, 1, 2)
