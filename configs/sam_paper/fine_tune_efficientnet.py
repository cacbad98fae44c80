"""EfficientNet fine-tuned with SAM, as in the first SAM paper.

  python -m sam_jax.data.prepare cifar10
  python -m sam_jax.train --config=configs/sam_paper/fine_tune_efficientnet.py \
      --workdir=runs/sam_paper/efficientnet_cifar10 --config.fine_tune.workdir=PRETRAINED

A variant, as in `fine_tune_efficientnet.py:l2-475`, is b0 to b7 (the default) or l2-475. PRETRAINED
is the folder of a run of configs/imagenet_efficientnet.py on ImageNet; its classifier is replaced,
and fine_tune.json lists what was not restored. The released command fine-tunes L2 with a learning
rate of 0.1, a batch of 512, 10 epochs, clipping at 1, label smoothing 0.1 and rho = 0.1.

The paper's fine-tuned nets were trained on further images that are not public, so that its errors
cannot be expected from such a PRETRAINED. Hardware: 64 accelerators for l2-475, one for b0.
Expected time: not measured here.
"""

import ml_collections

from configs import cifar10, imagenet_efficientnet

SIDES = imagenet_efficientnet.SIDES


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is a size of the net, "smoke" or empty."""
    variant = variant or "b7"
    smoke = variant == "smoke"
    if not smoke and variant not in SIDES:
        raise ValueError(f'the variants are {", ".join(SIDES)} and "smoke", got {variant!r}.')
    config = cifar10.get_config("smoke" if smoke else "")
    config.model = imagenet_efficientnet.model("b0" if smoke else variant, smoke)
    config.data.augmentation = ("flip",)
    config.method.rho = 0.1
    config.optimiser.learning_rate = 0.1
    config.optimiser.clip_norm = 1.0
    config.optimiser.weight_decay = 1e-5
    config.optimiser.weight_decay_in = "loss"
    config.optimiser.weight_decay_on = "not_norms"
    config.loss.label_smoothing = 0.1
    if not smoke:
        config.data.image_size = SIDES[variant]
        config.epochs = 10
        config.batch_size = 512
    return config
