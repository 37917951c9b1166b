"""Colours of a batch of training images, with Pillow's rounding: what `augment.colour` and the policies do one by one.

Levels are float32 [b, 3, S, S], whole numbers in 0..255, and may be changed in place; channels stand apart, so that a
processor works on long rows of equal meaning. Numbers, where there are any, are [b] float64: one for each image.
"""

from __future__ import annotations

from typing import Final

import torch

# ITU-R 601 luminance in 16 bits, as Pillow has it. Sums of 255 times these stay below 2^24: exact in float32.
_LUMINANCE: Final = (19595, 38470, 7471)
_LUMINANCE_SUM: Final = 1 << 16
# Pillow's SMOOTH: the pixel five times, its eight neighbours once, over 13.
_SMOOTH_CENTRE: Final = 5
_SMOOTH_SUM: Final = 13


def blend(levels: torch.Tensor, factor_b: torch.Tensor, grey_b: torch.Tensor, mean_b: torch.Tensor) -> torch.Tensor:
    """From black, from each pixel's luminance (grey 1) or from the image's mean luminance (mean 1), by the factor.

    Brightness, saturation and contrast in one: a batch in which each image has another of them need not be sorted.
    A factor of 1 changes nothing.
    """
    luminance_bSS = _luminance(levels)
    mean = luminance_bSS.sum((1, 2), dtype=torch.float64) / luminance_bSS[0].numel()
    start_bSS = (luminance_bSS * _wide(grey_b)).add_(_wide((mean + 0.5).floor() * mean_b))
    return _blended(start_bSS[:, None], levels, factor_b)


def sharpness(levels: torch.Tensor, factor_b: torch.Tensor) -> torch.Tensor:
    """Blended with a smoothed copy, whose border is the image's own."""
    rows = levels[:, :, :-2] + levels[:, :, 1:-1] + levels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + (_SMOOTH_CENTRE - 1) * levels[..., 1:-1, 1:-1]
    smooth = levels.clone()
    smooth[..., 1:-1, 1:-1] = ((2 * total + _SMOOTH_SUM) / (2 * _SMOOTH_SUM)).floor_()
    return _blended(smooth, levels, factor_b)


def posterize(levels: torch.Tensor, bits_b: torch.Tensor) -> torch.Tensor:
    """The lowest bits cleared, so that bits of the eight stay."""
    step = _wide(torch.exp2(8 - bits_b))[:, None]
    return levels.div_(step).floor_().mul_(step)


def solarize(levels: torch.Tensor, threshold_b: torch.Tensor) -> torch.Tensor:
    """Levels from the threshold on inverted."""
    return torch.where(levels < threshold_b[:, None, None, None], levels, 255 - levels)


def autocontrast(levels: torch.Tensor) -> torch.Tensor:
    """Each channel stretched so that its darkest level becomes 0 and its brightest 255; a plain channel stays."""
    low_bC1, high_bC1 = (end.double()[:, :, None] for end in (levels.amin((2, 3)), levels.amax((2, 3))))
    level_256 = torch.arange(256, device=levels.device).double()
    # Not 255 / tensor, which torch computes as 255 times the reciprocal.
    scale_bC1 = torch.full_like(low_bC1, 255.0) / (high_bC1 - low_bC1)
    stretched_bC256 = (level_256 * scale_bC1 - low_bC1 * scale_bC1).clamp(0, 255)
    return _mapped(levels, torch.where(high_bC1 > low_bC1, stretched_bC256, level_256))


def equalize(levels: torch.Tensor) -> torch.Tensor:
    """Each channel mapped so that its levels are about equally frequent."""
    sorted_bCP = levels.flatten(2).to(torch.uint8).sort(-1).values
    level_256 = torch.arange(256, device=levels.device, dtype=torch.uint8)
    # How many pixels lie below each level; the brightest level present is left out of Pillow's step.
    below_bC256 = torch.searchsorted(sorted_bCP, level_256.expand(*sorted_bCP.shape[:2], 256).contiguous())
    step_bC1 = below_bC256.gather(2, sorted_bCP[..., -1:].long()) // 255
    table_bC256 = (step_bC1 // 2 + below_bC256) // step_bC1.clamp(min=1)
    return _mapped(levels, torch.where(step_bC1 > 0, table_bC256.clamp(max=255), level_256.long()))


def lighten(levels: torch.Tensor, offset_b3: torch.Tensor) -> torch.Tensor:
    """The offset (in 0..1) of each image added to red, green and blue. offset_b3: [b, 3] float64."""
    return levels.double().add_(255 * offset_b3[..., None, None]).round_().clamp_(0, 255).float()


# ---------------------------------------------------------------- hue


def hue(levels: torch.Tensor, turn_b: torch.Tensor) -> torch.Tensor:
    """Hue turned by a share of the full circle, in Pillow's HSV of 256 steps."""
    angle_bSS, amount_bSS, value_bSS = _to_hsv(levels)
    angle_bSS.add_(_wide((turn_b * 255).trunc().remainder(256)))
    angle_bSS.sub_((angle_bSS / 256).floor_(), alpha=256)
    return _from_hsv(angle_bSS, amount_bSS, value_bSS)


def _to_hsv(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pillow's HSV: whole numbers 0..255, [b, S, S] each.

    Single and double precision alternate as in Pillow's code, where a hue near a whole step depends on it. Selecting is
    multiplying by 0 or 1, which processors do many times faster than `torch.where`.
    """
    value, lowest = levels.amax(1), levels.amin(1)
    spread = value - lowest
    share = (value[:, None] - levels).div_(spread.clamp(min=1)[:, None])
    from_red, from_green, from_blue = share.unbind(1)
    is_red, is_green = ((levels[:, channel] - value).add_(1).clamp_(min=0) for channel in (0, 1))  # where it is the highest
    is_green *= 1 - is_red
    is_blue = 1 - is_red - is_green
    ahead = (from_blue * is_red).addcmul_(from_red, is_green).addcmul_(from_green, is_blue)
    behind = (from_green * is_red).addcmul_(from_blue, is_green).addcmul_(from_red, is_blue)
    sector = ahead.double().sub_(behind).add_(is_green, alpha=2).add_(is_blue, alpha=4).float()
    angle = sector.double().div_(6).add_(1).frac_().float().double().mul_(255).floor_().float()
    return angle, (spread / value.clamp(min=1)).mul_(255).floor_(), value


def _from_hsv(angle_bSS: torch.Tensor, amount_bSS: torch.Tensor, value_bSS: torch.Tensor) -> torch.Tensor:
    """Levels from Pillow's HSV.

    How far a channel lies below the value goes up and down along the circle, by slopes of one sixth: Pillow's p, q and t.
    """
    sixths, amount = (angle_bSS.double() * 6 / 255).float()[:, None], (amount_bSS.double() / 255).float()[:, None]
    channel_C11 = torch.arange(3, device=sixths.device)[:, None, None]
    falling, rising = 2 * channel_C11 + 1, (2 * channel_C11 + 4) % 6  # the sixths where red, green and blue begin to
    below = (falling > rising).float() - (sixths - rising).clamp_(0, 1)
    below = below.add_((sixths - falling).clamp_(0, 1)).mul_(amount)
    return below.neg_().add_(1).mul_(value_bSS[:, None]).add_(0.5).floor_()


# ---------------------------------------------------------------- parts


def _wide(values_b: torch.Tensor) -> torch.Tensor:
    """One float32 number for each image, beside [b, S, S]."""
    return values_b.float()[:, None, None]


def _luminance(levels: torch.Tensor) -> torch.Tensor:
    """[b, S, S] float32, whole numbers in 0..255."""
    red, green, blue = levels.unbind(1)
    total = (red * _LUMINANCE[0]).add_(green, alpha=_LUMINANCE[1]).add_(blue, alpha=_LUMINANCE[2])
    return total.add_(_LUMINANCE_SUM // 2).mul_(1 / _LUMINANCE_SUM).floor_()


def _blended(start: torch.Tensor, levels: torch.Tensor, factor_b: torch.Tensor) -> torch.Tensor:
    """From the first (factor 0) to the levels (factor 1) and beyond; rounded towards 0, as Pillow does."""
    return levels.sub_(start).mul_(_wide(factor_b)[:, None]).add_(start).clamp_(0, 255).floor_()


def _mapped(levels: torch.Tensor, table_bC256: torch.Tensor) -> torch.Tensor:
    """Every value replaced by its entry in its image's and channel's table; fractions are cut off."""
    return table_bC256.floor().float().gather(2, levels.flatten(2).long()).view(levels.shape)
