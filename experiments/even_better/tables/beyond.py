"""Table A: quantities that the study did not measure, and these runs do."""

from experiments.even_better.read.results import PRESETS, StudyResults, settings_of
from experiments.even_better.tables.columns import law, study_table
from experiments.study.table import Column, Table, instrument_column
from sam_jax.measuring import registry

TITLE = "Asymmetry relative to the weights, and curvature"
SOUND = PRESETS[0]


def beyond_table(results: StudyResults) -> Table:
    """Return Table A; it has no columns if nothing was measured."""
    return study_table(results, "A", SOUND, beyond_columns(results), results.arms)


def beyond_columns(results: StudyResults) -> list[Column]:
    """Return the columns of the instruments that measure under the sound preset alone.

    A column names its setting where an instrument measured under several.
    """
    columns = []
    for instrument in registry.INSTRUMENTS:
        if instrument.presets != (SOUND,):
            continue
        settings = settings_of(results, instrument.name, SOUND)
        for setting in settings:
            several = setting if len(settings) > 1 else {}
            where = {"preset": SOUND, **several}
            group = ", ".join(filter(None, (instrument.title, law(several))))
            columns += [
                instrument_column(instrument.name, column.field, where, group=group)
                for column in instrument.columns
            ]
    return columns
