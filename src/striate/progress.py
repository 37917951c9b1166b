"""The display: a line that is rewritten where there is a terminal or a notebook, plain lines where there is neither."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from striate.errors import DONE, TO_BE_CONTINUED, printable
from striate.run.log import Record

# Plain lines come at most this often, so that a log file of a long run stays readable.
LINE_EVERY_S = 10.0
# A notebook's line is rewritten at most this often, for each time is a message to the browser.
CELL_EVERY_S = 0.25


class Terminal(Console):
    """A console whose reader may go away: that silences the display and never ends a training."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def notebook() -> Callable[..., Any] | None:
    """The function that shows something in a notebook's cell, where this process is a notebook's kernel; else None.

    IPython is looked for among what is imported, and never imported: a kernel has it.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    show: Callable[..., Any] | None = getattr(sys.modules.get("IPython.display"), "display", None)
    return show if hasattr(shell, "kernel") else None


class Cell:
    """A line in the output of a notebook's cell that is rewritten in its place; what is printed later stands below it.

    show: IPython's `display`.
    """

    def __init__(self, show: Callable[..., Any], now: Callable[[], float]) -> None:
        self._show, self._now = show, now
        self._handle: Any = None
        self._text = self._shown = ""
        self._shown_at = -1e9

    def rewrite(self, text: str) -> None:
        """Puts `text` in the line's place, at once or with one of the next texts."""
        self._text = text
        if self._now() - self._shown_at >= CELL_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Shows the last text if it is not shown yet."""
        if self._text == self._shown:
            return
        self._shown, self._shown_at = self._text, self._now()
        content = {"text/plain": self._text}
        if self._handle is None:
            self._handle = self._show(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class Display:
    """Shows records as they come. In a terminal it writes to standard error, so that standard output stays for results.

    quiet: nothing but problems. again: how a person goes on with a training that was stopped, as the start of a sentence.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        show = notebook() if console is None else None
        if console is None and show is not None:  # a notebook shows standard error as if something were wrong
            console = Terminal(file=sys.stdout, force_terminal=False, force_jupyter=False, soft_wrap=True, highlight=False)
        self._console = console or Terminal(stderr=True, soft_wrap=not sys.stderr.isatty(), highlight=False)
        self.again = "Run the same command again" if show is None else "Run this cell again"
        self._quiet = quiet
        self._now = now
        self._cell = Cell(show, now) if show is not None and not quiet else None
        self._live: Live | None = None
        self._last_line = -1e9

    def __enter__(self) -> Display:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(Text(""), console=self._console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._cell is not None:
            self._cell.flush()

    def say(self, text: str) -> None:
        """One line for people."""
        if not self._quiet:
            self._console.print(Text(printable(text)))

    def decoding(self, done: int, total: int, doing: str = "Decoding images") -> None:
        """Progress of decoding images into memory, or of `doing` something else with each."""
        text = f"{doing}: {done:,} of {total:,}"
        if not self._rewritten(text) and not self._quiet and self._due():
            self.say(text)

    def show(self, record: Record) -> None:
        """Shows one record of the training."""
        values = record.values
        if record.kind == "step":
            text = line(values | {"step": record.step})
            if not self._rewritten(text) and not self._quiet and self._due():
                self.say(text)
            return
        words = sentence(record, self.again)
        if words:
            self.say(words)

    def _rewritten(self, text: str) -> bool:
        """Puts `text` into the line that is rewritten, if there is one."""
        if self._cell is not None:
            self._cell.rewrite(printable(text))
        elif self._live is not None:
            self._live.update(Text(text))
        return self._cell is not None or self._live is not None

    def _due(self) -> bool:
        if self._now() - self._last_line < LINE_EVERY_S:
            return False
        self._last_line = self._now()
        return True


def sentence(record: Record, again: str = "Run the same command again") -> str | None:
    """What a record that is no step says to people; None when it is for machines only. again: how one goes on."""
    values = record.values
    if record.kind in {"start", "resume"}:
        verb = "Training" if record.kind == "start" else f"Going on at step {record.step:,}:"
        left = values["dropped_per_epoch"]
        return (
            f"{verb} {values['model']} ({values['parameters']:,} parameters) on {values['images']:,} images of "
            f"{values['classes']} classes, {values['val_images']:,} to validate; {values['device']}, {values['precision']}, "
            f"{values['threads']} threads, batch {values['batch_size']}, {values['steps_per_epoch']:,} steps per epoch"
            + (f" (the last short batch, {left} images, is dropped)" if left else "")
        )
    if record.kind == "note":
        return str(values["text"])
    if record.kind == "bad":
        return f"Bad image: {values['key']}: {values['reason']}"
    if record.kind == "skip":
        layer = f", first in layer {values['first_bad_layer']}" if values["first_bad_layer"] else ""
        images = f", images {', '.join(values['keys'])}" if values["keys"] else ""
        return f"Step {record.step:,} skipped: {values['reason']}{layer}{images}"
    if record.kind == "evaluation":
        low, high = values["top1_interval"]
        return (
            f"epoch {values['epoch']:.2f}  {values['split']} ({values['weights']})  top-1 {values['top1']:.2%} "
            f"({low:.2%} to {high:.2%})  top-{values['top5_k']} {values['top5']:.2%}  loss {_loss(values['loss'])}  "
            f"{values['used']:,} of {values['expected']:,} images"
        )
    if record.kind == "end" and values["exit_code"] == TO_BE_CONTINUED:
        return f"Saved at step {record.step:,} ({values['reason']}). {again} to go on."
    if record.kind == "end" and values["exit_code"] == DONE and values["reason"] != "done":
        return f"Ended early at step {record.step:,}: {values['reason']}."
    return None


def line(facts: dict[str, Any]) -> str:
    """The state of the training in one line: epoch, step, loss (and each head's), top-1, rate, images/s, waiting, time left."""
    total = facts.get("total_steps")
    left = _time_left(facts)
    heads = facts.get("losses") or {}
    apart = ", ".join(f"{head} {_loss(loss)}" for head, loss in heads.items()) if len(heads) > 1 else ""
    return "  ".join(
        (
            f"epoch {facts['epoch']:.2f}",
            f"step {facts['step']:,}" + (f"/{total:,}" if total else ""),
            f"loss {_loss(facts['loss'])}" + (f" ({apart})" if apart else ""),
            f"top-1 {facts['top1']:.1%}",
            f"lr {facts['lr']:.3g}",
            f"{facts['images_per_s']:.0f} images/s",
            f"waiting {facts['wait_share']:.0%}",
            *([f"left {left}"] if left else []),
        )
    )


def _loss(value: float) -> str:
    """A loss of a training that diverges has many digits, and they mean nothing."""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.2e}"


def _time_left(facts: dict[str, Any]) -> str:
    total, step = facts.get("total_steps"), facts["step"]
    if not total or not facts["images_per_s"] or not facts.get("elapsed_s"):
        return ""
    return duration(facts["elapsed_s"] / step * (total - step))


def duration(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
