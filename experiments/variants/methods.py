"""The methods that a study compares, as training configs."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from experiments.study.changes import near_fields, set_field
from experiments.study.common_fields import SEEDS
from sam_jax.runs.fields import Field, items, one_of, several, text, whole
from sam_jax.training.methods import METHODS

_OVERRIDES = Field("a dict of fields of the training", lambda x: hasattr(x, "items"))
FIELDS: dict[str, Field] = {
    "seeds": SEEDS,
    "methods": several(items(text(), one_of(METHODS), _OVERRIDES), least=1),
    "equal_compute": several(items(text(), text(), whole(1))),
    "timing.rounds": whole(1),
    "timing.warmup_rounds": whole(0),
}


class Method(NamedTuple):
    """One row of the comparison."""

    label: str
    function: str  # config.method.name: a public function of sam_jax, or "none"
    overrides: tuple[tuple[str, Any], ...]  # fields of config.training.method or config.training
    times_epochs: int = 1  # how many times the epochs of the study

    @property
    def name(self) -> str:
        """The name of the method's folder.

        >>> Method("SGD, 2x epochs", "none", ()).name
        'sgd_2x_epochs'
        """
        return re.sub(r"[^a-z0-9.]+", "_", self.label.lower()).strip("_")

    @property
    def settings(self) -> str:
        """The settings of this method alone, as text."""
        texts = [f"{name.split('.')[-1]} = {_text(value)}" for name, value in self.overrides]
        return ", ".join(texts).replace("rho = ", "ρ = ") or "—"


class Plan(NamedTuple):
    """A config, parsed once."""

    config: ml_collections.ConfigDict
    arms: tuple[Method, ...]  # the first is what all others are compared with
    seeds: tuple[int, ...]


def plan(config: ml_collections.ConfigDict) -> Plan:
    """Return the methods and seeds of a config.

    Raises:
      ValueError: as `study_methods`.
    """
    return Plan(config, tuple(study_methods(config)), tuple(config.seeds))


def study_methods(config: ml_collections.ConfigDict) -> list[Method]:
    """Return the methods that a config lists, those with equal compute last.

    The first is what all others are compared with.

    Raises:
      ValueError: a label is given twice or is unknown, or a method has no such field.
    """
    methods = [
        Method(label, function, _pairs(overrides)) for label, function, overrides in config.methods
    ]
    by_label = {method.label: method for method in methods}
    for label, of, factor in config.equal_compute:
        if of not in by_label:
            raise ValueError(
                f"equal_compute names {of!r}, which is none of the methods: {', '.join(by_label)}."
            )
        if factor < 1:
            raise ValueError(
                f"equal_compute of {label!r}: {factor} times the epochs is less than 1."
            )
        methods.append(by_label[of]._replace(label=label, times_epochs=factor))
    names = [method.name for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two methods have the label, or the folder, {', '.join(twice)}.")
    for method in methods:
        training_config(config, method, seed=0)
    return methods


def training_config(
    config: ml_collections.ConfigDict, method: Method, seed: int
) -> ml_collections.ConfigDict:
    """Return the training config of one method and seed.

    The seed alone decides the initial weights, the order of the examples and the augmentation. All
    examples of a batch share a perturbation, on any number of devices, unless m is set.

    Raises:
      ValueError: the method has no such field.
    """
    training = config.training.copy_and_resolve_references()
    training.seed = seed
    training.instruments.seed = seed
    training.epochs = config.training.epochs * method.times_epochs
    training.method.name = method.function
    training.method.m = training.batch_size
    for name, value in method.overrides:
        _set_field(training, method.label, name, value)
    return training


def _set_field(training: ml_collections.ConfigDict, label: str, name: str, value: Any) -> None:
    if not set_field(training.method, name, value) and not set_field(training, name, value):
        raise ValueError(
            f"{label}: there is no field training.method.{name}, and no training.{name}."
            f"{near_fields(training, f'method.{name}') or near_fields(training, name)}"
        )


def _pairs(overrides: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(dict(overrides).items())


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
