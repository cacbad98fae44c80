"""The study label_noise on CIFAR-10 with the paper's ResNet-18 with group norm.

  python -m sam_jax.data.prepare cifar10
  python -m experiments.understanding.label_noise \
      --config=configs/understanding/label_noise/cifar10.py --workdir=runs/label_noise_cifar10

The paper's figure is of 1000 epochs: --config.training.epochs=1000.
Hardware: one GPU or TPU. Expected time: a day for three seeds, at the 3,289 and 1,717
images/s of the study's Table 3 for SGD and SAM; an estimate and no measurement. Published numbers:
in the report, beside these runs.
"""

import ml_collections

from configs.understanding import resnet18
from configs.understanding.label_noise import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = resnet18.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.evaluation.test_every_epochs = 1
    config.training.evaluation.train_every_epochs = 1
    if not variant:
        config.rhos = (0.1, 0.2)
    return config
