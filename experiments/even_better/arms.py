"""The models of the study: which optimiser, which batch and which rho, as training configs."""

from collections.abc import Sequence
from typing import NamedTuple

import ml_collections

from experiments.study.common_fields import BATCH_NORM, SEEDS
from sam_jax import metrics
from sam_jax.metrics.paths.curves import KINDS
from sam_jax.runs.fields import (
    Field,
    items,
    number,
    odd,
    one_of,
    positive,
    several,
    under,
    whole,
)

OPTIMISERS = {"sgd": "SGD", "sam": "SAM", "average_sam": "average SAM"}  # in the order of Table 1
BATCHES = ("small", "large")
# The fields of the training config that differ between the models: (group, name).
PER_MODEL = (
    *(("", "seed"), ("", "batch_size"), ("", "epochs"), ("instruments", "seed")),
    *(("method", "name"), ("method", "rho"), ("method", "m")),
)
METHODS = {"sgd": "none", "sam": "sam", "average_sam": "average_sam"}
_ENTRY = items(one_of(METHODS), one_of(BATCHES), number(0), whole(1))
FIELDS: dict[str, Field] = {
    "seeds": SEEDS,
    "small_batch": whole(1),
    "large_batch": whole(1),
    "models": several(_ENTRY, least=1),
    "presets": several(one_of(metrics.PRESETS), least=1, distinct=True),
    "plane.limit": positive(),
    "plane.points": odd(3),
    **under("plane.", BATCH_NORM),
    "curve.pairs": several(items(_ENTRY, _ENTRY)),
    "curve.kind": one_of(KINDS),
    "curve.bends": whole(1, 1),  # a plane is measured through the two models and one bend
    "curve.epochs": whole(1),
    "curve.learning_rate": number(0),
    "curve.weight_decay": number(0),
    "curve.points": whole(2),
    "curve.batch_norm_batch_size": whole(1),
    "curve.plane_points": whole(2),
}


class Model(NamedTuple):
    """One trained configuration, whatever the seed."""

    name: str
    optimiser: str
    batch: str
    batch_size: int
    rho: float
    times_epochs: int  # trained for so many times the epochs of the config

    @property
    def label(self) -> str:
        """The study's way of naming a model, such as "128-SAM ρ=0.1"."""
        return model_label(self.optimiser, self.batch_size, self.rho) + longer(self.times_epochs)


class Plan(NamedTuple):
    """A config, parsed once."""

    config: ml_collections.ConfigDict
    arms: tuple[Model, ...]
    seeds: tuple[int, ...]
    pairs: tuple[tuple[Model, Model], ...]  # that curves connect


def plan(config: ml_collections.ConfigDict) -> Plan:
    """Return the models, seeds and pairs of a config.

    Raises:
      ValueError: as `study_models` and `study_pairs`, or a plane has no point at its model.
    """
    if config.plane.points < 3 or config.plane.points % 2 == 0:
        raise ValueError(
            f"plane.points must be odd and at least 3, so that the model is one of them; got "
            f"{config.plane.points}."
        )
    arms = study_models(config)
    return Plan(config, tuple(arms), tuple(config.seeds), tuple(study_pairs(config, arms)))


def model_label(optimiser: str, batch_size: int, rho: float) -> str:
    """Return the study's name of a model.

    >>> model_label("sam", 128, 0.1), model_label("sgd", 128, 0.0)
    ('128-SAM ρ=0.1', '128-SGD')
    """
    short = {"sgd": "SGD", "sam": "SAM", "average_sam": "avg-SAM"}[optimiser]
    return f"{batch_size}-{short}" + ("" if optimiser == "sgd" else f" ρ={rho:g}")


def longer(times_epochs: int) -> str:
    """Return the part of a model's label that names its epochs.

    >>> longer(1), longer(2)
    ('', ', 2× epochs')
    """
    return "" if times_epochs == 1 else f", {times_epochs}× epochs"


def study_models(config: ml_collections.ConfigDict) -> list[Model]:
    """Return the models that a study config lists.

    Raises:
      ValueError: an optimiser or batch is unknown, two models are the same, or the two batches are.
    """
    if config.small_batch == config.large_batch:
        raise ValueError(f"small_batch and large_batch are both {config.small_batch}.")
    batch_sizes = {"small": config.small_batch, "large": config.large_batch}
    models = []
    for entry in config.models:
        optimiser, batch, rho, times_epochs = entry if len(entry) == 4 else ("", "", 0.0, 0)
        if optimiser not in METHODS or batch not in batch_sizes or times_epochs < 1:
            raise ValueError(
                f"models holds {tuple(entry)}; each is (optimiser, batch, rho, times the epochs) "
                f"with an optimiser of {sorted(METHODS)} and a batch of {sorted(batch_sizes)}."
            )
        name = f"{optimiser}_{batch_sizes[batch]}" + ("" if optimiser == "sgd" else f"_rho{rho:g}")
        name += "" if times_epochs == 1 else f"_{times_epochs}x_epochs"
        models.append(
            Model(name, optimiser, batch, batch_sizes[batch], float(rho), int(times_epochs))
        )
    if len(set(models)) < len(models):
        raise ValueError("models names the same model twice.")
    return models


def training_config(
    config: ml_collections.ConfigDict, model: Model, seed: int
) -> ml_collections.ConfigDict:
    """Return the training config of one model and seed.

    The sub-batch of SAM is the whole batch, on any number of devices: the study varies m. BatchNorm
    normalises over the share of one device, so that only one device repeats the study. Every model
    is measured with the m of both batches.
    """
    training = config.training.copy_and_resolve_references()
    training.seed = seed
    training.batch_size = model.batch_size
    training.epochs = model.times_epochs * training.epochs
    training.method.name = METHODS[model.optimiser]
    training.method.rho = model.rho
    training.method.m = model.batch_size
    # All models of a seed see the same noise, directions and examples; another seed sees others, so
    # that the standard error over seeds holds the noise of measuring too.
    training.instruments.seed = seed
    both = (config.small_batch, config.large_batch)
    training.instruments.adversarial.m = training.instruments.average.m = both
    return training


def study_pairs(
    config: ml_collections.ConfigDict, arms: Sequence[Model]
) -> list[tuple[Model, Model]]:
    """Return the pairs of models that a study config connects, of those that it lists.

    Raises:
      ValueError: a model of a pair is not among the models of the study, or pairs with itself; or
        a curve has more than one bend.
    """
    if config.curve.bends != 1:
        raise ValueError(
            f"curve.bends must be 1, got {config.curve.bends}: a plane is measured through the two "
            "models and one bend, and others would lie off it."
        )
    models = {
        (model.optimiser, model.batch, model.rho, model.times_epochs): model for model in arms
    }
    pairs = []
    for entries in config.curve.pairs:
        found = [models.get(tuple(entry)) for entry in entries]
        if len(found) != 2 or None in found or found[0] == found[1]:
            raise ValueError(
                f"curve.pairs holds {tuple(map(tuple, entries))}; each is a pair of two different "
                f"entries of models, which are {sorted(models)}."
            )
        pairs.append((found[0], found[1]))
    return pairs
