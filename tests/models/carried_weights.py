"""Weights made by a rule, for a model here and a reference's elsewhere, and what to compare."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np


def numbers(name, shape):
    """Gaussian numbers that the name tells, of NumPy's stream that never changes."""
    return np.random.RandomState(zlib.crc32(name.encode())).normal(size=shape)


def carried(shapes):
    """The variables of a model, of the given shapes, in float64."""

    def make(path, leaf):
        name = "/".join(entry.key for entry in path)
        x, kind = numbers(name, leaf.shape), path[-1].key
        if kind == "kernel":
            return x * (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return np.exp(0.2 * x) if kind in ("scale", "var") else 0.2 * x

    return jax.tree_util.tree_map_with_path(make, shapes)


def images_and_labels(shape, classes):
    """Gaussian images, and a label each."""
    return numbers("images", shape), np.arange(shape[0]) % classes


def cross_entropy(logits, labels):
    """The mean cross-entropy."""
    chosen = jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
    return -jnp.mean(chosen)


def projection(gradient):
    """The gradient's inner product with fixed numbers; tells the parameters from one another."""

    def along(path, leaf):
        name = "along/" + "/".join(entry.key for entry in path)
        return jnp.sum(leaf * numbers(name, leaf.shape))

    return sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(along, gradient)))


def outcome(model, image_shape, train, **keywords):
    """Logits, and norm and projection of the gradient of the cross-entropy, in float64."""
    with jax.enable_x64(True):
        model = model.clone(dtype=jnp.dtype("float64"))
        images, labels = images_and_labels(image_shape, model.num_classes)
        variables = carried(jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(images)))

        @jax.jit
        def compute(variables, images):
            def loss(params):
                logits = model.apply(
                    {**variables, "params": params},
                    images,
                    train=train,
                    mutable=["batch_stats"],
                    rngs={"model": jax.random.key(0)},
                    **keywords,
                )[0]
                return cross_entropy(logits, labels), logits

            gradient, logits = jax.grad(loss, has_aux=True)(variables["params"])
            squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))
            return logits, jnp.sqrt(squares), projection(gradient)

        return jax.tree.map(np.asarray, compute(variables, images))
