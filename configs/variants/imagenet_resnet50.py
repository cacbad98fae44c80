"""The SAM family on ImageNet: ResNet-50, the methods of the published comparison.

  python -m sam_jax.data.prepare imagenet2012 --from_dir=DIR
  python -m experiments.variants --config=configs/variants/imagenet_resnet50.py \
      --workdir=runs/variants_imagenet_resnet50

The settings of GSAM are its paper's for this net; those of the other methods are the ones of CIFAR
in configs/variants/cifar10_resnet18.py. As in the first SAM paper, 128 examples share a
perturbation; methods that keep something of past steps, such as LookSAM, have one for the whole
batch of 4096. Hardware: 32 accelerators. Expected time: the methods and the longer SGD cost about
32 trainings of SGD a seed, a month at the images/s of the published SGD; an estimate and no
measurement. The published numbers stand in the report beside these runs.
"""

import ml_collections

from configs.sam_paper import imagenet_resnet
from configs.variants import cifar10_resnet18, digits

WITHOUT_MEMORY = ("SAM", "ASAM", "Fisher SAM", "GSAM", "SS-SAM", "Average SAM", "AWP", "AMP")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = imagenet_resnet.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.evaluation.test_every_epochs = 0
    if not variant:
        cifar10_resnet18.large(config)
        gsam = {"rho": 0.04, "gsam.alpha": 0.01, "gsam.rho_min": 0.02}
        change(config, m=128, gsam=gsam)
    return config


def change(config: ml_collections.ConfigDict, m: int, gsam: dict[str, float]) -> None:
    """Set what is not as on CIFAR: examples that share a perturbation, and the settings of GSAM."""
    changes: dict[str, dict[str, float]] = {label: {"m": m} for label in WITHOUT_MEMORY}
    changes["GSAM"] |= gsam
    config.methods = tuple(
        (label, name, settings | changes.get(label, {})) for label, name, settings in config.methods
    )
    config.training.steps_per_call = 50
