"""Table A, which the study does not have: asymmetry relative to the weights, and curvature."""

from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.columns import study_table
from experiments.study.table import Column, Table

TITLE = "Asymmetry relative to the weights, and curvature"


def _beyond(group: str, name: str, measure: str, quantity: str) -> Column:
    where = {"measure": measure, "preset": "sound"}
    return Column(group, name, quantity, where)


# What the study did not measure: asymmetry relative to the weights, and the Hessian.
BEYOND = (
    _beyond("Asymmetry index", "1 − mean |a|", "asymmetry_index", "index"),
    _beyond("Asymmetry index", "odd part", "asymmetry_index", "mean_absolute_odd"),
    _beyond("Asymmetry index", "even part", "asymmetry_index", "mean_even"),
    _beyond("Level sets", "min / max", "level_set_widths", "factor"),
    _beyond("Level sets", "width", "level_set_widths", "mean_width"),
    _beyond("Hessian", "top λ", "hessian", "top_eigenvalue"),
    _beyond("Hessian", "bottom λ", "hessian", "bottom_eigenvalue"),
    _beyond("Hessian", "trace", "hessian", "trace"),
)


def beyond_table(results: StudyResults) -> Table:
    """Return what the study did not measure; without columns where nothing was measured."""
    columns = [column for column in BEYOND if results.select(**column.where)]
    return study_table(results, "A", "sound", columns, results.arms)
