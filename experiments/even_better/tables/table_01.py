"""Table 1: losses, accuracy and asymmetry factors of all models."""

from experiments.even_better.read.results import PRESETS, StudyResults
from experiments.even_better.tables.columns import TEST_LOSS, TRAIN_LOSS, columns_of, study_table
from experiments.study.table import Table, instrument_column

TITLE = "Losses, accuracy and asymmetry factor Ω"
ACCURACY = instrument_column(
    "evaluation", "test_accuracy", group="Accuracy", name="test / %", scale=100.0
)


def table_01(results: StudyResults) -> Table:
    """Return losses, accuracy (per cent) and asymmetry factors, the sound preset's first."""
    columns = [TEST_LOSS, TRAIN_LOSS, ACCURACY]
    for preset in PRESETS:
        columns += columns_of(results, "asymmetry_factor", preset, "factor")
    return study_table(results, 1, None, columns, results.arms)
