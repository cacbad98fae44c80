"""The SAM family on ImageNet: ViT-S/32, the methods of the published comparison.

  python -m sam_jax.data.prepare imagenet2012 --from_dir=DIR
  python -m experiments.variants --config=configs/variants/imagenet_vit_s32.py \
      --workdir=runs/variants_imagenet_vit_s32

The row SGD is training without SAM, here by AdamW, as with all methods. The settings of GSAM are
its paper's for this net; those of the other methods are the ones of CIFAR in
configs/variants/cifar10_resnet18.py. 64 examples share a perturbation; methods that keep something
of past steps, such as LookSAM, have one for the whole batch of 4096. Hardware: 32 accelerators.
Expected time: the methods and the longer SGD cost about 32 trainings of SGD a seed, a month at the
images/s of the published SGD; an estimate and no measurement. The published numbers stand in the
report beside these runs.
"""

import ml_collections

from configs import imagenet_vit
from configs.variants import cifar10_resnet18, digits, imagenet_resnet50


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = imagenet_vit.get_config(variant or "S/32-sam")
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.evaluation.test_every_epochs = 0
    if not variant:
        cifar10_resnet18.large(config)
        gsam = {"rho": 0.6, "gsam.alpha": 0.4, "gsam.rho_min": 0.0}
        imagenet_resnet50.change(config, m=64, gsam=gsam)
    return config
