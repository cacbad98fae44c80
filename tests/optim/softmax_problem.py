"""A softmax classifier in JAX, and its gradient and the steps of SGD by hand in NumPy.

For the methods that choose among the examples or add a term to the loss.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest

from sam_jax import optim

EXAMPLES, BATCH, INPUTS, CLASSES = 12, 6, 3, 4
STEPS, RATE = 8, 0.5  # four epochs
NAMES = ["bias", "kernel"]


def make_data(dtype=jnp.float32):
    """Return (params, images [12, 3], labels [12], the examples of every step [8, 6])."""
    random = np.random.default_rng(0)
    params = {
        "bias": jnp.asarray(random.normal(size=CLASSES), dtype),
        "kernel": jnp.asarray(random.normal(size=(INPUTS, CLASSES)), dtype),
    }
    images = jnp.asarray(random.normal(size=(EXAMPLES, INPUTS)), dtype)
    labels = jnp.asarray(random.integers(0, CLASSES, EXAMPLES))
    epochs = STEPS * BATCH // EXAMPLES
    order = np.concatenate([random.permutation(EXAMPLES) for _ in range(epochs)])
    return params, images, labels, order.reshape(STEPS, BATCH)


def logits_fn(params, batch):
    return problems.dense(params, batch[0])


def losses_fn(params, batch):
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        logits_fn(params, batch), batch[1]
    )


def loss_fn(params, batch, term=None):
    mean = jnp.mean(losses_fn(params, batch))
    return mean if term is None else mean + term(logits_fn(params, batch))


grad_fn = jax.grad(loss_fn)


def extra_args(batch, indices=None):
    """Return what `update` gets beside the gradient, for all three methods."""
    return {
        "grad_fn": lambda w, b=batch, **k: grad_fn(w, b, **k),
        "losses_fn": losses_fn,
        "logits_fn": lambda w, b=batch: logits_fn(w, b),
        "batch": batch,
        "indices": indices,
    }


def jax_trajectory(transformation, data):
    params, images, labels, order = data
    tx = optax.chain(transformation, optax.sgd(RATE))

    @jax.jit
    def step(params, state, indices):
        batch = images[indices], labels[indices]
        clean = grad_fn(params, batch)
        updates, state = tx.update(clean, state, params, **extra_args(batch, indices))
        return optax.apply_updates(params, updates), state

    state, trajectory = tx.init(params), []
    for indices in order:
        params, state = step(params, state, jnp.asarray(indices))
        trajectory.append(numpy_tree(params))
    return trajectory


def one_step(tx, params, state, data, indices=None, **changes):
    """Return the gradient of one jitted update, and the state after it."""

    @jax.jit
    def update(params, state):
        arguments = extra_args(data, indices) | changes
        return tx.update(grad_fn(params, data), state, params, **arguments)

    return update(params, state)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_trees_close(a, b):
    # float32 rounding of sums over a dozen examples, in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), a, b)


def numpy_tree(params):
    return {name: np.asarray(params[name]) for name in NAMES}


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def numpy_logits(w, x):
    return [x_i @ w["kernel"] + w["bias"] for x_i in x]


def numpy_losses(w, x, y):
    pairs = zip(numpy_logits(w, x), y, strict=True)
    return np.array([-np.log(softmax(z)[y_i]) for z, y_i in pairs])


def backward(x, d_logits):
    """Gradient of a function of the logits, from its derivative by them."""
    g = {"bias": np.zeros(CLASSES), "kernel": np.zeros((INPUTS, CLASSES))}
    for x_i, d_i in zip(x, d_logits, strict=True):
        g["bias"] += d_i
        g["kernel"] += np.outer(x_i, d_i)
    return g


def numpy_gradient(w, x, y):
    n = len(x)
    logits = numpy_logits(w, x)
    pairs = zip(logits, y, strict=True)
    return backward(x, [(softmax(z) - np.eye(CLASSES)[k]) / n for z, k in pairs])


def length(g):
    return sum(entry**2 for name in NAMES for entry in g[name].ravel()) ** 0.5


def plus(a, b, factor=1.0):
    return {name: a[name] + factor * b[name] for name in NAMES}


def numpy_trajectory(gradient_of, data):
    """The parameters after each step of SGD along gradient_of(w, x, y, indices, step)."""
    params, images, labels, order = data
    w, x, y = numpy_tree(params), np.asarray(images), np.asarray(labels)
    trajectory = []
    for step, indices in enumerate(order):
        w = plus(w, gradient_of(w, x[indices], y[indices], indices, step), -RATE)
        trajectory.append(w)
    return trajectory


def difference(a, b):
    return max(np.max(np.abs(p[n] - q[n])) for p, q in zip(a, b, strict=True) for n in NAMES)


def assert_follows(transformation, reference, controls):
    """Hold a method to its reference in float64, and away from every wrong one."""
    with jax.enable_x64(True):
        data = make_data(jnp.float64)
        result = jax_trajectory(transformation(), data)
        # Rounding: eight steps of a few hundred operations each, 1e-16 apiece.
        assert difference(result, numpy_trajectory(reference(), data)) < 1e-12
        for name, control in controls.items():
            assert difference(result, numpy_trajectory(control(), data)) > 1e-5, name


DECAY = 0.6
TERM_METHODS = {
    "saf": functools.partial(optim.saf, EXAMPLES, CLASSES, epochs_back=1, start_epoch=0),
    "mesa": functools.partial(optim.mesa, decay=DECAY),
}
over_term_methods = pytest.mark.parametrize("name", TERM_METHODS)
