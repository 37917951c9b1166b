"""MLflow: a database in the run folder, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from striate.errors import DONE, TO_BE_CONTINUED
from striate.files import read_json, write_json
from striate.track.entry import Entry, Story, Write

_PARAMETERS = 100  # that MLflow takes at once
_STATES = {DONE: "FINISHED", TO_BE_CONTINUED: "SCHEDULED"}


@contextlib.contextmanager
def opened(story: Story) -> Iterator[Write]:
    """Goes on with the MLflow run whose id is kept in the run folder, or begins one.

    MLflow can take no value back and would hold a step twice, so of each number only steps after its last are written.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody asked for it
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # it tells of each table that it makes
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    database = story.folder / "mlflow.db"
    if not (story.folder / "run.json").exists():
        # A kill while its tables are made leaves one that MLflow can neither use nor repair. Nothing is in it yet.
        for left in story.folder.glob("mlflow.db*"):
            left.unlink()
    local = f"sqlite:///{database.absolute()}"
    client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or local)
    run = _run(client, story)
    run_id, known = run.info.run_id, run.data.params
    last = {metric.key: metric.step for metric in run.data.to_proto().metrics}
    state, notes = "FAILED", []

    def write(entry: Entry) -> None:
        nonlocal state
        fresh = {name: value for name, value in entry.numbers.items() if entry.step > last.get(name, -1)}
        if fresh:
            milliseconds = int(entry.time_s * 1000)
            client.log_batch(run_id, [Metric(name, value, milliseconds, entry.step) for name, value in fresh.items()])
        if entry.note:
            notes.append(entry.note)
        if entry.note or entry.exit_code is not None:
            client.set_tag(run_id, "striate.notes", "\n".join(notes)[-5000:])  # MLflow's limit
        if entry.exit_code is not None:
            state = _STATES.get(entry.exit_code, "FAILED")

    try:
        client.update_run(run_id, status="RUNNING")
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in story.config.items()}
        missing = [Param(name, value) for name, value in texts.items() if name not in known]
        for first in range(0, len(missing), _PARAMETERS):
            client.log_batch(run_id, params=missing[first : first + _PARAMETERS])
        for name, value in texts.items():
            if known.get(name, value) != value:  # a parameter cannot change, so what was accepted since stands beside it
                client.set_tag(run_id, f"striate.changed.{name}", value)
        yield write
    finally:
        client.set_terminated(run_id, status=state)


def _run(client: Any, story: Story) -> Any:
    """The MLflow run of the run folder; a new one where there is none, or where the server named now does not know it."""
    from mlflow.exceptions import MlflowException

    path = story.folder / "run.json"
    if path.exists():
        try:
            return client.get_run(read_json(path)["id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "striate")
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        experiment_id = experiment.experiment_id
    elif "MLFLOW_TRACKING_URI" in os.environ:
        experiment_id = client.create_experiment(name)
    else:
        experiment_id = client.create_experiment(name, (story.folder / "artifacts").absolute().as_uri())
    run = client.create_run(experiment_id, run_name=story.name)
    write_json(path, {"id": run.info.run_id})
    return run
