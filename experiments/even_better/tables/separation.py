"""Which models the seeds separate in Table 1, and how many seeds would separate the others."""

from collections.abc import Sequence

from experiments.even_better.read.results import PRESETS, StudyResults
from experiments.study.comparison import Pair, against_first, compare_arms, seeds_of_all
from experiments.study.grid import Grid
from experiments.study.table import Table


def separation(results: StudyResults, table: Table) -> list[Pair]:
    """Return every pair of the models that are compared, in every column of Table 1."""
    return compare_arms(results, table.columns, results.models)


def separation_grids(pairs: Sequence[Pair], table: Table) -> tuple[Grid, Grid]:
    """Return the first model against each other one, and the seeds of all pairs by the test loss.

    The first grid shows the test loss, the accuracy and the first factor of every preset.
    """
    shown = [index for index, column in enumerate(table.columns) if column.name != "train"]
    presets = [table.columns[index].where.get("preset") for index in shown]
    firsts = {shown[presets.index(preset)] for preset in PRESETS if preset in presets}
    kept = [i for i, preset in zip(shown, presets, strict=True) if preset is None or i in firsts]
    caption = "The seeds that would separate two models by the test loss"
    every = seeds_of_all(pairs, table.columns[0])._replace(caption=caption)
    return against_first(pairs, table, kept), every
