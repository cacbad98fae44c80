"""The command of a study: python -m experiments.NAME --config=CONFIG --workdir=DIR.

It runs the missing trainings and measurements, writes the report to DIR/report/index.html and
prints its main table. The same command goes on where a cut run stopped.
"""

import functools
import pathlib
from collections.abc import Sequence

import ml_collections
from absl import app, flags, logging

from experiments.study.arms import Plan
from experiments.study.provenance import software
from experiments.study.runs import outdated, run
from experiments.study.study import Settings, Study
from sam_jax.runs import workdirs
from sam_jax.runs.distributed import from_first, is_first
from sam_jax.runs.flags import define_config, define_distributed, run_command

flags.disclaim_key_flags()  # --help shows them as the study's own


def main(study: Study) -> None:
    """Run a study's command with the flags of the command line."""
    define_config(study.config)
    flags.DEFINE_string("workdir", None, "The folder of the study.", required=True)
    flags.DEFINE_bool(
        "accept_config_changes", False, "Go on in a folder that was made with another config."
    )
    define_distributed()
    run_command(functools.partial(_command, study))


def _command(study: Study, argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    f = flags.FLAGS
    page, summary = run_and_report(study, f.config, f.workdir, f.accept_config_changes)
    if not is_first():
        return
    print(summary)
    print(f"The report is {page.resolve()}")


def run_and_report(
    study: Study,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    accept_config_changes: bool = False,
) -> tuple[pathlib.Path, str]:
    """Run a study and write its report.

    Args:
      study: the study.
      config: its config.
      workdir: the folder of the study.
      accept_config_changes: go on in a folder that was made with another config.

    Returns:
      The path of the report's page, and the table that the command prints.
    """
    plan, workdir = study.plan(config), pathlib.Path(workdir)
    run(study, plan, workdir, accept_config_changes)

    def report() -> list[str]:
        results = study.read(workdir, plan)
        page = study.report(results, workdir / "report", _settings(study, plan, workdir))
        return [str(page), study.summary(results)]

    page, summary = from_first(report)
    return pathlib.Path(page), summary


def _settings(study: Study, plan: Plan, workdir: pathlib.Path) -> Settings:
    """Return the settings that the report shows, and the runs trained with other settings."""
    settings = study.settings(plan, workdirs.plain(plan.config)) | {"software": software()}
    differing = outdated(study, plan, workdir)
    return settings | ({"trained with other settings": differing} if differing else {})
