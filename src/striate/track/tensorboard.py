"""TensorBoard: event files in the run folder, read by `tensorboard --logdir runs`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from striate.track.entry import Entry, Story, Write

FLUSH_S = 10  # how long a number may wait before TensorBoard can see it


@contextlib.contextmanager
def opened(story: Story) -> Iterator[Write]:
    """Writes an event file with the whole story, which says that those of earlier sittings count no more.

    So there is no gap and no step twice after a kill, whatever the kill left unwritten.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import FileWriter
    from torch.utils.tensorboard.summary import hparams, text

    older = sorted(story.folder.glob("events.out.tfevents.*"))
    writer = FileWriter(str(story.folder), flush_secs=FLUSH_S)

    def write(entry: Entry) -> None:
        if entry.numbers:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in entry.numbers.items()]
            writer.add_summary(Summary(value=values), entry.step, entry.time_s)
        if entry.note:
            writer.add_summary(text("notes", entry.note), entry.step, entry.time_s)  # type: ignore[no-untyped-call]
        if entry.exit_code is not None:
            writer.flush()

    try:
        for path in older[:-1]:  # a TensorBoard that is open now stops at a file that vanishes while it reads it: the last
            path.unlink()
        if older:
            writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), 0)
        rows = "".join(f"| {name} | `{json.dumps(value)}` |\n" for name, value in story.config.items())
        table = f"| field | value |\n|---|---|\n{rows}"
        writer.add_summary(text("recipe", table), 0)  # type: ignore[no-untyped-call]
        plain = {name: value for name, value in story.config.items() if isinstance(value, (bool, int, float, str))}
        for summary in hparams(plain, {"val/raw/top1": 0.0}):  # type: ignore[no-untyped-call]
            writer.add_summary(summary, 0)
        yield write
    finally:
        writer.close()
