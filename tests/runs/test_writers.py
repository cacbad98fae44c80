"""What gets the numbers of a training besides metrics.jsonl, read back from where it lies."""

import math
import os
import sys
import threading
import time

import mlflow
import pytest
from training_problems import tiny_config

from sam_jax import extras
from sam_jax.mistakes import UserMistake
from sam_jax.runs import metrics_log, records, workdirs, writers
from sam_jax.runs.writers import kept
from sam_jax.runs.writers import mlflow as mlflow_writer
from sam_jax.training import config_fields
from sam_jax.training.train_and_evaluate import train_and_evaluate

CONFIG = {"seed": 3, "method": {"name": "sam", "rho": [0.1, 0.2]}}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing of the environment leads to a server."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in mlflow_writer.VARIABLES.items():
        monkeypatch.setenv(name, value)


def written(workdir, epochs, first=0, to=("mlflow",), config=CONFIG):
    """Write some epochs to a log."""
    log = metrics_log.MetricsLog(workdir, first, to, config)
    for epoch in epochs:
        log.write(
            {"epoch": epoch, "loss": 1 / epoch, "test_loss": math.nan}, {"speed": 2.0 * epoch}
        )
    log.close()


def mlflow_runs(store):
    """Return the client of a store and its runs."""
    client = mlflow.MlflowClient(tracking_uri=store.resolve().as_uri())
    (experiment,) = client.search_experiments(filter_string="name != 'Default'")
    return client, experiment, client.search_runs([experiment.experiment_id])


def history(client, run, name):
    found = client.get_metric_history(run.info.run_id, name)
    return sorted((metric.step, metric.value) for metric in found)


def test_mlflow_has_the_finite_numbers_and_the_config(tmp_path):
    workdir = tmp_path / "a run"
    written(workdir, (1, 2))
    client, experiment, (run,) = mlflow_runs(workdir / "mlflow" / "store")
    assert experiment.name == "sam_jax" and run.info.run_name == "a run"
    assert run.info.status == "FINISHED"
    assert history(client, run, "loss") == [(1, 1.0), (2, 0.5)]
    assert history(client, run, "speed") == [(1, 2.0), (2, 4.0)]
    assert set(run.data.metrics) == {"loss", "speed"}  # neither NaN nor the epoch
    assert run.data.params == {"seed": "3", "method.name": "sam", "method.rho": "[0.1, 0.2]"}
    assert [set(line) for line in records.read(workdir / "metrics.jsonl")] == [
        {"epoch", "loss", "test_loss"}
    ] * 2


def test_mlflow_goes_on_in_one_run(tmp_path):
    written(tmp_path, (1, 2))
    written(tmp_path, (3,), first=2, config=CONFIG | {"seed": 4, "new": 1})
    client, _, (run,) = mlflow_runs(tmp_path / "mlflow" / "store")
    assert history(client, run, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert run.data.params["seed"] == "3" and run.data.tags["seed"] == "4"
    assert run.data.params["new"] == "1" and "method.name" not in run.data.tags


@pytest.mark.parametrize("text", ["0" * 32, "../../elsewhere", "\0" * 32, ""])
def test_an_id_that_is_lost_begins_a_new_run(tmp_path, text):
    written(tmp_path, (1,))
    path = tmp_path / "mlflow" / kept.FILE
    before = path.read_text()
    path.write_text(text)
    written(tmp_path, (2,), first=1)
    _, _, runs = mlflow_runs(tmp_path / "mlflow" / "store")
    assert len(runs) == 2 and path.read_text() != before
    assert path.read_text().strip() in {run.info.run_id for run in runs}


def test_mlflow_writes_to_the_store_and_experiment_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "shared").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    written(tmp_path / "a", (1,))
    written(tmp_path / "b", (1,))
    _, experiment, runs = mlflow_runs(tmp_path / "shared")
    assert experiment.name == "mine" and {run.info.run_name for run in runs} == {"a", "b"}
    assert [path.name for path in (tmp_path / "a" / "mlflow").iterdir()] == [kept.FILE]


def test_a_server_that_is_away_is_a_warning(tmp_path, monkeypatch, caplog):
    log = metrics_log.MetricsLog(tmp_path, 0, ("mlflow",))

    def fail(*_, **__):
        raise mlflow.MlflowException("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", fail)
        log.write({"epoch": 1, "loss": 1.0})
    assert "MLflow did not get the numbers of epoch 1: no answer" in caplog.text
    log.write({"epoch": 2, "loss": 0.5})
    log.close()
    client, _, (run,) = mlflow_runs(tmp_path / "mlflow" / "store")
    assert history(client, run, "loss") == [(2, 0.5)]
    assert len(records.read(tmp_path / "metrics.jsonl")) == 2


def test_a_store_that_cannot_be_used_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserMistake, match=r"MLflow cannot begin the run \(http://127.0.0.1:1\): "):
        metrics_log.MetricsLog(tmp_path, 0, ("mlflow",))


def test_what_does_not_end_is_left(caplog):
    release = threading.Event()
    start = time.monotonic()
    kept.end("It", release.wait, seconds=0.05)
    assert time.monotonic() - start < 5 and "It is not done after 0.05 seconds" in caplog.text
    release.set()
    caplog.clear()
    kept.end("It", lambda: 1 / 0)
    assert "It could not be closed: division by zero" in caplog.text
    caplog.clear()
    kept.end("It", lambda: None)
    assert not caplog.text


def test_none_writes_the_log_alone(tmp_path):
    written(tmp_path, (1,), to=())
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "is_first", lambda: False)
    written(tmp_path, (1,), to=writers.NAMES)
    assert not {"mlflow", "wandb", "tensorboard"} & set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (("tensorbord",), "Did you mean 'tensorboard'"),
        (("wandb", "wandb"), "different items"),
    ],
)
def test_names_that_are_none_are_refused(value, words):
    config_fields.check(tiny_config(writers=("mlflow", "wandb")))
    with pytest.raises(ValueError, match=f"writers must be .*{words}"):
        config_fields.check(tiny_config(writers=value))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_names_the_extra_before_anything_is_written(tmp_path, name, monkeypatch):
    find_spec = extras.importlib.util.find_spec

    def without(package, *arguments):
        return None if package == name else find_spec(package, *arguments)

    monkeypatch.setattr(extras.importlib.util, "find_spec", without)
    monkeypatch.delitem(sys.modules, f"{writers.__name__}.{name}", raising=False)
    with pytest.raises(UserMistake, match=rf'needs {name}; run `pip install "sam_jax\[{name}\]"`'):
        train_and_evaluate(tiny_config(writers=("tensorboard", name)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_missing_packages_are_named_at_once(monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda package: None)
    for name in ("wandb", "mlflow"):
        monkeypatch.delitem(sys.modules, f"{writers.__name__}.{name}", raising=False)
    with pytest.raises(UserMistake, match=r"sam_jax\[wandb\].*sam_jax\[mlflow\]"):
        writers.check(["wandb", "mlflow"])


def test_a_run_goes_on_with_other_writers(tmp_path):
    train_and_evaluate(tiny_config(epochs=1, writers=()), tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    (tmp_path / "checkpoints").rename(tmp_path / "aside")
    (tmp_path / "metrics.jsonl").unlink()
    train_and_evaluate(tiny_config(epochs=1, writers=("tensorboard", "mlflow")), tmp_path)
    client, _, (run,) = mlflow_runs(tmp_path / "mlflow" / "store")
    (line,) = records.read(tmp_path / "metrics.jsonl")
    assert history(client, run, "batch_loss") == [(1, line["batch_loss"])]
    assert run.data.params["method.name"] == "sam" and (tmp_path / "tensorboard").exists()
    plain = workdirs.plain_as_before
    assert plain(tiny_config(writers=())) == plain(tiny_config(writers=("wandb",)))
