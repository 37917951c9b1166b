"""Resizing for training: as Pillow does it, or nearly so in a fraction of the time.

"pillow" is the reference, bit for bit. "torch" is torch's antialiased kernel for bytes, with Pillow's filters and weights of
less precision: at most 2 levels of 255 away, on average 0.03. "opencv" is OpenCV's plain bilinear where the image is enlarged
along both axes (0.2 levels on average), and torch elsewhere, as it does not antialias. Evaluation always takes Pillow (`views`).

One thread of a Xeon (Sapphire Rapids), random resized crops to 224 x 224, processor time for each: of ImageNet originals
pillow 0.63 ms, torch 0.18 and opencv 0.18; of the same photos with their shorter side at 256, 0.44, 0.12 and 0.10.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
import torch

from striate.data import views
from striate.data.decode import Pixels
from striate.errors import UserError
from striate.view import Interpolation

Resampler = Literal["pillow", "torch", "opencv"]

# Who can do which filter. What opencv cannot enlarge it leaves to torch.
FILTERS: Final[dict[Resampler, tuple[Interpolation, ...]]] = {
    "pillow": ("bilinear", "bicubic", "nearest", "lanczos"),
    "torch": ("bilinear", "bicubic"),
    "opencv": ("bilinear",),
}


def into(view_HW3: Pixels, image_HW3: Pixels, interpolation: Interpolation, resampler: Resampler) -> None:
    """Writes the image in the view's size, antialiased where it shrinks. Both uint8 [H, W, 3].

    view_HW3: C-contiguous. image_HW3: of any strides, also read-only. `views.refuse_strip` is the caller's affair.
    """
    height, width, _ = view_HW3.shape
    height_before, width_before, _ = image_HW3.shape
    if (height, width) == (height_before, width_before):
        np.copyto(view_HW3, image_HW3)
        return
    if resampler == "pillow":
        np.copyto(view_HW3, views.resize(image_HW3, width, height, interpolation))
    elif resampler == "opencv" and width >= width_before and height >= height_before:
        cv2 = _opencv()
        cv2.resize(image_HW3, (width, height), dst=view_HW3, interpolation=cv2.INTER_LINEAR)
    else:
        # A copy of a part is cheap here; torch's own is slow, and by several threads. It also wants memory that it may write.
        is_ready = image_HW3.flags.c_contiguous and image_HW3.flags.writeable
        image_1HW3 = torch.from_numpy(image_HW3 if is_ready else image_HW3.copy())[None]
        image_13HW = image_1HW3.permute(0, 3, 1, 2)  # made in this order, torch sees channels_last, and so is what it returns
        resized_13HW = torch.nn.functional.interpolate(image_13HW, (height, width), mode=interpolation, antialias=True)
        np.copyto(view_HW3, resized_13HW.permute(0, 2, 3, 1)[0].numpy())


def mirror(images: Pixels, resampler: Resampler) -> None:
    """Exchanges left and right: uint8 [..., H, W, 3], C-contiguous and writable. The same pixels whoever does it."""
    if resampler == "opencv" and images.ndim == 3:
        _opencv().flip(images, 1, dst=images)
        return
    # By torch, as numpy moves pixels of three bytes one by one, at half the speed; in pieces so small that torch stays in this
    # thread: from 32,768 values on it takes others.
    rows_RW3 = torch.from_numpy(images.reshape(-1, *images.shape[-2:]))
    rows = max(1, 32767 // (3 * images.shape[-2]))
    for first in range(0, len(rows_RW3), rows):
        piece_RW3 = rows_RW3[first : first + rows]
        piece_RW3.copy_(piece_RW3.flip(1))


def has_opencv() -> bool:
    """Whether OpenCV can be used."""
    try:
        _opencv()
    except UserError:
        return False
    return True


def chosen(wanted: Resampler | Literal["auto"], interpolation: Interpolation, batched: bool) -> Resampler:
    """What "auto" means here: the fastest for the filter; pillow in batches, which equal it bit for bit.

    Raises UserError for another one in batches, and as `check`.
    """
    if batched:
        if wanted not in ("auto", "pillow"):
            raise UserError(
                f"--augment.resampler {wanted}: images made in batches are Pillow's. Leave it out, or add "
                "--augment.execution per-image."
            )
        return "pillow"
    if wanted != "auto":
        check(wanted, interpolation)
        return wanted
    fastest: tuple[Resampler, ...] = ("opencv", "torch", "pillow")
    return next(one for one in fastest if interpolation in FILTERS[one] and (one != "opencv" or has_opencv()))


def check(resampler: Resampler, interpolation: Interpolation) -> None:
    """Raises UserError where the resampler cannot do the filter, or is not there."""
    if resampler not in FILTERS:
        raise UserError(f"augment.resampler is {resampler!r}; expected {', '.join(FILTERS)}.")
    if interpolation not in FILTERS[resampler]:
        raise UserError(
            f"augment.resampler {resampler}: does {' and '.join(FILTERS[resampler])}, not {interpolation}. Use auto or pillow."
        )
    if resampler == "opencv":
        _opencv()


@contextlib.contextmanager
def one_thread(resampler: Resampler) -> Iterator[None]:
    """Keeps OpenCV from starting threads of its own beside those that call it; afterwards it may again.

    OpenCV has one number for all; blocks that overlap without nesting leave it at one thread.
    """
    if resampler != "opencv":
        yield
        return
    before, set_threads = _opencv().getNumThreads(), _opencv().setNumThreads
    set_threads(0)
    try:
        yield
    finally:
        set_threads(before)


@functools.cache
def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "augment.resampler opencv: needs OpenCV. Install it: pip install opencv-python-headless. (Another resampler gives "
            "slightly other pixels, so a training goes on with the one it began with.)"
        ) from error
    return cv2
