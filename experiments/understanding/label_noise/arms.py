"""What the study trains: ERM and SAM on right and on partly wrong labels."""

from typing import NamedTuple

import ml_collections

from experiments.study.common_fields import SEEDS
from sam_jax.runs.fields import Field, number, positive, several

FIELDS: dict[str, Field] = {
    "seeds": SEEDS,
    "label_noise": several(number(0, 1), least=1, distinct=True),
    "rhos": several(positive(), least=1, distinct=True),
}


class Noisy(NamedTuple):
    """One arm."""

    label_noise: float  # the share of wrong labels
    rho: float = 0.0  # 0: ERM

    @property
    def name(self) -> str:
        """The name of its folder.

        >>> Noisy(0.6, 0.1).name, Noisy(0.0).name
        ('noise0.6_sam_rho0.1', 'noise0_erm')
        """
        return f"noise{self.label_noise:g}_" + (f"sam_rho{self.rho:g}" if self.rho else "erm")

    @property
    def method(self) -> str:
        """Its method for readers."""
        return f"SAM, ρ = {self.rho:g}" if self.rho else "ERM"

    @property
    def label(self) -> str:
        """Its name for readers."""
        return f"{self.method}, {self.label_noise:.0%} wrong labels"


class Plan(NamedTuple):
    """A config, parsed once."""

    config: ml_collections.ConfigDict
    arms: tuple[Noisy, ...]
    seeds: tuple[int, ...]


def plan(config: ml_collections.ConfigDict) -> Plan:
    """Return the arms and seeds of a config.

    Raises:
      ValueError: a radius is not positive, or the two sets are not evaluated at every epoch.
    """
    if not config.rhos or min(config.rhos) <= 0:
        raise ValueError(f"rhos must be positive, got {config.rhos}.")
    evaluation = config.training.evaluation
    if evaluation.test_every_epochs != 1 or evaluation.train_every_epochs != 1:
        raise ValueError(
            "The curves need both sets at every epoch: training.evaluation.test_every_epochs = 1 "
            f"and train_every_epochs = 1, got {evaluation.test_every_epochs} and "
            f"{evaluation.train_every_epochs}."
        )
    arms = tuple(Noisy(share, rho) for share in config.label_noise for rho in (0.0, *config.rhos))
    return Plan(config, arms, tuple(config.seeds))


def training_config(
    config: ml_collections.ConfigDict, arm: Noisy, seed: int
) -> ml_collections.ConfigDict:
    """Return the training config of one arm and seed; all arms of a seed have the same noise."""
    training = config.training.copy_and_resolve_references()
    training.seed = training.data.label_noise_seed = seed
    training.data.label_noise = arm.label_noise
    training.method.name = "sam" if arm.rho else "none"
    training.method.rho = arm.rho or training.method.rho
    training.method.m = training.method.m or training.batch_size
    return training
