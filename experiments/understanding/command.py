"""The command of a small experiment: python -m experiments.understanding.NAME --workdir=DIR.

It computes the results once, writes them to DIR/results.npz and the report to
DIR/report/index.html. The same command reads results that are there and writes the report again.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import app, flags, logging

from experiments.study.provenance import (
    KEY,
    Comparison,
    Provenance,
    Records,
    changes,
    command_line,
    software,
)
from sam_jax.mistakes import checking
from sam_jax.runs import heartbeat, locks, workdirs
from sam_jax.runs.flags import define_workdir, run_command

flags.disclaim_key_flags()  # --help shows them as the experiment's own

Results = Mapping[str, np.ndarray]
SMOKE = "smoke"
REFUSAL = (
    "{workdir} holds results with other settings. Differing: {differing}. Choose another --workdir."
)


class Experiment(NamedTuple):
    """A small experiment. `main(experiment)` is its command.

    Attributes:
      settings: a NamedTuple of whole numbers; each is a flag of the command.
      smoke: the same with the numbers of `--smoke`, which runs all of it in seconds.
      compute: settings -> arrays by name.
      report: (results, settings, folder, what the page shows of settings) -> the path of the page,
        and a table as text. It writes the whole report.
      check: settings -> None; it raises a ValueError for settings that cannot be run.
    """

    settings: Any
    smoke: Any
    compute: Callable[[Any], Results]
    report: Callable[[Results, Any, pathlib.Path, Mapping[str, Any]], tuple[pathlib.Path, str]]
    check: Callable[[Any], None] = lambda settings: None


def main(experiment: Experiment) -> None:
    """Run an experiment's command with the flags of the command line."""
    define_workdir("The folder of the experiment.")
    flags.DEFINE_bool(SMOKE, False, "Run all of it in seconds; its numbers mean nothing.")
    for name, value in experiment.settings._asdict().items():
        words = f"{name.replace('_', ' ').capitalize()} (default: {value})."
        flags.DEFINE_integer(name, None, words, lower_bound=1)
    run_command(functools.partial(_command, experiment))


def _command(experiment: Experiment, argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    f = flags.FLAGS
    settings = experiment.smoke if f[SMOKE].value else experiment.settings
    given = {name: f[name].value for name in settings._fields}
    settings = settings._replace(**{n: value for n, value in given.items() if value is not None})
    page, text = run_and_report(experiment, settings, f.workdir, command_line())
    print(text)
    print(f"The report is {page.resolve()}")


def run_and_report(
    experiment: Experiment, settings: Any, workdir: pathlib.Path | str, command: str = ""
) -> tuple[pathlib.Path, str]:
    """Compute the results unless they are there, and write the report.

    Args:
      experiment: the experiment.
      settings: its settings.
      workdir: its folder.
      command: the line that ran it, for the report.

    Returns:
      The path of the report's page, and the table that the command prints.

    Raises:
      ValueError: the settings cannot be run, or the folder has the results of others.
    """
    workdir = pathlib.Path(workdir)
    with checking():
        experiment.check(settings)
    with locks.held(workdir, "experiment"):
        return _run_and_report(experiment, settings, workdir, command)


def _config(settings: Any) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(settings._asdict())


def _run_and_report(
    experiment: Experiment, settings: Any, workdir: pathlib.Path, command: str
) -> tuple[pathlib.Path, str]:
    """Do what `run_and_report` does in a folder that is locked."""
    with checking():
        workdirs.claim(workdir, _config(settings), refusal=REFUSAL)
    path = workdir / "results.npz"
    if not path.exists():
        temporary = workdir / "results.tmp.npz"
        with heartbeat.doing("computing the results"):
            np.savez(temporary, allow_pickle=False, **experiment.compute(settings))
        temporary.replace(path)
    with np.load(path) as file:
        results = dict(file)
    differing = changes(_config(experiment.settings), _config(settings))
    made_by = Provenance(
        command,
        [Comparison("the settings without flags", differing)],
        [Records("All arrays", [("results.npz", "../results.npz")])],
    )
    shown = settings._asdict() | {"software": software(), KEY: made_by}
    return experiment.report(results, settings, workdir / "report", shown)
