"""What the study trains: no perturbation, random ones, and SAM for several m."""

from typing import NamedTuple

import ml_collections

from experiments.study.common_fields import SEEDS
from sam_jax.runs.fields import Field, positive, several, whole

FIELDS: dict[str, Field] = {
    "seeds": SEEDS,
    "m": several(whole(1), least=1, distinct=True),
    "rhos": several(positive(), least=1, distinct=True),
    "random_rhos": several(positive(), distinct=True),
}

METHODS = {"erm": "none", "random": "average_sam", "sam": "sam"}  # kind -> config.method.name


class Perturbed(NamedTuple):
    """One arm."""

    kind: str  # "erm", "random" or "sam"
    rho: float = 0.0
    m: int = 0  # examples that share a perturbation; 0 where there is none to share
    whole: bool = False  # whether m is the whole batch, here the whole training set: n-SAM

    @property
    def name(self) -> str:
        """The name of its folder.

        >>> Perturbed("sam", 0.1, 4).name, Perturbed("erm").name
        ('sam_m4_rho0.1', 'erm')
        """
        if self.kind == "erm":
            return "erm"
        m = f"_m{self.m}" if self.kind == "sam" else ""
        return f"{self.kind}{m}_rho{self.rho:g}"

    @property
    def series(self) -> str:
        """The line of the figure that it belongs to."""
        if self.kind == "sam":
            return "n-SAM" if self.whole else f"{self.m}-SAM"
        return {"erm": "ERM", "random": "random"}[self.kind]

    @property
    def label(self) -> str:
        """Its name for readers."""
        return self.series if self.kind == "erm" else f"{self.series}, ρ = {self.rho:g}"


class Plan(NamedTuple):
    """A config, parsed once."""

    config: ml_collections.ConfigDict
    arms: tuple[Perturbed, ...]  # ERM first
    seeds: tuple[int, ...]


def plan(config: ml_collections.ConfigDict) -> Plan:
    """Return the arms and seeds of a config.

    Raises:
      ValueError: m does not divide the batch, or is not listed in the sharpness that is measured.
    """
    batch, measured = config.training.batch_size, config.training.instruments.adversarial.m
    wrong = [m for m in config.m if m < 1 or batch % m]
    if wrong:
        raise ValueError(f"m must divide the batch of {batch}, got {wrong} in m = {config.m}.")
    missing = [m for m in config.m if m not in measured]
    if missing:
        raise ValueError(
            f"training.instruments.adversarial.m = {measured} lacks {missing}: the sharpness at "
            "the m of the training is one of the columns."
        )
    sam = [Perturbed("sam", rho, m, m == batch) for m in config.m for rho in config.rhos]
    random = [Perturbed("random", rho) for rho in config.random_rhos]
    return Plan(config, (Perturbed("erm"), *sam, *random), tuple(config.seeds))


def training_config(
    config: ml_collections.ConfigDict, arm: Perturbed, seed: int
) -> ml_collections.ConfigDict:
    """Return the training config of one arm and seed."""
    training = config.training.copy_and_resolve_references()
    training.seed = seed
    training.method.name = METHODS[arm.kind]
    training.method.rho = arm.rho or training.method.rho
    training.method.m = arm.m or training.batch_size
    return training
