"""The defaults train a small net at batches of 32, where the values of the papers do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from sam_jax import optim

EPOCHS, BATCH, RATE, MOMENTUM = 8, 32, 0.1, 0.9
WIDTHS = (64, 128, 128, 128, 10)


def initial_params():
    keys = jax.random.split(jax.random.key(0), len(WIDTHS) - 1)
    return [
        {"kernel": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "bias": jnp.zeros(m)}
        for k, n, m in zip(keys, WIDTHS[:-1], WIDTHS[1:], strict=True)
    ]


def mean_loss(params, batch):
    x, labels = batch
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
    logits = x @ params[-1]["kernel"] + params[-1]["bias"][None]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@functools.cache
def digits():
    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)


def loss_after_training(method):
    """The mean training loss after SGD with momentum along the method's gradient."""
    data, grad_fn = digits(), jax.grad(mean_loss)
    tx = optax.chain(method, optax.sgd(RATE, momentum=MOMENTUM))
    random = np.random.default_rng(0)
    count = len(data[1]) // BATCH * BATCH
    order = [random.permutation(len(data[1]))[:count].reshape(-1, BATCH) for _ in range(EPOCHS)]

    def step(carry, rows):
        params, state = carry
        batch = (data[0][rows], data[1][rows])

        def gradient(params, batch=batch):
            return grad_fn(params, batch)

        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient, batch=batch)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(params):
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), np.concatenate(order))
        return mean_loss(params, data)

    return float(run(initial_params()))


HARMED = {
    "wsam": (lambda: optim.wsam(0.2), lambda: optim.wsam(0.2, gamma=0.9)),
    "looksam": (lambda: optim.looksam(), lambda: optim.looksam(alpha=0.7)),
}


@pytest.mark.e2e
@pytest.mark.parametrize("name", HARMED)
def test_a_default_trains_where_the_value_of_the_paper_does_not(name):
    default, published = HARMED[name]
    loss = loss_after_training(default())
    assert loss < 0.2
    assert not loss_after_training(published()) < 3 * loss


@pytest.mark.e2e
def test_the_published_entropy_sgd_trains():
    # Its gradient is gamma (w - mu), so that its learning rate is that of w - mu, over gamma.
    gamma = 0.03
    method = optim.entropy_sgd(gamma, jax.random.key(1))
    assert loss_after_training(optax.chain(method, optax.scale(1 / gamma))) < 0.15


def test_the_default_weight_of_coupled_wsam_is_the_decoupled_one_under_momentum():
    # Where both gradients stay as they are, the momentum counts each 1 / (1 - momentum) times.
    clean, perturbed, params = jnp.ones(1), jnp.full(1, 1.1), jnp.zeros(1)
    sgd = optax.sgd(RATE, momentum=MOMENTUM)

    def last_update(tx):
        state = tx.init(params)
        for _ in range(200):
            update, state = tx.update(clean, state, params, grad_fn=lambda _: perturbed)
        return float(update[0])

    plain = last_update(optax.with_extra_args_support(sgd))
    with jax.disable_jit():
        coupled = last_update(optax.chain(optim.wsam(), sgd)) - plain
        decoupled = last_update(optim.decoupled_wsam(sgd, RATE)) - plain
    assert coupled == pytest.approx(decoupled, rel=0.03)
    with jax.disable_jit():
        same_gamma = last_update(optax.chain(optim.wsam(gamma=0.9), sgd)) - plain
    assert same_gamma == pytest.approx(decoupled / (1 - MOMENTUM), rel=0.01)
