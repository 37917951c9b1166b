"""MLflow with its database in the run folder, read back by MLflow."""

from __future__ import annotations

import pytest

from striate.run.log import Record

from .conftest import begins, steps

for package in ("mlflow", "sqlalchemy", "alembic"):
    pytest.importorskip(package, reason="needs the extra track: pip install 'striate[track]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of theirs

END = Record("end", 12, {"reason": "done", "exit_code": 0})


def read(run):
    """A client of the run folder's database, and the only MLflow run in it."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.path / 'track' / 'mlflow' / 'mlflow.db'}")
    (one,) = client.search_runs([client.get_experiment_by_name("striate").experiment_id])
    return client, one


def history(client, one, key: str) -> list[tuple[int, float]]:
    return sorted((metric.step, round(metric.value, 6)) for metric in client.get_metric_history(one.info.run_id, key))


def test_every_number_with_its_step_and_the_recipe(run, sit):
    assert sit(["mlflow"], [begins(), *steps(1, 12), END]) == []
    client, one = read(run)
    assert history(client, one, "train/loss") == [(step, round(1 / step, 6)) for step in range(1, 13)]
    assert history(client, one, "val/EMA/top1") == [(4, 0.16), (8, 0.32), (12, 0.48)]
    assert one.data.params["optim.lr"] == "0.25" and one.data.params["model.options.stem"] == "small"
    assert one.info.run_name == "x" and one.info.status == "FINISHED"
    assert one.data.tags["striate.notes"] == "Ended at step 12: done."


def test_a_kill_and_a_resume_leave_one_run_with_each_step_once(run, sit):
    sit(["mlflow"], [begins(), *steps(1, 7), Record("end", 7, {"reason": "asked", "exit_code": 75})])
    assert read(run)[1].info.status == "SCHEDULED"
    again = [Record(one.kind, one.step, one.values | {"images_per_s": 50.0}) for one in steps(6, 12)]
    sit(["mlflow"], [begins(5), *again, END])
    client, one = read(run)
    assert history(client, one, "train/loss") == [(step, round(1 / step, 6)) for step in range(1, 13)]
    assert [step for step, _ in history(client, one, "speed/images_per_s")] == list(range(1, 13))
    assert [step for step, _ in history(client, one, "val/raw/top1")] == [4, 8, 12]


def test_what_the_recipe_accepted_since_stands_beside_the_parameter(run, sit):
    from striate.recipe import change

    sit(["mlflow"], [begins(), *steps(1, 4), Record("end", 4, {"reason": "asked", "exit_code": 75})])
    run.write(run.typed, change(run.recipe, {"budget.steps": 20}))
    assert sit(["mlflow"], [begins(4), *steps(5, 12), END]) == []
    _, one = read(run)
    assert one.data.params["budget.steps"] == "12" and one.data.tags["striate.changed.budget.steps"] == "20"


def test_a_server_that_is_gone_costs_one_warning(run, sit, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = sit(["mlflow"], [begins(), *steps(1, 12), END])
    assert len(said) == 1 and said[0].startswith("mlflow: tracking failed and is off for this sitting")


def test_tables_that_a_kill_left_half_made_are_made_anew(run, sit):
    import sqlite3

    folder = run.path / "track" / "mlflow"
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "mlflow.db") as half:
        half.execute("CREATE TABLE datasets (dataset_uuid VARCHAR(36) NOT NULL)")
    half.close()
    assert sit(["mlflow"], [begins(), *steps(1, 12), END]) == []
    client, one = read(run)
    assert [step for step, _ in history(client, one, "train/loss")] == list(range(1, 13))
