"""One training view of a photo, the reference for every other way to make it.

The order of operations, here and nowhere else: crop and resize, mirror image, policy, warp, colour, lighting, erasing, cutout.
It is that of torchvision's reference training (crop, mirror, policy, erasing), with the changes of colour where its colour
jitter stands beside a policy, and AlexNet's lighting after them as in fb.resnet.torch.

With Pillow's resampler every pixel is that of torchvision's operations on PIL images; other resamplers differ in the resize alone
(`resample`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from striate.data import photo, resample, views
from striate.data.augment import colour, erase, geometry, policy
from striate.data.augment.draw import Augmentation, Drawn, choose
from striate.data.decode import Pixels
from striate.data.photo import Photo


def apply(image_HW3: Pixels, augmentation: Augmentation, uniforms_row: NDArray[np.float64]) -> tuple[Pixels, Drawn]:
    """One training view of a decoded photo: uint8 [H, W, 3] to ([S, S, 3], the parameters used). As `fill`."""
    view_SS3 = np.empty((augmentation.size_px, augmentation.size_px, 3), dtype=np.uint8)
    return view_SS3, fill(view_SS3, photo.whole(image_HW3), augmentation, uniforms_row)


def fill(view_SS3: Pixels, source: Photo, augmentation: Augmentation, uniforms_row: NDArray[np.float64]) -> Drawn:
    """Writes one training view of a photo, uint8 [S, S, 3] and C-contiguous; returns the parameters used.

    uniforms_row: one row of `draw`. Raises BadImage where the photo cannot be used, or fitting would make it too large.
    """
    drawn = choose(source.width, source.height, augmentation, uniforms_row)
    _cut(view_SS3, source, drawn, augmentation)
    if augmentation.is_plain:
        return drawn
    image = before = views.pillow(view_SS3)
    image = policy.apply(image, drawn.operations)
    if drawn.affine is not None:
        image = geometry.warp(image, drawn.affine)
    image = colour.jitter(image, drawn.colour)
    if drawn.lighting is not None:
        image = colour.lighten(image, drawn.lighting)
    if image is not before:
        np.copyto(view_SS3, np.asarray(image))
    if drawn.erased is not None:
        erase.fill(view_SS3, drawn.erased, erase.noise(drawn.noise, drawn.erased.width, drawn.erased.height))
    if drawn.cutout is not None:
        erase.fill(view_SS3, drawn.cutout, augmentation.cutout_colour)
    return drawn


def _cut(view_SS3: Pixels, source: Photo, drawn: Drawn, augmentation: Augmentation) -> None:
    """Writes a square of the photo: a part of it, resized, cut, moved and mirrored."""
    side = augmentation.size_px
    wide, tall = drawn.resized_width, drawn.resized_height
    if (drawn.width, drawn.height) == (wide, tall):  # nothing is resized, so only the square is needed
        left, top = drawn.left + drawn.offset_x, drawn.top + drawn.offset_y
        np.copyto(view_SS3, source.window(left, top, side, side))
    else:
        views.refuse_strip(drawn.width, drawn.height, wide, tall)  # before anything of that size is made
        # The part is cut out first, so that pixels beside it do not shine in, as torchvision's resized_crop.
        part_HW3 = source.window(drawn.left, drawn.top, drawn.width, drawn.height)
        resized_HW3 = view_SS3 if (wide, tall) == (side, side) else np.empty((tall, wide, 3), dtype=np.uint8)
        resample.into(resized_HW3, part_HW3, augmentation.interpolation, augmentation.resampler)
        if resized_HW3 is not view_SS3:
            left, top = drawn.offset_x, drawn.offset_y
            np.copyto(view_SS3, resized_HW3[top : top + side, left : left + side])
    if drawn.shift_x or drawn.shift_y:
        geometry.move(view_SS3, drawn.shift_x, drawn.shift_y)
    if drawn.flipped:
        resample.mirror(view_SS3, augmentation.resampler)
