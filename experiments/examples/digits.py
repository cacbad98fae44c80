"""What all examples share: scikit-learn's digits, the loss and the accuracy."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from sam_jax import pytree
from sam_jax.typing import Batch, PyTree

TEST_EXAMPLES = 360


def load() -> tuple[Batch, Batch]:
    """Return 1437 training and 360 test examples: images [n, 8, 8, 1] and labels [n]."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (images.reshape(-1, 8, 8, 1)[order] / 8 - 1).astype(np.float32)  # in [-1, 1]
    labels = labels[order].astype(np.int32)
    train = {"image": images[TEST_EXAMPLES:], "label": labels[TEST_EXAMPLES:]}
    test = {"image": images[:TEST_EXAMPLES], "label": labels[:TEST_EXAMPLES]}
    return train, test


def batches(train: Batch, epochs: int, batch_size: int = 128, seed: int = 0) -> Iterator[Batch]:
    """Yield shuffled batches of the training set; the remainder of an epoch rests."""
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(len(train["label"]))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            examples = order[start : start + batch_size]
            yield {name: array[examples] for name, array in train.items()}


def cross_entropy(logits: jax.Array, batch: Batch) -> jax.Array:
    """Return the mean loss of a batch."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return jnp.mean(losses)


def accuracy(logits: jax.Array, batch: Batch) -> float:
    """Return the fraction of a batch that the logits get right."""
    return float(jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"]))


def largest_difference(a: PyTree, b: PyTree) -> float:
    """Return the largest absolute difference between the entries of two pytrees."""
    differences = jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y), initial=0), a, b)
    return float(max(jax.tree.leaves(differences)))


def distance(a: PyTree, b: PyTree) -> float:
    """Return the norm of the difference of two pytrees over the norm of the second."""
    return float(pytree.norm(jax.tree.map(jnp.subtract, a, b)) / pytree.norm(b))


def init_mlp(key: jax.Array, hidden: int = 64) -> dict[str, dict[str, jax.Array]]:
    """Return the parameters of a network with one hidden layer, a plain pytree."""
    first, second = jax.random.split(key)
    return {
        "hidden": {
            "kernel": jax.random.normal(first, (64, hidden)) / 8,
            "bias": jnp.zeros(hidden),
        },
        "output": {
            "kernel": jax.random.normal(second, (hidden, 10)) / hidden**0.5,
            "bias": jnp.zeros(10),
        },
    }


def apply_mlp(params: dict[str, dict[str, jax.Array]], images: jax.Array) -> jax.Array:
    """Return the logits of that network, in the dtype of the parameters."""
    x = images.reshape(len(images), -1).astype(params["hidden"]["kernel"].dtype)
    x = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return x @ params["output"]["kernel"] + params["output"]["bias"][None]


def mlp_loss(params: dict[str, dict[str, jax.Array]], batch: Batch) -> jax.Array:
    """Return the mean loss of that network on a batch."""
    return cross_entropy(apply_mlp(params, batch["image"]), batch)
