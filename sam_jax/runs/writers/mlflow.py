"""A run of MLflow, in the store that MLFLOW_TRACKING_URI names, or else below WORKDIR/mlflow.

That is a store of files, the one that needs no database.
"""

import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from sam_jax import extras
from sam_jax.runs import disk
from sam_jax.runs.writers import kept

extras.needs('The writer "mlflow"', "mlflow", "mlflow")

FOLDER = "mlflow"
EXPERIMENT = "sam_jax"  # where MLFLOW_EXPERIMENT_NAME names none
AT_ONCE = 100  # parameters that one call may have
# What MLflow reads, where the environment says nothing else: its newer versions refuse a store of
# files without the first, and a training does not wait for a server through its seven retries.
VARIABLES = {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


class Mlflow:
    """A run of MLflow, or the rest of the one that the folder keeps the id of."""

    def __init__(self, workdir: pathlib.Path, first_step: int, fields: Mapping[str, Any]) -> None:
        """Begin the run or go on with it; steps of before are told apart by their epochs."""
        del first_step
        for name, value in VARIABLES.items():
            os.environ.setdefault(name, value)
        import mlflow
        import mlflow.entities

        self._entities = mlflow.entities
        self._folder = workdir / FOLDER
        store = os.environ.get("MLFLOW_TRACKING_URI") or (self._folder / "store").resolve().as_uri()
        with kept.beginning("MLflow", store), disk.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._client = mlflow.MlflowClient(tracking_uri=store)
            run = self._known(mlflow.MlflowException) or self._begun(kept.run_name(workdir))
            self._run_id = run.info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            self._describe(run.data.params, {n: str(x) for n, x in fields.items()})

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of an epoch; a server that is away loses them, and is no failure."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(n, x, now, step) for n, x in numbers.items()]
        try:
            with disk.writing(self._folder):
                self._client.log_batch(self._run_id, metrics=metrics)
        except disk.NoRoom:
            raise
        except Exception as error:  # of the server, or of the way to it
            logging.warning("MLflow did not get the numbers of epoch %d: %s", step, error)

    def close(self) -> None:
        """End the run."""
        kept.end("MLflow", lambda: self._client.set_terminated(self._run_id))

    def _known(self, unknown: type[Exception]) -> Any:
        """Return the run that the folder keeps the id of, None where the store has none of it."""
        run_id = kept.run_id(self._folder)
        try:
            return run_id and self._client.get_run(run_id)
        except unknown:
            return None

    def _begun(self, run_name: str) -> Any:
        """Return a new run, whose id the folder keeps."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        found = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(found, run_name=run_name)
        kept.keep_run_id(self._folder, run.info.run_id)
        return run

    def _describe(self, before: Mapping[str, str], now: Mapping[str, str]) -> None:
        """Give the fields of the config as parameters; those that have changed since as tags."""
        new = [self._entities.Param(n, x) for n, x in now.items() if n not in before]
        for some in _parts(new, AT_ONCE):
            self._client.log_batch(self._run_id, params=some)
        for name, value in now.items():  # a parameter stays what it was
            if before.get(name, value) != value:
                self._client.set_tag(self._run_id, name, value)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


WRITER = Mlflow
