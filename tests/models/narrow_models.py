"""Every model in a size for tests."""

import jax

from sam_jax import models

NARROW = {
    "efficientnet": {"stages": ((1, 8, 1, 1, 3), (2, 8, 2, 2, 5)), "stochastic_depth": 0.5},
    "imagenet_resnet": {"width": 4, "blocks": (1, 1)},
    "mobilenet_v2": {"width": 0.25, "stages": ((1, 16, 1, 1), (6, 24, 1, 2))},
    "preact_resnet": {"width": 8, "blocks": (1, 1)},
    "pyramid_net": {"depth": 11, "alpha": 12},
    "resnet": {"width": 8, "blocks": (1, 1)},
    "small_conv_net": {"features": (4, 8), "strides": (1, 2)},
    "vision_transformer": {"variant": "Ti/4", "depth": 2, "stochastic_depth": 0.5},
    "wide_resnet": {"depth": 10, "width": 1},
    "wide_resnet_shake_shake": {"depth": 8, "width": 1},
}
RANDOM = ("efficientnet", "pyramid_net", "vision_transformer", "wide_resnet_shake_shake")
SHAKEN = ("pyramid_net", "wide_resnet_shake_shake")  # mix differently backwards than forwards
WITHOUT_BATCH_NORM = ("vision_transformer",)


def narrow(name, **kwargs):
    """The model called `name`, small, for three classes."""
    return models.create(name, 3, **NARROW[name] | kwargs)


def initialise(model, images):
    """Fresh variables of a model."""
    return jax.jit(model.init)(jax.random.key(0), images)


def train_mode(model, variables, images, key=0, **keywords):
    """Logits and new running statistics of a training pass."""
    return model.apply(
        variables,
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"model": jax.random.key(key)},
        **keywords,
    )


def images_of(shape, seed=0):
    """Random images."""
    return jax.random.normal(jax.random.key(seed), shape)


def moved(variables):
    """Variables of which none is zero: the trained ones are moved."""
    leaves, structure = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [w + 0.1 * jax.random.normal(k, w.shape) for k, w in zip(keys, leaves, strict=True)]
    return {**variables, "params": jax.tree.unflatten(structure, leaves)}
