"""A run of Weights & Biases, in files below WORKDIR/wandb unless the environment names an account.

`wandb sync WORKDIR/wandb/offline-run-*` uploads them later.
"""

import os
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

from sam_jax import extras
from sam_jax.runs import disk
from sam_jax.runs.writers import kept

extras.needs('The writer "wandb"', "wandb", "wandb")

FOLDER = "wandb"
PROJECT = "sam_jax"  # where WANDB_PROJECT names none


class Wandb:
    """A run of Weights & Biases, or another part of the one that the folder keeps the id of."""

    def __init__(self, workdir: pathlib.Path, first_step: int, fields: Mapping[str, Any]) -> None:
        """Begin the run or go on with it; steps of before are told apart by their epochs."""
        del first_step
        offline = "WANDB_MODE" not in os.environ and "WANDB_API_KEY" not in os.environ
        if offline:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at the import
        import wandb

        folder = workdir / FOLDER
        run_id = kept.run_id(folder)
        if run_id is None:
            run_id = secrets.token_hex(4)
            kept.keep_run_id(folder, run_id)
        mode = os.environ.get("WANDB_MODE", "offline" if offline else "online")
        with kept.beginning("Weights & Biases", f"mode {mode}"), disk.writing(folder):
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                dir=str(workdir),
                id=run_id,
                name=kept.run_name(workdir),
                config=dict(fields),
                allow_val_change=True,  # what may change when a run goes on
                mode="offline" if offline else None,
                resume=None if offline else "allow",
                reinit="create_new",  # leaves other runs of this process as they are
                settings=wandb.Settings(
                    console="off",
                    disable_git=True,
                    disable_job_creation=True,
                    save_code=False,
                    silent=True,
                    symlink=False,
                    x_disable_machine_info=True,
                    x_disable_stats=True,
                    x_save_requirements=False,
                ),
            )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of an epoch."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """End the run; what is left of an upload goes on until the process ends."""
        kept.end("Weights & Biases", lambda: self._run.finish(exit_code=0))


WRITER = Wandb
