"""MobileNetV2 with SAM on the cropped street view house numbers.

  python -m sam_jax.data.prepare svhn_cropped
  python -m sam_jax.train --config=configs/svhn.py --workdir=runs/svhn

Hardware: one GPU or TPU; an epoch is half as long again as one of CIFAR-10. No number is published
for this net.
"""

import ml_collections

from configs import cifar10


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = cifar10.get_config(variant)
    config.data.name = "svhn_cropped"
    config.data.augmentation = ("autoaugment_svhn", "crop_reflect", "cutout")  # digits do not flip
    config.method.rho = 0.05
    return config
