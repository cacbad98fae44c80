"""Wide ResNet 28-10 with SAM on CIFAR, as in the first SAM paper: one variant a cell of Table 1.

  python -m sam_jax.data.prepare cifar10
  python -m sam_jax.train --config=configs/sam_paper/wide_resnet.py \
      --workdir=runs/sam_paper/wide_resnet

A variant, as in `wide_resnet.py:cifar100-cutout-1800`, is SET-AUGMENTATION-EPOCHS: cifar10 or
cifar100; basic, cutout or autoaugment; 200 or 1800. `--config.method.name=none` trains the SGD
beside it. Published test errors in %, SAM (SGD); that of SGD is the better one of this length and
of twice it:

| set       | epochs | basic       | cutout      | autoaugment |
| cifar10   |    200 | 2.7 (3.5)   | 2.3 (2.6)   | 2.1 (2.3)   |
| cifar10   |   1800 | 2.4 (3.5)   | 2.1 (2.7)   | 1.6 (2.2)   |
| cifar100  |    200 | 16.5 (18.8) | 14.9 (16.9) | 13.6 (15.8) |
| cifar100  |   1800 | 16.3 (19.1) | 14.0 (17.4) | 12.8 (16.1) |

Hardware: eight accelerators, each with its own perturbation on 32 examples (m = 32); fewer devices
keep that m. Expected time: 7 hours for 200 epochs, 63 for 1800, at the 396 images/s of the study's
Table 3 for SAM on one machine; an estimate and no measurement.
"""

import ml_collections

from configs import cifar10

AUGMENTATIONS = {
    "basic": ("flip", "crop_reflect"),
    "cutout": ("flip", "crop_reflect", "cutout"),
    "autoaugment": ("autoaugment_cifar10", "flip", "crop_reflect", "cutout"),
}
DEFAULT = "cifar10-basic-200"
RHOS = {"cifar10": 0.05, "cifar100": 0.1}
# epochs -> (learning rate, weight decay), which the paper chose for this net by a search on SGD.
CHOSEN = {"200": (0.1, 5e-4), "1800": (0.05, 1e-3)}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is SET-AUGMENTATION-EPOCHS, "smoke" or empty."""
    smoke = variant == "smoke"
    config = cifar10.get_config("smoke" if smoke else "")
    data_set, augmentation, epochs = parse(DEFAULT if smoke or not variant else variant)
    config.data.name = data_set
    config.data.augmentation = AUGMENTATIONS[augmentation]
    config.model = ml_collections.ConfigDict(
        {
            "name": "wide_resnet",
            "depth": 10 if smoke else 28,
            "width": 1 if smoke else 10,
            "shortcut": "padding",  # as in google-research/sam
            "dtype": "float32",
        }
    )
    config.method.rho = RHOS[data_set]
    config.optimiser.learning_rate, config.optimiser.weight_decay = CHOSEN[epochs]
    config.optimiser.weight_decay_in = "loss"  # half the squared norm, in both passes
    if not smoke:
        config.epochs = int(epochs)
        config.batch_size = 256
        config.method.m = 32
    return config


def parse(variant: str) -> tuple[str, str, str]:
    """Return the parts of a variant.

    Raises:
      ValueError: it is none of them.
    """
    parts = variant.split("-")
    known = tuple(RHOS), tuple(AUGMENTATIONS), tuple(CHOSEN)
    if len(parts) != 3 or any(p not in names for p, names in zip(parts, known, strict=True)):
        choices = "-".join("{" + "|".join(names) + "}" for names in known)
        raise ValueError(f'the variants are "smoke" and {choices}, got {variant!r}.')
    return parts[0], parts[1], parts[2]
