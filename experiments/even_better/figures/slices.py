"""The losses of the models along a direction, as Figures 6 and 11 show them."""

from typing import NamedTuple

import numpy as np

from experiments.even_better.arms import Model
from experiments.even_better.figures.common import averaged, model_styles
from experiments.even_better.read.results import PRESETS, StudyResults, settings_of
from experiments.even_better.tables.columns import law
from experiments.study.results import number
from sam_jax import metrics, plotting


class Slices(NamedTuple):
    """The losses of all models along the direction of one setting."""

    preset: str
    suffix: str  # of the files of figures
    kind: str  # of the direction, in words
    drawn: list[tuple[Model, plotting.Curve]]

    @property
    def policy(self) -> str:
        """The BatchNorm statistics of the losses, as a title."""
        return plotting.titled("", [metrics.PRESETS[self.preset].curve.batch_norm])


def slices(results: StudyResults) -> list[Slices]:
    """Return the slices of every preset and direction, without those that were not measured."""
    found = []
    for preset in PRESETS:
        laws = settings_of(results, "loss_curve", preset)
        for setting in laws:
            styles = model_styles(results)
            drawn = [(m, curve(results, m, styles[m], preset, setting)) for m in results.models]
            drawn = [(model, line) for model, line in drawn if np.isfinite(line.y).any()]
            suffix = f"{preset}_{setting['distribution']}" if len(laws) > 1 else preset
            if drawn:
                found.append(Slices(preset, suffix, f"({law(setting)} direction)", drawn))
    return found


def curve(
    results: StudyResults, model: Model, style: plotting.Style, preset: str, setting: dict[str, str]
) -> plotting.Curve:
    """Return the loss curve of a model, averaged over the seeds at every distance."""
    records = results.select(arm=model.name, measure="loss_curve", preset=preset, **setting)
    points = [
        (number(distance), number(loss))
        for record in records
        for distance, loss in zip(record["distances"], record["losses"], strict=True)
    ]
    return averaged(model.label, points, style)
