"""SAM on CIFAR-10 with wrong labels, as in the first SAM paper: one variant a share of them.

  python -m sam_jax.data.prepare cifar10
  python -m sam_jax.train --config=configs/sam_paper/noisy_labels.py \
      --workdir=runs/sam_paper/noisy_labels

A variant, as in `noisy_labels.py:80`, is the share of wrong labels in %: 20, 40 (the default), 60
or 80, uniform over the other labels.
Published test accuracies in % with 20, 40, 60 and 80 % wrong labels: SAM 95.1, 93.4, 90.5, 77.9;
SGD 84.8, 68.8, 48.2, 26.2. The net here is Wide ResNet 28-10 with basic augmentation; the paper
trained a ResNet-32, for 200 epochs as here.

Hardware: eight accelerators, m = 32. Expected time: 7 hours on one, at the 396
images/s of the study's Table 3 for SAM; an estimate and no measurement.
"""

import ml_collections

from configs.sam_paper import wide_resnet

SHARES = ("20", "40", "60", "80")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is a share in per cent, "smoke" or empty."""
    variant = variant or "40"
    if variant not in (*SHARES, "smoke"):
        raise ValueError(f'the variants are {", ".join(SHARES)} and "smoke", got {variant!r}.')
    smoke = variant == "smoke"
    config = wide_resnet.get_config("smoke" if smoke else "cifar10-basic-200")
    config.data.label_noise = 0.4 if smoke else int(variant) / 100
    config.method.rho = 0.05 if variant == "80" else 0.1
    return config
