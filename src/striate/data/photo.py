"""A photo of which only a part may be wanted: its sides are known first, then a window of its pixels is asked for.

So what training draws for an image is settled before anything is decoded, and a store that can bring a part brings no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from striate.data.decode import BadImage, Pixels
from striate.data.index import Store


class Photo(NamedTuple):
    """Width and height of a photo, and window(left, top, width, height): a part of its pixels, uint8 [height, width, 3].

    The part lies within the photo. It may be a view of a larger array, and read-only. `window` raises BadImage.
    """

    width: int
    height: int
    window: Callable[[int, int, int, int], Pixels]


@runtime_checkable
class Windowed(Protocol):
    """A `Store` that can bring a part of an image without decoding the rest."""

    def sides(self, place: int, exif: bool) -> tuple[int, int] | None:
        """Width and height of an image, without looking at it; None where it has to be decoded whole."""

    def window(self, place: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Exactly that part of the whole image, for an image of which `sides` are given. Raises BadImage."""


def whole(image_HW3: Pixels) -> Photo:
    """A photo whose pixels are all there."""
    height, width, _ = image_HW3.shape

    def window(left: int, top: int, wide: int, tall: int) -> Pixels:
        return image_HW3[top : top + tall, left : left + wide]

    return Photo(width, height, window)


def stored(store: Windowed, place: int, sides: tuple[int, int], decoded: Callable[[], Pixels]) -> Photo:
    """A photo in a store that brings parts. decoded: all of it, for the case that the part cannot be had. May raise BadImage."""

    def window(left: int, top: int, wide: int, tall: int) -> Pixels:
        try:
            return store.window(place, left, top, wide, tall)
        except BadImage:  # damage, perhaps beside the image itself: the whole decides whether the image can be used
            image_HW3 = decoded()
        height, width, _ = image_HW3.shape
        if (width, height) != sides:
            raise BadImage(f"stored as {sides[0]} x {sides[1]} pixels, decoded were {width} x {height}")
        return image_HW3[top : top + tall, left : left + wide]

    return Photo(*sides, window)


def windowed(store: Store | None) -> Windowed | None:
    """The store, if it can bring parts."""
    return store if isinstance(store, Windowed) else None
