"""Colours of a batch of training images, with Pillow's rounding: what `augment.colour` and the policies do one by one.

Images are uint8 [b, S, S, 3] on the way in and out; numbers, where there are any, [b] float64: one for each image.
"""

from __future__ import annotations

from typing import Final

import torch

# ITU-R 601 luminance in 16 bits, as Pillow has it.
_LUMINANCE: Final = (19595, 38470, 7471)
# Pillow's SMOOTH: the pixel five times, its eight neighbours once, over 13.
_SMOOTH_CENTRE: Final = 5
_SMOOTH_SUM: Final = 13


def brightness(images: torch.Tensor, factor_b: torch.Tensor) -> torch.Tensor:
    """Blended with black: factor 0 gives black, 1 the image itself."""
    return _blended(torch.zeros_like(images), images, factor_b)


def contrast(images: torch.Tensor, factor_b: torch.Tensor) -> torch.Tensor:
    """Blended with its mean luminance."""
    grey_bSS1 = _luminance(images)
    mean_b = grey_bSS1.sum((1, 2, 3), dtype=torch.int64).double() / grey_bSS1[0].numel()
    return _blended((mean_b + 0.5).int()[:, None, None, None], images, factor_b)


def saturation(images: torch.Tensor, factor_b: torch.Tensor) -> torch.Tensor:
    """Blended with its luminance: factor 0 gives a grey image."""
    return _blended(_luminance(images), images, factor_b)


def sharpness(images: torch.Tensor, factor_b: torch.Tensor) -> torch.Tensor:
    """Blended with a smoothed copy, whose border is the image's own."""
    levels = images.int()
    rows = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + (_SMOOTH_CENTRE - 1) * levels[:, 1:-1, 1:-1]
    smooth = levels.clone()
    smooth[:, 1:-1, 1:-1] = (2 * total + _SMOOTH_SUM) // (2 * _SMOOTH_SUM)
    return _blended(smooth, images, factor_b)


def posterize(images: torch.Tensor, bits_b: torch.Tensor) -> torch.Tensor:
    """The lowest bits cleared, so that bits of the eight stay."""
    mask_b = 256 - torch.exp2(8 - bits_b)
    return images & mask_b.to(torch.uint8)[:, None, None, None]


def solarize(images: torch.Tensor, threshold_b: torch.Tensor) -> torch.Tensor:
    """Levels from the threshold on inverted."""
    return torch.where(images < threshold_b[:, None, None, None], images, 255 - images)


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Each channel stretched so that its darkest level becomes 0 and its brightest 255; a plain channel stays."""
    low_bC1, high_bC1 = (end.double()[:, :, None] for end in (images.amin((1, 2)), images.amax((1, 2))))
    level_256 = torch.arange(256, device=images.device).double()
    # Not 255 / tensor, which torch computes as 255 times the reciprocal.
    scale_bC1 = torch.full_like(low_bC1, 255.0) / (high_bC1 - low_bC1)
    stretched_bC256 = (level_256 * scale_bC1 - low_bC1 * scale_bC1).clamp(0, 255)
    return _mapped(images, torch.where(high_bC1 > low_bC1, stretched_bC256, level_256))


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Each channel mapped so that its levels are about equally frequent."""
    sorted_bCP = images.flatten(1, 2).transpose(1, 2).contiguous().sort(-1).values
    level_256 = torch.arange(256, device=images.device, dtype=torch.uint8)
    # How many pixels lie below each level; the brightest level present is left out of Pillow's step.
    below_bC256 = torch.searchsorted(sorted_bCP, level_256.expand(*sorted_bCP.shape[:2], 256).contiguous())
    step_bC1 = below_bC256.gather(2, sorted_bCP[..., -1:].long()) // 255
    table_bC256 = (step_bC1 // 2 + below_bC256) // step_bC1.clamp(min=1)
    return _mapped(images, torch.where(step_bC1 > 0, table_bC256.clamp(max=255), level_256.long()))


def hue(images: torch.Tensor, turn_b: torch.Tensor) -> torch.Tensor:
    """Hue turned by a share of the full circle, in Pillow's HSV of 256 steps."""
    red, green, blue = (channel.float() for channel in images.unbind(-1))
    highest, lowest = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    spread = highest - lowest
    # Single and double precision alternate as in Pillow's code, where a hue near a whole step depends on it.
    from_red, from_green, from_blue = (((highest - channel) / spread).double() for channel in (red, green, blue))
    sector = torch.where(
        red == highest,
        from_blue - from_green,
        torch.where(green == highest, 2 + from_red - from_blue, 4 + from_green - from_red),
    )
    is_grey = spread == 0
    angle = torch.fmod(sector.float().double() / 6 + 1, 1).float().double() * 255
    amount = (spread / highest).double() * 255
    angle, amount = (torch.where(is_grey, 0.0, value).long() for value in (angle, amount))
    return _from_hsv((angle + (turn_b * 255).long()[:, None, None]) % 256, amount, highest)


def _from_hsv(angle: torch.Tensor, amount: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """RGB from Pillow's HSV: 0..255 each, all [b, S, S]."""
    place, share = (angle.double() * 6 / 255).float(), (amount.double() / 255).float()
    sector = place.floor()
    rest = place - sector
    # What Pillow calls p, q and t.
    least, falling, rising = (_half_up(value * (1 - part)) for part in (share, share * rest, share * (1 - rest)))
    choices = torch.stack([value, falling, least, least, rising, value], -1)
    number = sector.long() % 6
    channels = [choices.gather(-1, ((number + shift) % 6)[..., None]) for shift in (0, 4, 2)]
    return torch.cat(channels, -1).to(torch.uint8)


def _half_up(values: torch.Tensor) -> torch.Tensor:
    return (values + 0.5).floor()


def lighten(images: torch.Tensor, offset_b3: torch.Tensor) -> torch.Tensor:
    """The offset (in 0..1) of each image added to red, green and blue. offset_b3: [b, 3] float64."""
    level_256 = torch.arange(256, device=images.device).double()
    return _mapped(images, (level_256 + 255 * offset_b3[..., None]).round().clamp(0, 255))


# ---------------------------------------------------------------- parts


def _luminance(images: torch.Tensor) -> torch.Tensor:
    """[b, S, S, 1] int32 in 0..255."""
    red, green, blue = (channel.int() * weight for channel, weight in zip(images.unbind(-1), _LUMINANCE, strict=True))
    return ((red + green + blue + 0x8000) >> 16)[..., None]


def _blended(from_images: torch.Tensor, images: torch.Tensor, factor_b: torch.Tensor) -> torch.Tensor:
    """From the first (factor 0) to the second (factor 1) and beyond; rounded towards 0, as Pillow does."""
    start = from_images.float()
    moved = (images.float() - start) * factor_b.float()[:, None, None, None]
    return (start + moved).clamp_(0, 255).to(torch.uint8)


def _mapped(images: torch.Tensor, table_bC256: torch.Tensor) -> torch.Tensor:
    """Every value replaced by its entry in its image's and channel's table; fractions are cut off."""
    pixels_bCP = images.flatten(1, 2).transpose(1, 2).long()
    return table_bC256.to(torch.uint8).gather(2, pixels_bCP).transpose(1, 2).reshape(images.shape).contiguous()
