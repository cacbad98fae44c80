"""The m of SAM on the 1,797 digits of scikit-learn: the paper's Figure 1 in the small.

  python -m experiments.understanding.m_sharpness \
      --config=configs/understanding/m_sharpness/digits.py --workdir=runs/m_sharpness

Every step sees all 240 training examples, so that n-SAM is exact and m is all that differs.
Hardware: two CPU cores, 4.5 minutes. Expected (mean and standard error over three seeds): test
error 10.7 +- 0.9 % with ERM, 12.0 +- 1.2 % with n-SAM and 10.4 +- 0.9 % with 12-SAM (rho = 0.1).
"""

import ml_collections

from configs import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = ml_collections.ConfigDict()

    config.seeds = (0, 1, 2)  # each its own weights and augmentation
    config.m = (240, 60, 12)  # of SAM; divisors of the batch, 240 is the whole training set
    config.rhos = (0.02, 0.05, 0.1)  # of SAM; from 0.2 on the loss does not fall
    config.random_rhos = (0.2, 0.8)  # lengths of random perturbations

    # Everything that the arms share; the study sets seed and method.
    config.training = digits.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.epochs = 200  # of one step each
    config.training.batch_size = 240
    config.training.data.train_examples = 240
    config.training.data.augmentation = ()
    config.training.evaluation.test_every_epochs = 0
    config.training.checkpoint.every_epochs = 0
    config.training.optimiser.weight_decay_in = "loss"  # as in the released code
    config.training.optimiser.nesterov = False
    config.training.optimiser.clip_norm = 0.0
    config.training.instruments.adversarial.m = (240, 60, 12)
    config.training.instruments.adversarial.rho = (0.1,)
    with config.unlocked():  # group norm treats every example by itself, whatever m is
        config.training.model = ml_collections.ConfigDict(
            {"name": "resnet", "dtype": "float32", "norm": "group", "width": 8, "blocks": (1, 1)}
        )

    if variant == "smoke":
        smoke(config)
    return config.lock()


def smoke(config: ml_collections.ConfigDict) -> None:
    """Shrink the study to seconds: two seeds, two m, one radius, two epochs."""
    config.seeds = (0, 1)
    config.m = (32, 8)
    config.rhos = (0.1,)
    config.random_rhos = (0.2,)
    config.training.epochs = 2
    config.training.batch_size = 32
    config.training.data.train_examples = 0
    config.training.instruments.adversarial.m = (32, 8)
