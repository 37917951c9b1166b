"""Errors that say what was expected, what was found, where, and the way out.

StriateError            1   never raised itself; anything else that escapes is a bug
├── UserError           2   usage or configuration
├── DataError           3   images, labels, layouts
├── CheckpointError     4   no usable checkpoint, or its integrity is broken
├── NonFiniteError      5   loss, gradients or logits are NaN or infinite
└── ResourceError       6   disk, memory, shared memory, a worker that died

The number is the exit code of the command. Exit code 75 (saved, to be continued) is an outcome, not an
error: see `sitting`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Protocol

DONE = 0
TO_BE_CONTINUED = 75


class StriateError(Exception):
    """Parent of every error that a user may see without a traceback.

    is_shared: whether every process of the training raises it, so that one of them need say it.
    """

    exit_code = 1
    is_shared = False


class UserError(StriateError):
    """Usage or configuration: the message names the option and the way out."""

    exit_code = 2


class BatchTooSmallError(UserError):
    """Batch normalisation would have a single image to average over."""


class DataError(StriateError):
    """Images, labels or layout: the message names the file or row."""

    exit_code = 3


class CheckpointError(StriateError):
    """No usable checkpoint, or one whose integrity is broken; the message lists what is wrong."""

    exit_code = 4


class NonFiniteError(StriateError):
    """Loss, gradients or logits became NaN or infinite; never turned into a number."""

    exit_code = 5


class ResourceError(StriateError):
    """Disk, memory, shared memory or a worker process: what ran out, and how much was needed."""

    exit_code = 6


class Interrupted(Exception):
    """The sitting has to end before the work at hand is done; says why. An outcome, not an error."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """A hint for a name that does not exist: ' Did you mean …?', or an empty string.

    Compares without regard to case; `known` are all valid names.
    """
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=0.55)
    if not close:
        return ""
    return " Did you mean " + " or ".join(f"'{by_lower[word]}'" for word in close) + "?"


def printable(text: str) -> str:
    """`text` as any terminal takes it: bytes of a file name that are not UTF-8, and control characters, are escaped."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode() for letter in safe
    )


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def expect(value: _Shaped, pattern: str, name: str = "value") -> dict[str, int]:
    """Checks the shape of a tensor or array against the words of a docstring.

    pattern: letters for free dimensions and numbers for fixed ones, as "B 3 H W"; a letter used twice
    must have one size. Returns the sizes by letter.
    Raises UserError naming the expected and the found shape.
    """
    words = pattern.split()
    found = tuple(int(side) for side in value.shape)
    sizes: dict[str, int] = {}
    agrees = len(words) == len(found)
    for word, side in zip(words, found, strict=False):
        wanted = int(word) if word.isdigit() else sizes.setdefault(word, side)
        agrees = agrees and wanted == side
    if not agrees:
        raise UserError(f"{name}: expected shape [{', '.join(words)}], found {list(found)}.")
    return sizes


def missing_package(package: str, extra: str) -> UserError:
    """The error for an optional package that is not installed, with its install line."""
    return UserError(f"This needs the package '{package}', which is not installed: pip install 'striate[{extra}]'")
