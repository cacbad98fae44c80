"""MobileNetV2 with SAM on Fashion-MNIST, with the optimisation of the study.

  python -m sam_jax.data.prepare fashion_mnist
  python -m sam_jax.train --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Where there is no network, `--from_dir=/usr/share/datasets/fashion-mnist` prepares the set from the
files of the Debian package dataset-fashion-mnist. Hardware: one GPU, or a part of the set on CPUs:
--config.data.train_examples=12800 --config.epochs=6 --config.steps_per_call=10.
"""

import ml_collections

from configs import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config()
    config.epochs = 200
    config.batch_size = 128
    config.data.name = "fashion_mnist"
    config.data.augmentation = ("flip", "crop_zero", "cutout")
    config.data.pad = 4
    config.data.cutout_size = 14
    config.model.name = "mobilenet_v2"
    config.evaluation.batch_size = 1000
    config.instruments.examples = 20000
    config.instruments.batch_size = 1000
    config.instruments.adversarial.m = (128, 5000)
    config.instruments.average.m = (128, 5000)
    config.instruments.asymmetry.distance = 5.0
    config.instruments.curve.limit = 6.0
    if variant == "smoke":
        digits.smoke(config)
        config.model.width = 0.25
        config.model.stages = ((1, 16, 1, 1), (6, 24, 2, 2))
    elif variant:
        raise ValueError(f'the only variant is "smoke", got {variant!r}.')
    return config
