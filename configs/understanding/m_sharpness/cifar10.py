"""The study m_sharpness on CIFAR-10 with the paper's ResNet-18 with group norm.

  python -m sam_jax.data.prepare cifar10
  python -m experiments.understanding.m_sharpness \
      --config=configs/understanding/m_sharpness/cifar10.py --workdir=runs/m_sharpness_cifar10

Hardware: one GPU or TPU. Expected time: 3 days for three seeds, at the 3,289 and 1,717
images/s of the study's Table 3 for SGD and SAM; an estimate and no measurement. Published numbers:
in the report, beside these runs.
"""

import ml_collections

from configs.understanding import resnet18
from configs.understanding.m_sharpness import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = resnet18.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.evaluation.test_every_epochs = 0
    if variant:
        digits.smoke(config)
    else:
        config.m = (128, 32, 8)  # divisors of the batch: 128-SAM is the paper's
        config.rhos = (0.025, 0.05, 0.1, 0.2, 0.4)
        config.random_rhos = (3.5, 7.0, 14.0)
        config.training.instruments.adversarial.m = (5000, 128, 32, 8)
        config.training.instruments.adversarial.rho = (0.1,)
    return config
