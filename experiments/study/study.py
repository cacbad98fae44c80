"""A study: the parts that its command puts together."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections

from experiments.study.arms import Arm, Plan
from experiments.study.results import read_results
from sam_jax.measuring import settings
from sam_jax.runs import fields
from sam_jax.runs.fields import Fields
from sam_jax.runs.records import Record
from sam_jax.training import config_fields
from sam_jax.training.trained import Trained

Load = Callable[[], tuple[ml_collections.ConfigDict, Trained]]
Settings = dict[str, Any]


class Run(NamedTuple):
    """One trained arm of one seed."""

    arm: Arm
    seed: int
    folder: pathlib.Path
    make_training: Callable[[], ml_collections.ConfigDict]  # its training config
    outcome: Record  # of the training: losses, accuracies, epoch
    load: Load  # its config and model, loaded at the first call
    label: str  # for progress

    @property
    def training(self) -> ml_collections.ConfigDict:
        """Its training config, made anew: it takes a hundred kilobytes, and a study many runs."""
        return self.make_training()


def nothing_more(plan: Plan, workdir: pathlib.Path, runs: Sequence[Run], at_once: int) -> None:
    """Measure nothing across runs."""


def from_scratch(plan: Plan, arm: Arm) -> Arm | None:
    """Start every training from its own random weights."""
    return None


def fits_any(plan: Plan, arm: Arm, training: ml_collections.ConfigDict, run: Trained) -> None:
    """Measure nothing that depends on the data."""


def all_settings(plan: Plan, settings: Settings) -> Settings:
    """Show every setting."""
    return settings


@dataclasses.dataclass(frozen=True)
class Study:
    """A study. `main(study)` is its command.

    Attributes:
      config: the path of the config file that the command takes without `--config`.
      plan: config -> the study's plan; it raises a ValueError for a config that cannot be run.
      training_config: (config, arm, seed) -> the config that the arm is trained with.
      measure: (plan, run) -> None; it appends its records to `records.jsonl` in the run's folder,
        and repeats no measurement that is there.
      measure_across: (plan, workdir, runs, at_once) -> None, the same of several runs together, at
        the end, in at most so many threads; a run that failed is not among them.
      report: (results, folder, settings) -> the path of the page; it writes the whole report.
      summary: results -> a table that the command prints.
      read: (workdir, plan) -> results of the runs.
      starts_from: (plan, arm) -> an earlier arm, whose trained weights of the same seed it starts
        from, or None.
      fits: (plan, arm, the config of its training, its run before it is trained) -> None; it raises
        a ValueError where what is measured does not fit the data set. It is called for every arm
        before the first is trained.
      settings: (plan, the config as a dict) -> the settings that the report shows.
      fields: what each field of the config may hold but those of the group `training`; None where
        the whole config is that of a training, or where nobody says.
      compile_ahead: a thread compiles the arms that are not trained while another one trains; not
        where several train at once, each of which compiles its own.
    """

    config: str
    plan: Callable[[ml_collections.ConfigDict], Any]
    training_config: Callable[[ml_collections.ConfigDict, Any, int], ml_collections.ConfigDict]
    measure: Callable[[Any, Run], None]
    report: Callable[[Any, pathlib.Path, Settings], pathlib.Path]
    summary: Callable[[Any], str]
    read: Callable[[pathlib.Path, Any], Any] = read_results
    measure_across: Callable[[Any, pathlib.Path, Sequence[Run], int], None] = nothing_more
    starts_from: Callable[[Any, Any], Arm | None] = from_scratch
    fits: Callable[[Any, Any, ml_collections.ConfigDict, Trained], None] = fits_any
    settings: Callable[[Any, Settings], Settings] = all_settings
    fields: Fields | None = None
    compile_ahead: bool = False

    def check(self, config: ml_collections.ConfigDict) -> None:
        """Raise a ValueError that names the first field of a config with a wrong value."""
        grouped = "training" in config
        own = {name: value for name, value in config.items() if name != "training"}
        if self.fields is not None:
            fields.check(own, self.fields)
        prefix = "training." if grouped else ""
        check_training(config.training if grouped else config, prefix)


def check_training(training: ml_collections.ConfigDict, prefix: str = "") -> None:
    """Raise a ValueError that names the first field of a training's config with a wrong value.

    Args:
      training: the config; its settings of instruments are checked too.
      prefix: before the names in the error.
    """
    config_fields.check(training, prefix)
    settings.check(training.instruments, f"{prefix}instruments.")
