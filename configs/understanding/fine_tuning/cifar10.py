"""The study fine_tuning on CIFAR-10 with the paper's ResNet-18 with group norm.

  python -m sam_jax.data.prepare cifar10
  python -m experiments.understanding.fine_tuning \
      --config=configs/understanding/fine_tuning/cifar10.py --workdir=runs/fine_tuning_cifar10

The paper trains for 1000 epochs before the 100 of fine-tuning: --config.training.epochs=1000.
Hardware: one GPU or TPU. Expected time: 13 hours for three seeds, at the 3,289 and 1,717
images/s of the study's Table 3 for SGD and SAM; an estimate and no measurement. Published numbers:
in the report, beside these runs.
"""

import ml_collections

from configs.understanding import resnet18
from configs.understanding.fine_tuning import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = resnet18.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.evaluation.test_every_epochs = 0
    if not variant:
        config.tuning.epochs = 100
        config.tuning.learning_rate = 0.1  # piecewise again
        config.line.points = 61  # a step of 0.05, as in the paper's notebook
    return config
