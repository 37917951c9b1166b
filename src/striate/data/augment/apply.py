"""One training view of a photo, in Pillow: the reference for every other way to make it.

The order of operations, here and nowhere else: crop and resize, mirror image, policy, warp, colour, lighting, erasing, cutout.
It is that of torchvision's reference training (crop, mirror, policy, erasing), with the changes of colour where its colour
jitter stands beside a policy, and AlexNet's lighting after them as in fb.resnet.torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from striate.data.augment import colour, erase, geometry, policy
from striate.data.augment.draw import Augmentation, Drawn, choose
from striate.data.decode import Pixels


def apply(image_HW3: Pixels, augmentation: Augmentation, uniforms_row: NDArray[np.float64]) -> tuple[Pixels, Drawn]:
    """One training view: uint8 [H, W, 3] to ([S, S, 3], the parameters used).

    uniforms_row: one row of `draw`. The result may be read-only or the input itself: copy it before writing.
    Raises BadImage when fitting would make the photo too large.
    """
    height, width, _ = image_HW3.shape
    drawn = choose(width, height, augmentation, uniforms_row)
    side, shift = augmentation.size_px, (drawn.shift_x, drawn.shift_y)
    resized, offset = (drawn.resized_width, drawn.resized_height), (drawn.offset_x, drawn.offset_y)
    if augmentation.is_plain and drawn[2:4] == resized == (width, height) == (side, side):
        return geometry.moved(image_HW3, shift, drawn.flipped), drawn
    image = geometry.cut(image_HW3, drawn[:4], resized, offset, shift, drawn.flipped, side, augmentation.interpolation)
    if augmentation.is_plain:
        return np.asarray(image), drawn
    image = policy.apply(image, drawn.operations)
    if drawn.affine is not None:
        image = geometry.warp(image, drawn.affine)
    image = colour.jitter(image, drawn.colour)
    if drawn.lighting is not None:
        image = colour.lighten(image, drawn.lighting)
    if drawn.erased is None and drawn.cutout is None:
        return np.asarray(image), drawn
    view_SS3 = np.array(image)
    if drawn.erased is not None:
        erase.fill(view_SS3, drawn.erased, erase.noise(drawn.noise, drawn.erased.width, drawn.erased.height))
    if drawn.cutout is not None:
        erase.fill(view_SS3, drawn.cutout, augmentation.cutout_colour)
    return view_SS3, drawn
