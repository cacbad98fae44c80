"""What a study left in its folder, of the models, seeds and pairs of its config."""

import itertools
import pathlib

import ml_collections

from experiments.even_better.arms import study_models, study_pairs
from experiments.even_better.read.connections import Connection, read_connections
from experiments.even_better.read.results import Results, read_results


def read_study(
    workdir: pathlib.Path | str, config: ml_collections.ConfigDict | None = None
) -> tuple[Results, list[list[Connection]]]:
    """Return the results of the models, and the connections of every pair.

    Args:
      workdir: the folder of the study.
      config: of the study; runs that it does not list, which an earlier config may have left, are
        not read. None reads all.

    Raises:
      ValueError: there is no record at all.
    """
    if config is None:
        return read_results(workdir), read_connections(workdir)
    names = [model.name for model in study_models(config)]
    results = read_results(workdir, set(itertools.product(names, config.seeds)))
    return results, read_connections(workdir, study_pairs(config), config.seeds)
