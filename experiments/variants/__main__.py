"""Run the study: python -m experiments.variants --config=CONFIG --workdir=DIR.

Trains every method over the seeds, measures its costs beside SGD's and writes the report to
DIR/report/index.html. The same command goes on where a cut run stopped.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.study.provenance import software
from experiments.variants.methods import study_methods
from experiments.variants.report import report, table_text
from experiments.variants.run import outdated, run
from sam_jax.training import workdirs

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/variants/digits.py", "The config file.", lock_config=True
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
    config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value)
    run(config, workdir, _ACCEPT.value)
    page = report(config, workdir, _settings(config, outdated(config, workdir)))
    print(table_text(config, workdir))
    print(f"The report is {page.resolve()}")


def _settings(config: ml_collections.ConfigDict, differing: list[str]) -> dict[str, Any]:
    """Return what the report shows of the config: what all methods share."""
    settings = workdirs.plain(config)
    settings["methods"] = [method.label for method in study_methods(config)]
    del settings["training"]["seed"], settings["training"]["method"]["name"]
    del settings["training"]["instruments"]  # nothing is measured with them here
    settings["software"] = software()
    if differing:
        settings["trained with other settings"] = differing
    return settings


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
