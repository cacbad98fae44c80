"""Wrong labels on the 1,797 digits of scikit-learn: curves of ERM and SAM, and early stopping.

  python -m experiments.understanding.label_noise \
      --config=configs/understanding/label_noise/digits.py --workdir=runs/label_noise

Hardware: two CPU cores, 4 minutes. Expected (mean and standard error over three seeds): with 60 %
wrong labels a test error of 56.5 +- 1.6 % with ERM and 47.5 +- 1.4 % with SAM (rho = 0.4); at the
best epoch 17.9 +- 1.3 % and 6.7 +- 1.1 %.
"""

import ml_collections

from configs import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = ml_collections.ConfigDict()

    config.seeds = (0, 1, 2)  # each its own weights, order and wrong labels
    config.label_noise = (0.0, 0.6)  # shares of wrong labels; the paper's figure has 60 %
    config.rhos = (0.1, 0.4)  # of SAM

    # Everything that the arms share; the study sets seed, noise and method.
    config.training = digits.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.epochs = 100
    config.training.data.augmentation = ()  # so that wrong labels can be learnt by heart
    config.training.evaluation.test_every_epochs = 1
    config.training.evaluation.train_every_epochs = 1
    config.training.checkpoint.every_epochs = 0
    config.training.optimiser.weight_decay_in = "loss"  # as in the released code
    config.training.optimiser.nesterov = False
    config.training.optimiser.clip_norm = 0.0

    if variant == "smoke":
        config.seeds = (0, 1)
        config.rhos = (0.1,)
        config.training.epochs = 2
    return config.lock()
