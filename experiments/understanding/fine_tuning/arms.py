"""What the study trains: ERM, SAM, and each of them from a trained model of either kind."""

from typing import NamedTuple

import ml_collections

from experiments.study.common_fields import BATCH_NORM, SEEDS
from sam_jax.runs.fields import Field, number, positive, under, whole

FIELDS: dict[str, Field] = {
    "seeds": SEEDS,
    "rho": positive(),
    "tuning.epochs": whole(1),
    "tuning.learning_rate": number(0),
    "line.low": number(),
    "line.high": number(),
    "line.points": whole(2),
    **under("line.", BATCH_NORM),
}


class Tuned(NamedTuple):
    """One arm."""

    method: str  # "erm" or "sam"
    start: str = ""  # "erm" or "sam": the trained model that it starts from; empty: none

    @property
    def name(self) -> str:
        """The name of its folder.

        >>> Tuned("sam", "erm").name, Tuned("erm").name
        ('erm_to_sam', 'erm')
        """
        return f"{self.start}_to_{self.method}" if self.start else self.method

    @property
    def label(self) -> str:
        """Its name for readers."""
        return f"{self.start.upper()} → {self.method.upper()}" if self.start else self.name.upper()


class Plan(NamedTuple):
    """A config, parsed once."""

    config: ml_collections.ConfigDict
    seeds: tuple[int, ...]
    arms: tuple[Tuned, ...] = (
        Tuned("erm"),
        Tuned("sam"),
        Tuned("erm", "erm"),  # the further epochs alone
        Tuned("sam", "erm"),
        Tuned("sam", "sam"),
        Tuned("erm", "sam"),
    )


def plan(config: ml_collections.ConfigDict) -> Plan:
    """Return the arms and seeds of a config.

    Raises:
      ValueError: a number of epochs, the radius or the line cannot be used.
    """
    if config.tuning.epochs < 1 or config.rho <= 0 or config.line.points < 2:
        raise ValueError(
            "tuning.epochs must be at least 1, rho positive and line.points at least 2, got "
            f"{config.tuning.epochs}, {config.rho} and {config.line.points}."
        )
    if config.line.low >= config.line.high:
        raise ValueError(
            f"line.low must be below line.high, got {config.line.low} and {config.line.high}."
        )
    return Plan(config, tuple(config.seeds))


def starts_from(plan: Plan, arm: Tuned) -> Tuned | None:
    """Return the arm whose trained weights an arm starts from."""
    return Tuned(arm.start) if arm.start else None


def training_config(
    config: ml_collections.ConfigDict, arm: Tuned, seed: int
) -> ml_collections.ConfigDict:
    """Return the training config of one arm and seed."""
    training = config.training.copy_and_resolve_references()
    training.seed = seed
    if arm.start:
        training.epochs = config.tuning.epochs
        training.optimiser.learning_rate = config.tuning.learning_rate
    training.method.name = "sam" if arm.method == "sam" else "none"
    training.method.rho = config.rho
    training.method.m = training.method.m or training.batch_size
    return training
