"""Rectangles of a batch of images filled with noise or one colour: the twin of `augment.erase`."""

from __future__ import annotations

import torch

from striate import machine


def fill_noise(images: torch.Tensor, rectangle_B4: torch.Tensor, number_B: torch.Tensor, most_px: int) -> torch.Tensor:
    """Each image's rectangle filled with the bytes of `augment.erase.noise`.

    images: uint8 [B, S, S, 3]. rectangle_B4: [B, 4] int64, left, top, width, height; of no area where nothing is erased.
    number_B: [B] int64. most_px: area of the largest rectangle.
    """
    bytes_BN = machine.bits_torch(0, "erase", 0, number_B, -(-3 * most_px // 8)).view(torch.uint8)  # little-endian
    is_inside, column, row = _inside(images, rectangle_B4)
    first_BSS = torch.where(is_inside, 3 * (row * rectangle_B4[:, 2, None, None] + column), 0)
    place_BSS3 = first_BSS[..., None] + torch.arange(3, device=images.device)
    noise_BSS3 = bytes_BN.gather(1, place_BSS3.flatten(1)).view(images.shape)
    return torch.where(is_inside[..., None], noise_BSS3, images)


def fill_colour(images: torch.Tensor, rectangle_B4: torch.Tensor, colour: tuple[int, int, int]) -> torch.Tensor:
    """Each image's rectangle filled with one colour, 0..255. The rest as `fill_noise`."""
    is_inside, _, _ = _inside(images, rectangle_B4)
    return torch.where(is_inside[..., None], images.new_tensor(colour), images)


def _inside(images: torch.Tensor, rectangle_B4: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whether a pixel lies in its image's rectangle, and its column and row in it: [B, S, S] (or what broadcasts to it)."""
    left, top, width, height = (value[:, None, None] for value in rectangle_B4.unbind(1))
    pixel_S = torch.arange(images.shape[1], device=images.device)
    column, row = pixel_S - left, pixel_S[:, None] - top
    return (column >= 0) & (column < width) & (row >= 0) & (row < height), column, row
