"""What the study trains: SGD and SAM in every setting of the paper's tables."""

from typing import NamedTuple

import ml_collections

from experiments.study.common_fields import SEEDS
from sam_jax.data.augmentation import AUGMENTATIONS
from sam_jax.runs.fields import (
    Field,
    items,
    number,
    one_of,
    optional,
    positive,
    several,
    text,
    whole,
)

FIELDS: dict[str, Field] = {
    "seeds": SEEDS,
    "rho": positive(),
    "augmentations": several(
        items(text(), optional(several(one_of(AUGMENTATIONS)))), least=1, distinct=True
    ),
    "lengths": several(whole(1), least=1, distinct=True),
    "label_noise": several(items(number(0, 1, open_low=True, open_high=True), positive())),
    "m": several(whole(1), distinct=True),
    "rhos": several(positive(), least=1, distinct=True),
    "steps": several(whole(1), distinct=True),
    "checkpoints": whole(1),
}


class Setting(NamedTuple):
    """One arm. Two tables that need the same training share it."""

    augmentation: str  # its name in config.augmentations
    times_epochs: int = 1  # how many times the epochs of the study
    label_noise: float = 0.0  # the share of wrong labels
    rho: float = 0.0  # 0: SGD
    m: int = 0  # examples that share a perturbation; 0: the batch
    steps: int = 1  # of the inner maximisation

    @property
    def name(self) -> str:
        """The name of its folder.

        >>> Setting("basic", rho=0.1, m=4).name, Setting("basic", 2, 0.4).name
        ('basic_sam_rho0.1_m4', 'basic_2x_noise0.4_sgd')
        """
        parts = [self.augmentation]
        parts += [f"{self.times_epochs}x"] if self.times_epochs > 1 else []
        parts += [f"noise{self.label_noise:g}"] if self.label_noise else []
        parts += [f"sam_rho{self.rho:g}"] if self.rho else ["sgd"]
        parts += [f"m{self.m}"] if self.m else []
        parts += [f"{self.steps}steps"] if self.steps > 1 else []
        return "_".join(parts)

    @property
    def label(self) -> str:
        """The same for readers."""
        return self.name.replace("_", " ")


class Pair(NamedTuple):
    """SGD and SAM in one setting."""

    sgd: Setting
    sam: Setting


class Plan(NamedTuple):
    """A config, parsed once: the arms of every table."""

    config: ml_collections.ConfigDict
    seeds: tuple[int, ...]
    errors: tuple[Pair, ...]  # augmentations and lengths of training
    noisy: tuple[Pair, ...]  # shares of wrong labels
    by_m: tuple[Setting, ...]  # m times rho
    by_steps: tuple[Setting, ...]
    spectra: Pair

    @property
    def arms(self) -> tuple[Setting, ...]:
        """All arms, each once."""
        pairs = (*self.errors, *self.noisy, self.spectra)
        both = [setting for pair in pairs for setting in pair]
        return tuple(dict.fromkeys([*both, *self.by_m, *self.by_steps]))


def plan(config: ml_collections.ConfigDict) -> Plan:
    """Return the arms and seeds of a config.

    Raises:
      ValueError: the config names no augmentation, or radii and shares that cannot be trained.
    """
    if not config.augmentations or not config.rhos or config.rho <= 0 or min(config.rhos) <= 0:
        raise ValueError(
            "The study needs an augmentation and positive radii, got augmentations = "
            f"{config.augmentations}, rho = {config.rho} and rhos = {config.rhos}."
        )
    if not all(0 < share < 1 and rho > 0 for share, rho in config.label_noise):
        raise ValueError(
            "label_noise lists pairs of a share between 0 and 1 and a positive rho, got "
            f"{config.label_noise}."
        )
    names = [name for name, _ in config.augmentations]
    first = names[0]
    sgd, sam = Setting(first), Setting(first, rho=config.rho)
    return Plan(
        config,
        tuple(config.seeds),
        errors=tuple(
            Pair(Setting(name, times), Setting(name, times, rho=config.rho))
            for times in config.lengths
            for name in names
        ),
        noisy=tuple(
            Pair(sgd._replace(label_noise=share), sam._replace(label_noise=share, rho=rho))
            for share, rho in config.label_noise
        ),
        by_m=tuple(sam._replace(rho=rho, m=m) for m in config.m for rho in config.rhos),
        by_steps=tuple(sam._replace(steps=steps) for steps in config.steps),
        spectra=Pair(sgd, sam),
    )


def training_config(
    config: ml_collections.ConfigDict, arm: Setting, seed: int
) -> ml_collections.ConfigDict:
    """Return the training config of one arm and seed."""
    training = config.training.copy_and_resolve_references()
    training.seed = seed
    training.epochs = config.training.epochs * arm.times_epochs
    training.data.augmentation = dict(config.augmentations)[arm.augmentation]
    training.data.label_noise = arm.label_noise
    training.data.label_noise_seed = seed
    training.method.name = "none" if not arm.rho else "sam" if arm.steps == 1 else "multi_step_sam"
    training.method.rho = arm.rho or training.method.rho
    training.method.multi_step_sam.steps = max(arm.steps, 2)
    # The same on any number of devices.
    training.method.m = arm.m or training.method.m or training.batch_size
    # The checkpoints whose Hessians are compared.
    training.checkpoint.every_epochs = -(-training.epochs // config.checkpoints)
    training.checkpoint.keep = config.checkpoints
    return training
