"""Run the study: python -m experiments.even_better --config=CONFIG --workdir=DIR.

Trains its models, measures their minima and the planes around them, trains the curves between pairs
of them, and writes the report to DIR/report/index.html, with the study's own numbers recomputed
(published.html) and its claims tested (claims.html) beside it. The same command goes on where a cut
run stopped.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.even_better.arms import PER_MODEL
from experiments.even_better.pages.index import report, table_1_text
from experiments.even_better.run.run import outdated, run
from experiments.study.provenance import software
from sam_jax.training import workdirs

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/even_better/digits.py", "The config file.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the study.")
_ACCEPT = flags.DEFINE_bool(
    "accept_config_changes", False, "Go on in a folder that was made with another config."
)


def main(argv: Sequence[str]) -> None:
    """Run what the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    workdir = pathlib.Path(_WORKDIR.value)
    run(_CONFIG.value, workdir, _ACCEPT.value)
    settings = _settings(_CONFIG.value)
    differing = outdated(_CONFIG.value, workdir)
    if differing:
        settings["trained with other settings"] = differing
    page = report(workdir, settings, _CONFIG.value)
    print(table_1_text(workdir, _CONFIG.value))
    print(f"The report is {page.resolve()}")


def _settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return what the report shows of the config, without what the study sets for each model."""
    settings = workdirs.plain(config)
    training = settings["training"]
    for group, name in PER_MODEL:
        del (training[group] if group else training)[name]
    settings["software"] = software()
    return settings


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
