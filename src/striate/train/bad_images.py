"""The policy for images that cannot be read: stop the run, or leave them out within a stated budget and count them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from striate.errors import DataError
from striate.run.log import Record
from striate.train.build import Training


def account(training: Training, bad: Sequence[tuple[str, str]]) -> Iterator[Record]:
    """Accounts for training images that could not be read. Raises DataError under the policy "fail", or past the budget."""
    state = training.state
    for key, reason in bad:
        if key not in state.bad:
            state.bad[key] = reason
            yield Record("bad", state.step, {"key": key, "reason": reason})
    refuse(training, bad, len(training.train), len(state.bad))


def refuse(training: Training, bad: Sequence[tuple[str, str]], images: int, count: int | None = None) -> None:
    data = training.recipe.data
    count = len(bad) if count is None else count
    if bad and data.on_bad == "fail":
        key, reason = bad[0]
        more = f" ({len(bad)} such images here)" if len(bad) > 1 else ""
        raise DataError(
            f"{training.train.root}: '{key}' cannot be used: {reason}{more}. Repair it, or remove it "
            f"(--accept-data-change), or leave bad images out, counted in every report: "
            f"--name {training.run.name} --data.on-bad skip --override data.on_bad"
        )
    if bad and count > data.bad_share * images:
        raise DataError(
            f"{training.train.root}: {count} of {images} images cannot be read, more than "
            f"--data.bad-share {data.bad_share} allows; the last: {', '.join(f'{key} ({reason})' for key, reason in bad[-3:])}."
        )
