"""ResNet-50, 101 and 152 with SAM on ImageNet, as in the first SAM paper.

  python -m sam_jax.data.prepare imagenet2012 --from_dir=DIR
  python -m sam_jax.train --config=configs/sam_paper/imagenet_resnet.py \
      --workdir=runs/sam_paper/imagenet_resnet

A variant, as in `imagenet_resnet.py:152-400`, is DEPTH-EPOCHS: 50, 101 or 152; 100, 200 or 400.
Published top-1 errors in %, SAM (SGD):

| epochs | ResNet-50   | ResNet-101  | ResNet-152  |
|    100 | 22.5 (22.9) | 20.2 (21.2) | 19.2 (20.4) |
|    200 | 21.4 (22.3) | 19.4 (20.9) | 18.5 (20.3) |
|    400 | 20.9 (22.3) | 19.0 (22.3) | 18.4 (20.9) |

Of what the paper does not say, the released code's defaults hold: no warm-up, clipping at 5, and
weight decay of all parameters.

Hardware: 32 accelerators, each with its own perturbation on 128 examples. Expected time: 44,
69 and 101 hours for 100 epochs of ResNet-50, 101 and 152, at the 802, 518 and 351 images/s of the
study's Table 4 for SAM on one machine; an estimate and no measurement.
"""

import ml_collections

from configs import digits

# Blocks of each stage.
DEPTHS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
EPOCHS = ("100", "200", "400")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is DEPTH-EPOCHS, "smoke" or empty."""
    smoke = variant == "smoke"
    parts = ["50", "100"] if smoke or not variant else variant.split("-")
    if len(parts) != 2 or parts[0] not in DEPTHS or parts[1] not in EPOCHS:
        raise ValueError(
            f'the variants are {{{"|".join(DEPTHS)}}}-{{{"|".join(EPOCHS)}}} and "smoke", got '
            f"{variant!r}."
        )
    config = digits.get_config()
    imagenet(config)
    config.epochs = int(parts[1])
    config.batch_size = 4096
    config.model = ml_collections.ConfigDict(
        {
            "name": "imagenet_resnet",
            "blocks": DEPTHS[parts[0]],
            "dtype": "bfloat16",
            "checkpoint_blocks": False,  # True: less memory, for one more forward pass
        }
    )
    config.method.rho = 0.05
    config.method.m = 128
    config.optimiser.learning_rate = 1.0
    config.optimiser.weight_decay = 1e-4
    config.optimiser.weight_decay_in = "loss"
    config.loss.label_smoothing = 0.1
    if smoke:
        small(config)
        with config.unlocked():
            config.model.width = 8
        config.model.blocks = (1, 1)
        config.model.dtype = "float32"
    return config


def imagenet(config: ml_collections.ConfigDict) -> None:
    """Set the data of every ImageNet config: random crops of 224 pixels, mirrored, streamed."""
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.augmentation = ("flip",)
    config.evaluation.batch_size = 1024
    config.evaluation.top_k = (5,)
    config.steps_per_call = 50
    config.instruments.examples = 50_000
    config.instruments.batch_size = 1024


def small(config: ml_collections.ConfigDict) -> None:
    """Shrink an ImageNet config to seconds: few artificial images of 32 pixels."""
    digits.smoke(config)
    config.data.image_size = 32
    config.batch_size = 16
    config.method.m = 0
    config.evaluation.batch_size = 64
    config.optimiser.warmup_epochs = 0.5
