"""EfficientNet with SAM on ImageNet, with the constants of the original's code.

  python -m sam_jax.data.prepare imagenet2012 --from_dir=DIR
  python -m sam_jax.train --config=configs/imagenet_efficientnet.py --workdir=runs/efficientnet

A variant, as in `imagenet_efficientnet.py:b3`, is b0 (the default) to b7 or l2-475. Published top-1
accuracies of training without SAM with this preprocessing (google-research/sam, README), in %: b0
76.7, b1 78.7, b2 79.8, b3 81.1, b4 82.5, b5 83.1. `--config.method.name=none` trains without SAM.

Hardware: 32 accelerators for b0 to b4, more for larger nets. Expected time: 16 hours for b0 and 63
days for b7 on one machine at least, by the multiply-adds (0.4 and 39 G an image) beside those of
ResNet-50 in the study's Table 4; an estimate and no measurement.
"""

import ml_collections

from configs import digits
from configs.sam_paper import imagenet_resnet

SIDES = {
    "b0": 224,
    "b1": 240,
    "b2": 260,
    "b3": 300,
    "b4": 380,
    "b5": 456,
    "b6": 528,
    "b7": 600,
    "l2-475": 475,
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is a size of the net, "smoke" or empty."""
    variant = variant or "b0"
    smoke = variant == "smoke"
    if not smoke and variant not in SIDES:
        raise ValueError(f'the variants are {", ".join(SIDES)} and "smoke", got {variant!r}.')
    config = digits.get_config()
    imagenet_resnet.imagenet(config)
    config.epochs = 350
    config.batch_size = 4096
    config.model = model("b0" if smoke else variant, smoke)
    config.method.rho = 0.05
    config.method.m = 128
    config.optimiser.name = "rmsprop"
    config.optimiser.learning_rate = 0.256  # 0.016 for every 256 examples
    config.optimiser.schedule = "exponential"  # about 0.97 every 2.4 epochs
    config.optimiser.exponential.end = 0.012
    config.optimiser.warmup_epochs = 5.0
    config.optimiser.weight_decay = 1e-5
    config.optimiser.weight_decay_in = "loss"
    config.optimiser.weight_decay_on = "not_norms"
    config.optimiser.clip_norm = 0.0
    config.weight_average.name = "ema"
    config.weight_average.decay = 0.9999
    config.weight_average.ema_warm_up = True
    config.weight_average.ema_start_epochs = 5.0  # 1560 steps
    config.loss.label_smoothing = 0.1
    if smoke:
        imagenet_resnet.small(config)
        config.weight_average.ema_start_epochs = 0.5
    else:
        config.data.image_size = SIDES[variant]
    return config


def model(variant: str, smoke: bool) -> ml_collections.ConfigDict:
    """Return the group `model` of a size."""
    found = {"name": "efficientnet", "variant": variant, "dtype": "bfloat16"}
    found["checkpoint_blocks"] = False  # True: less memory, for one more forward pass
    stages = {"stages": ((1, 8, 1, 1, 3), (2, 8, 1, 2, 3)), "dtype": "float32"} if smoke else {}
    return ml_collections.ConfigDict(found | stages)
