"""What the report begins with: the best model and its lead, correlations, and the verdicts."""

import math
from collections.abc import Mapping, Sequence

from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.columns import TEST_LOSS
from experiments.even_better.tables.correlations import CorrelationRow, holm_p_values
from experiments.study import findings
from experiments.study.formats import describe, p_text
from experiments.study.verdicts import Tested


def sentences(
    results: StudyResults,
    correlations: Mapping[str, Sequence[CorrelationRow]],
    tested: Sequence[Tested],
) -> list[str]:
    """Return what was found, in five sentences where all was measured.

    Args:
      results: the results of the runs.
      correlations: of the measures with the test loss, by preset.
      tested: the claims on all evidence.
    """
    preset = next(iter(correlations), "sound")
    own = [each for each in tested if each.evidence.endswith(f"{preset} preset")]
    found = findings.of_arms(results, TEST_LOSS, arms=results.models, most=3)
    found += [text for text in map(_closest, correlations.values()) if text][:1]
    (verdicts,) = findings.of_claims(own, most=1)
    return [*found, f"On these runs with the {preset} preset: {verdicts[0].lower()}{verdicts[1:]}"]


def _closest(rows: Sequence[CorrelationRow]) -> str:
    """Return which measure goes most closely with the test loss."""
    known = [i for i, row in enumerate(rows) if math.isfinite(row.pearson.r)]
    if not known:
        return ""
    best = max(known, key=lambda i: abs(rows[i].pearson.r))
    row, holm = rows[best], float(holm_p_values(rows, "pearson")[best])
    setting = f" ({row.setting})" if row.setting else ""
    corrected = p_text(holm)
    corrected = f"p {corrected}" if corrected.startswith("<") else f"p = {corrected}"
    return (
        f"Of {len(known)} measures and settings {row.name[:1].lower()}{row.name[1:]}{setting} goes "
        f"most closely with the test loss over the models: {describe(row.pearson)}; corrected for "
        f"the number of measures, {corrected} (Holm)."
    )
