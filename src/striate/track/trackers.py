"""Which trackers there are, each in a thread of its own so that none of them can hurt the training."""

from __future__ import annotations

import importlib.util
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from striate import recipe as recipes
from striate.errors import DONE, UserError, missing_package, nearest
from striate.run.folder import Run
from striate.run.log import Record
from striate.track import mlflow, tensorboard, wandb
from striate.track.entry import Entry, Story, Write, entry

Opened = Callable[[Story], AbstractContextManager[Write]]

# Name: how it is opened, and the packages of the extra `track` that it needs.
TRACKERS: dict[str, tuple[Opened, tuple[str, ...]]] = {
    "tensorboard": (tensorboard.opened, ("tensorboard",)),
    "wandb": (wandb.opened, ("wandb",)),
    "mlflow": (mlflow.opened, ("mlflow", "sqlalchemy", "alembic")),
}

MOST_WAITING = 10_000  # entries that a tracker may be behind before it is given up
# How long the end of a sitting waits for what is not written yet: after a stop the next sitting makes up for it, and whoever
# asked for the stop may be in a hurry; after the end of the training there is no next one.
STOP_S, END_S = 10.0, 60.0
_STARTED = ("images", "val_images", "classes", "parameters", "device", "precision", "threads")


def require(names: Iterable[str]) -> None:
    """Raises UserError for a tracker that does not exist, naming the nearest, or whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--track {name}: no such tracker.{nearest(name, TRACKERS)} There are: {', '.join(TRACKERS)}.")
        for package in TRACKERS[name][1]:
            found = importlib.util.find_spec(package)
            if found is None or found.origin is None:  # no origin: a mere folder of that name, as W&B leaves one where it ran
                raise missing_package(package, "track")


class Trackers:
    """The trackers of one sitting. They are opened by the record that starts or resumes the training.

    A tracker that fails, at its start or later, or falls far behind, says so once and is then silent; the next sitting
    brings it in line with the log.
    """

    def __init__(self, run: Run, names: Sequence[str]) -> None:
        self._run = run
        self._names = tuple(dict.fromkeys(names))
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._waiting: dict[str, queue.Queue[Entry | None]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._is_done = False

    def write(self, record: Record) -> list[str]:
        """Hands on a record that is in the log already. Returns what the trackers have to say, for the log."""
        if record.kind in {"start", "resume"}:
            self._open(record)  # the log, which it reads, ends with this record
        else:
            self._put(entry(record.kind, record.step, time.time(), record.values))
        self._is_done = record.kind == "end" and record.values.get("exit_code") == DONE
        return self._heard()

    def close(self) -> list[str]:
        """Lets the trackers finish, within limits. Returns what they have to say."""
        self._put(None)
        deadline = time.monotonic() + (END_S if self._is_done else STOP_S)
        for name in self._waiting:
            self._threads[name].join(max(0.0, deadline - time.monotonic()))
            if self._threads[name].is_alive():
                self._said.put(f"{name}: is not ready with what it was given. It goes on while this process lives.")
        return self._heard()

    def _open(self, record: Record) -> None:
        if not self._names:
            return
        recipe = self._run.recipe
        config = {name: recipes.get(recipe, name) for name in recipes.field_names() if name != "model.options"}
        config |= {f"model.options.{name}": value for name, value in recipe.model.options.items()}
        config |= {f"run.{name}": record.values.get(name) for name in _STARTED}
        past = tuple(entry(line["kind"], line["step"], line.get("time") or 0.0, line) for line in self._run.log())
        for name in self._names:
            story = Story(self._run.name, self._run.path / "track" / name, config, past, self._said.put)
            self._waiting[name] = queue.Queue(MOST_WAITING)
            arguments = (name, story, self._waiting[name])
            self._threads[name] = threading.Thread(target=_follow, args=arguments, name=f"track-{name}", daemon=True)
            self._threads[name].start()

    def _put(self, given: Entry | None) -> None:
        for name in [name for name in self._waiting if self._threads[name].is_alive()]:
            try:
                self._waiting[name].put_nowait(given)
            except queue.Full:
                self._said.put(f"{name}: is {MOST_WAITING:,} records behind and is given up for this sitting.")
                del self._waiting[name]

    def _heard(self) -> list[str]:
        return [self._said.get() for _ in range(self._said.qsize())]


def _follow(name: str, story: Story, waiting: queue.Queue[Entry | None]) -> None:
    """A tracker's thread: the past first, then what comes, until None comes."""
    try:
        story.folder.mkdir(parents=True, exist_ok=True)
        with TRACKERS[name][0](story) as write:
            for old in story.past:
                write(old)
            while (new := waiting.get()) is not None:
                write(new)
    except BaseException as error:  # whatever a tracker raises, even what would end the process, ends this thread only
        reason = (str(error) or type(error).__name__).splitlines()[0]
        story.say(f"{name}: tracking failed and is off for this sitting ({reason}). The training goes on; its log has all.")
