"""Weights & Biases: online where there is a login, else offline in the run folder, to be sent by `wandb sync`.

WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and their other variables count as everywhere; nothing is asked for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from striate.errors import DONE, TO_BE_CONTINUED
from striate.files import read_json, write_json
from striate.track.entry import Entry, Story, Write


@contextlib.contextmanager
def opened(story: Story) -> Iterator[Write]:
    """Goes on with the W&B run whose id is kept in the run folder, or begins one.

    Online, their server knows the last step and holds no step twice. Offline there is no server, so each sitting
    writes the whole story anew and takes the earlier folders away: one folder, one run, all steps.
    """
    import wandb

    mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    older = list(story.folder.glob("wandb/offline-run-*"))
    # The folder is named by the second: two sittings that begin within one would write into the same file.
    while any(
        time.strftime("%Y%m%d_%H%M%S", now) in folder.name for folder in older for now in (time.localtime(), time.gmtime())
    ):
        time.sleep(0.1)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "striate"),
        name=os.environ.get("WANDB_NAME", story.name),
        id=_id(story),
        resume="allow",
        reinit="create_new",  # a notebook may have a run of its own
        dir=str(story.folder),
        mode=mode,
        # Neither the terminal nor the code that lies around: an address in .git may hold a password.
        settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
    )
    exit_code, notes = DONE, []

    def write(entry: Entry) -> None:
        nonlocal exit_code
        if entry.numbers and entry.step >= run.starting_step:
            run.log(dict(entry.numbers), step=entry.step)
        if entry.note:
            notes.append(entry.note)
            run.summary["notes"] = "\n".join(notes)
        if entry.exit_code is not None:
            exit_code = entry.exit_code

    config: Any = run.config
    try:
        config.update(dict(story.config), allow_val_change=True)
        if run.offline:
            _remove(older)
            if "WANDB_MODE" not in os.environ:
                story.say(f"W&B: no login here, so this is kept in {story.folder}. `wandb sync` sends it, `wandb login` logs in.")
        yield write
    finally:
        run.finish(exit_code=DONE if exit_code == TO_BE_CONTINUED else exit_code)
        if run.offline:
            _remove(older)  # again: their process outlives a kill for a moment, and may have written since


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _id(story: Story) -> str:
    """The run's id at W&B; kept before it is used, so that no kill makes a second run."""
    path = story.folder / "run.json"
    if not path.exists():
        write_json(path, {"id": uuid.uuid4().hex[:12]})
    return str(read_json(path)["id"])
