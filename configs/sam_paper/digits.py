"""The tables of the first SAM paper on the 1,797 digits of scikit-learn.

python -m experiments.sam_paper --config=configs/sam_paper/digits.py --workdir=runs/sam_paper
Hardware: two CPU cores, 4 minutes. Expected (mean and standard error over three seeds): test error
2.24 +- 0.32 % with SGD, 1.59 +- 0.41 % with SAM; with 40 % wrong labels 14.7 +- 1.9 % and
12.1 +- 1.7 %. README.md of experiments/sam_paper has all.
"""

import ml_collections

from configs import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = ml_collections.ConfigDict()

    config.seeds = (0, 1, 2)  # each its own weights, order, augmentation and wrong labels
    config.rho = 0.1  # of SAM where a table is about something else
    # (name, data.augmentation): the rows of Table 1. The first is used in all other tables.
    config.augmentations = (("basic", ("crop_zero",)), ("cutout", ("crop_zero", "cutout")))
    config.lengths = (1, 3)  # times training.epochs; the paper's are 200 and 1800
    config.label_noise = ((0.2, 0.1), (0.4, 0.1), (0.6, 0.1), (0.8, 0.1))  # (wrong share, rho)
    # Every m with every rho of the next line. Batch norm sees m examples at once: 2 are too few.
    config.m = (8, 16, 32)
    config.rhos = (0.05, 0.1, 0.2)
    config.steps = (1, 2, 3, 5)  # of the inner maximisation
    config.checkpoints = 3  # evenly spaced: where the Hessians are measured

    # Everything that the arms share; the study sets seed, epochs, augmentation, noise and method.
    config.training = digits.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.epochs = 40
    config.training.data.train_examples = 300  # with all 1,437 hardly an error is left
    config.training.data.cutout_size = 3
    config.training.evaluation.test_every_epochs = 0
    config.training.optimiser.weight_decay_in = "loss"  # as in google-research/sam

    if variant == "smoke":
        smoke(config)
    return config.lock()


def smoke(config: ml_collections.ConfigDict) -> None:
    """Shrink the study to seconds: one seed, few arms, two epochs."""
    config.seeds = (0, 1)
    config.augmentations = config.augmentations[:1]
    config.lengths = (1,)
    config.label_noise = ((0.4, 0.1),)
    config.m = (8,)
    config.rhos = (0.1,)
    config.steps = (1, 2)
    config.checkpoints = 2
    config.training.epochs = 2
    config.training.data.train_examples = 0
