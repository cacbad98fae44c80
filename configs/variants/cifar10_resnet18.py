"""The SAM family on CIFAR-10: ResNet-18, 200 epochs, the methods of the published comparison.

  python -m sam_jax.data.prepare cifar10
  python -m experiments.variants --config=configs/variants/cifar10_resnet18.py \
      --workdir=runs/variants_cifar10_resnet18

CIFAR-100: --config.training.data.name=cifar100. Most papers double rho there.

Hardware: one GPU or TPU. Expected time: the methods and the longer SGD cost about 32 trainings of
200 epochs of SGD a seed, 320 million images forward and backward; at the 3,289 images/s of the
published SGD that is a day a seed, an estimate and no measurement.
Expected numbers: these runs have not been made here. The published comparison, which the report
shows beside them, has accuracies of 95.61 % (SGD), 96.52 % (SAM), 96.56 % (ESAM), 96.37 % (SAF).
"""

import ml_collections

from configs import cifar10
from configs.variants import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = cifar10.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.data.augmentation = ("flip", "crop_zero")
    config.training.evaluation.test_every_epochs = 0
    with config.unlocked():
        config.training.model = ml_collections.ConfigDict({"name": "resnet", "dtype": "float32"})
        if variant == "smoke":
            config.training.model.width = 4
            config.training.model.blocks = (1, 1)
    if not variant:
        large(config)
    return config


def large(config: ml_collections.ConfigDict) -> None:
    """Set what suits nets of millions of weights: the papers' own values, shorter timed calls."""
    config.seeds = (0, 1, 2)
    config.methods = (
        ("SGD", "none", {}),
        ("SAM", "sam", {"rho": 0.05}),
        ("SAM, m = 32", "sam", {"rho": 0.05, "m": 32}),
        ("ASAM", "asam", {"rho": 0.5, "eta": 0.01}),
        ("Fisher SAM", "fisher_sam", {"rho": 0.1, "fisher_sam.eta": 1.0}),
        ("Friendly SAM", "friendly_sam", {"rho": 0.2, "friendly_sam.lmbda": 0.6}),
        ("GSAM", "gsam", {"rho": 0.05, "gsam.alpha": 0.4, "gsam.rho_min": 0.0}),
        ("LookSAM-5", "looksam", {"rho": 0.05, "looksam.k": 5}),
        ("SS-SAM", "ss_sam", {"rho": 0.05, "ss_sam.probability": 0.5}),
        ("AE-SAM", "ae_sam", {"rho": 0.05}),
        # m = 0: the share of a device, on which ESAM chooses its examples.
        ("ESAM", "esam", {"rho": 0.05, "m": 0, "esam.beta": 0.6, "esam.gamma": 0.5}),
        ("SAF", "saf", {"saf.lmbda": 0.3, "saf.tau": 5.0, "saf.epochs_back": 3}),
        ("MESA", "mesa", {"mesa.lmbda": 0.8, "mesa.tau": 5.0, "mesa.decay": 0.9995}),
        ("MSAM", "momentum_sam", {"rho": 3.0}),
        ("Average SAM", "average_sam", {"rho": 0.5}),
        ("AWP", "awp", {"awp.gamma": 0.01}),
        ("AMP", "amp", {"amp.epsilon": 0.5, "amp.inner_learning_rate": 1.0}),
        ("SWA", "none", {"weight_average.name": "swa", "weight_average.start": 0.75}),
        ("EMA", "none", {"weight_average.name": "ema", "weight_average.decay": 0.999}),
    )
    config.training.steps_per_call = 78  # a fifth of an epoch of CIFAR-10: the part that is timed
