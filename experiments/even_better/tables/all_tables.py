"""Every table of the report, by its number."""

from experiments.even_better.read.results import PRESETS, StudyResults
from experiments.even_better.tables import beyond, table_01
from experiments.even_better.tables.beyond import beyond_table
from experiments.even_better.tables.perturbed import KINDS, perturbed_table
from experiments.study.table import Table

TITLES = {
    1: table_01.TITLE,
    **{number: kind.title for number, kind in KINDS.items()},
    "A": beyond.TITLE,
}


def all_tables(results: StudyResults) -> dict[int | str, list[Table]]:
    """Return the tables of every number, the sound preset before the published.

    A table that has nothing to show is left out.
    """
    tables = {1: [table_01.table_01(results)], "A": [beyond_table(results)]}
    for number in KINDS:
        tables[number] = [perturbed_table(results, number, preset) for preset in PRESETS]
    return {number: [t for t in found if t.columns] for number, found in tables.items()}
