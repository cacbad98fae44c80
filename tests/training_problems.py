"""Tiny models, configs and an independent NumPy optimiser for the tests of the training loop."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from configs import digits
from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.optimiser import make_optimiser
from sam_jax.training.step import epoch_order


class Linear(nn.Module):
    """Softmax regression on flattened images, without batch norm."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, train=False):
        del train
        x = images.reshape(images.shape[0], -1)
        return nn.Dense(self.num_classes, dtype=x.dtype, param_dtype=x.dtype, name="dense")(x)


class NormNet(nn.Module):
    """Dense, batch norm, dense: its running statistics depend on the weights."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1)
        types = {"dtype": x.dtype, "param_dtype": x.dtype}
        x = nn.Dense(4, use_bias=False, name="first", **types)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm", **types)(x)
        return nn.Dense(self.num_classes, name="second", **types)(jnp.tanh(x))


def random_batch(examples=8, classes=3, seed=0):
    random = np.random.default_rng(seed)
    images = random.normal(size=(examples, 2, 2, 1))
    return images, random.integers(0, classes, examples)


def tiny_config(**changes):
    """Return the smoke variant of the base config with a net of one layer; "a.b" names a field."""
    config = digits.get_config("smoke")
    with config.unlocked():  # the architecture's own fields are not in the base
        config.model.features, config.model.strides = (4,), (2,)
    for name, value in changes.items():
        *groups, field = name.split("__")
        group = config
        for g in groups:
            group = group[g]
        group[field] = value
    return config


def run_two_steps(program, data, config):
    """The state after two steps on the 64 images of the smoke variant, and their metrics."""
    key = jax.random.key(config.seed)
    order = epoch_order(stream(key, "order"), 0, 64, config.batch_size)
    images, labels = np.asarray(data.train_images), np.asarray(data.train_labels)
    return program.run_steps(
        program.init(key),
        images,
        labels,
        np.concatenate([order[:1], order]),
        key,
        build.traced_hyperparameters(config),
    )


def make_sgd(learning_rate, momentum=0.0, nesterov=False, clip_norm=0.0, weight_decay=0.0):
    """Return the SGD of a config with these settings."""
    c = digits.get_config().optimiser
    c.update(momentum=momentum, nesterov=nesterov, clip_norm=clip_norm, weight_decay=weight_decay)
    return make_optimiser(c, learning_rate)


def softmax_gradient(params, images, labels, smoothing=0.0, decay=0.0):
    """Gradient of mean cross-entropy + decay / 2 * ||w||^2 of `Linear`, from the formula."""
    x = images.reshape(len(images), -1)
    logits = x @ params["kernel"] + params["bias"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    classes = p.shape[1]
    target = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    error = (p - target) / len(images)
    gradient = {"kernel": x.T @ error, "bias": error.sum(axis=0)}
    return {name: g + decay * params[name] for name, g in gradient.items()}


def global_norm(tree):
    return np.sqrt(sum(np.sum(np.square(np.asarray(x))) for x in jax.tree.leaves(tree)))


class TorchSgd:
    """torch.optim.SGD from its documented formula, after clipping by the global norm."""

    def __init__(self, lr, momentum, nesterov, clip_norm=0.0, decay=0.0):
        self.lr, self.momentum, self.nesterov = lr, momentum, nesterov
        self.clip_norm, self.decay, self.buffer = clip_norm, decay, None

    def step(self, params, gradient):
        norm = global_norm(gradient)
        factor = min(1.0, self.clip_norm / norm) if self.clip_norm else 1.0
        g = {k: factor * gradient[k] + self.decay * params[k] for k in params}
        if self.buffer is None:
            self.buffer = g
        else:
            self.buffer = {k: self.momentum * self.buffer[k] + g[k] for k in params}
        look = {k: g[k] + self.momentum * self.buffer[k] for k in params}
        direction = look if self.nesterov else self.buffer
        return {k: params[k] - self.lr * direction[k] for k in params}


@contextlib.contextmanager
def count_compilations():
    """Yield a list that grows by one entry for every program that XLA is given."""
    compiled = []
    _COUNTS.append(compiled)
    try:
        yield compiled
    finally:
        _COUNTS.remove(compiled)


_COUNTS = []


def _listen(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        for compiled in _COUNTS:
            compiled.append(duration)


jax.monitoring.register_event_duration_secs_listener(_listen)  # the oldest JAX takes none away


def assert_same_bits(a, b):
    """Assert that two pytrees have the same structure and the same bytes, typed keys included."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
