"""SAF and MESA: their formulas in NumPy, the term itself, and zero weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from softmax_problem import (
    BATCH,
    CLASSES,
    EXAMPLES,
    NAMES,
    RATE,
    TERM_METHODS,
    assert_follows,
    backward,
    difference,
    extra_args,
    grad_fn,
    jax_trajectory,
    logits_fn,
    make_data,
    numpy_gradient,
    numpy_logits,
    over_term_methods,
    plus,
    softmax,
)

from sam_jax import optim
from sam_jax.optim import trajectory_loss

LMBDA, TAU, DECAY = 0.7, 2.0, 0.6


def divergence_slope(z, target, n, lmbda=LMBDA, factor=TAU**2, reverse=False):
    """Derivative of lmbda factor / n KL(softmax(target / tau) || softmax(z / tau)) by z."""
    p, q = softmax(np.asarray(target) / TAU), softmax(z / TAU)
    if reverse:
        ratio = np.log(q / p)
        return lmbda * factor / n / TAU * q * (ratio - np.sum(q * ratio))
    return lmbda * factor / n / TAU * (q - p)


def saf_reference(epochs_back, start_epoch, n=BATCH, **term):
    """Return the formula of SAF; the arguments make wrong ones."""
    history = {index: [] for index in range(EXAMPLES)}

    def gradient_of(w, x, y, indices, step):
        slopes = []
        for index, z in zip(indices, numpy_logits(w, x), strict=True):
            visits, slope = len(history[index]), np.zeros(CLASSES)
            if visits >= max(epochs_back, start_epoch):
                target = history[index][visits - epochs_back]
                slope = divergence_slope(z, target, n, **term)
            history[index].append(z)
            slopes.append(slope)
        return plus(numpy_gradient(w, x, y), backward(x, slopes))

    return gradient_of


@pytest.mark.parametrize("epochs_back, start_epoch", [(1, 0), (2, 0), (2, 3)])
def test_saf_equals_numpy(epochs_back, start_epoch):
    reference = functools.partial(saf_reference, epochs_back, start_epoch)
    later = max(epochs_back, start_epoch) + 1
    assert_follows(
        lambda: optim.saf(EXAMPLES, CLASSES, LMBDA, TAU, epochs_back, start_epoch),
        reference,
        {
            "no term": lambda: reference(lmbda=0.0),
            "another epoch": lambda: saf_reference(3 - epochs_back, max(start_epoch, 2)),
            "an epoch later": lambda: saf_reference(epochs_back, later),
            "without tau^2": lambda: reference(factor=1.0),
            "a sum": lambda: reference(n=1),
            "the other way round": lambda: reference(reverse=True),
        },
    )


def mesa_reference(decay=DECAY, start=0, attached=False, late=False, n=BATCH, **term):
    """Return the formula of MESA; the arguments make wrong ones."""
    average = {}

    def gradient_of(w, x, y, indices, step):
        old = dict(average) or w
        new = {name: decay * old[name] + (1 - decay) * w[name] for name in NAMES}
        average.update(new)
        slopes = []
        targets = numpy_logits(old if late else new, x)
        for z, target in zip(numpy_logits(w, x), targets, strict=True):
            slope = divergence_slope(z, target, n, **term)
            if attached:  # the target moves with w by the factor 1 - decay
                p, q = softmax(target / TAU), softmax(z / TAU)
                ratio = np.log(p / q)
                slope += (1 - decay) * LMBDA * TAU / n * p * (ratio - np.sum(p * ratio))
            slopes.append(slope if step >= start else np.zeros(CLASSES))
        return plus(numpy_gradient(w, x, y), backward(x, slopes))

    return gradient_of


@pytest.mark.parametrize("start", [0, 3])
def test_mesa_equals_numpy(start):
    reference = functools.partial(mesa_reference, start=start)
    assert_follows(
        lambda: optim.mesa(LMBDA, TAU, DECAY, start),
        reference,
        {
            "no term": lambda: reference(lmbda=0.0),
            "another decay": lambda: reference(decay=0.9),
            "a step later": lambda: reference(start=start + 2),
            "the average before the update": lambda: reference(late=True),
            "targets with gradient": lambda: reference(attached=True),
            "without tau^2": lambda: reference(factor=1.0),
            "a sum": lambda: reference(n=1),
            "the other way round": lambda: reference(reverse=True),
        },
    )


def plain():
    """Return a link that gives the plain gradient, for comparison."""
    return optax.with_extra_args_support(optax.identity())


@over_term_methods
def test_a_weight_of_zero_gives_the_plain_gradient_bit_for_bit(name):
    data = make_data()
    make = TERM_METHODS[name]
    assert difference(jax_trajectory(make(lmbda=0.0), data), jax_trajectory(plain(), data)) == 0
    assert difference(jax_trajectory(make(lmbda=1.0), data), jax_trajectory(plain(), data)) > 1e-2


@over_term_methods
def test_a_schedule_of_the_weight_is_read_at_the_update(name):
    data = make_data()
    make = TERM_METHODS[name]
    switched = jax_trajectory(make(lmbda=lambda count: jnp.where(count < 6, 0.0, 1.0)), data)
    without = jax_trajectory(plain(), data)
    # The memory fills while the weight is zero; the update that counts 6 is the seventh.
    assert difference(switched[:6], without[:6]) == 0
    assert np.max(np.abs(switched[6]["kernel"] - without[6]["kernel"])) > 1e-3


@over_term_methods
def test_the_only_pass_is_the_clean_one(name):
    params, images, labels, _ = make_data()
    batch = images, labels
    calls = []

    def aux_grad_fn(params, term):
        calls.append(params)
        return grad_fn(params, batch, term), "outputs"

    tx = TERM_METHODS[name]()
    result, _ = tx.gradient(
        aux_grad_fn,
        params,
        tx.init(params),
        logits_fn=lambda w: logits_fn(w, batch),
        indices=jnp.arange(EXAMPLES),
    )
    assert len(calls) == 1
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (calls[0], params)), strict=True))
    assert (result.clean_aux, result.perturbed_aux) == ("outputs", "outputs")


@over_term_methods
def test_a_jitted_grad_fn_takes_the_term_and_compiles_once(name):
    params, images, labels, _ = make_data()
    batch = images, labels
    traces = []

    @jax.jit
    def jitted(params, term):
        traces.append(None)
        return grad_fn(params, batch, term)

    tx = TERM_METHODS[name]()
    state = tx.init(params)
    arguments = extra_args(batch, jnp.arange(EXAMPLES)) | {"grad_fn": jitted}
    for _ in range(3):
        gradient, state = tx.update(params, state, params, **arguments)
        params = plus(params, gradient, -RATE)
    assert len(traces) == 1


# --- the term ----------------------------------------------------------------------------------


def random_logits(seed, rows=5):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, CLASSES)), jnp.float32)


def test_the_term_is_the_mean_divergence():
    z, t = random_logits(0), random_logits(1)
    p, q = ([softmax(np.float64(row) / TAU) for row in array] for array in (t, z))
    divergence = [np.sum(a * np.log(a / b)) for a, b in zip(p, q, strict=True)]
    term = trajectory_loss.trajectory_term(t, LMBDA, TAU)
    assert term(z) == pytest.approx(LMBDA * TAU**2 * np.mean(divergence), rel=1e-5)
    some = trajectory_loss.trajectory_term(t, LMBDA, TAU, jnp.arange(5) < 2)
    assert some(z) == pytest.approx(LMBDA * TAU**2 * np.sum(divergence[:2]) / 5, rel=1e-5)


def test_the_term_is_least_at_the_targets_and_sends_them_no_gradient():
    z, t = random_logits(0), random_logits(1)
    term = trajectory_loss.trajectory_term(t, LMBDA, TAU)
    assert term(t) == 0 < term(z)
    assert jnp.max(jnp.abs(jax.grad(term)(t))) < 1e-6 < jnp.max(jnp.abs(jax.grad(term)(z)))
    by_target = jax.grad(lambda t: trajectory_loss.trajectory_term(t, LMBDA, TAU)(z))(t)
    assert jnp.all(by_target == 0)


def test_the_term_is_computed_in_float32():
    z, t = (random_logits(seed).astype(jnp.bfloat16) for seed in (0, 1))
    term = trajectory_loss.trajectory_term(t, LMBDA, TAU)
    wide = trajectory_loss.trajectory_term(t.astype(jnp.float32), LMBDA, TAU)
    assert term(z).dtype == jnp.float32 and term(z) == wide(z.astype(jnp.float32))
    assert jax.grad(term)(z).dtype == jnp.bfloat16
