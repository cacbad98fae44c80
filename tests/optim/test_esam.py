"""ESAM: its formula in NumPy, its limits, its random part and its auxiliary outputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from softmax_problem import (
    NAMES,
    assert_follows,
    assert_trees_close,
    assert_trees_equal,
    difference,
    grad_fn,
    jax_trajectory,
    length,
    losses_fn,
    make_data,
    numpy_gradient,
    numpy_losses,
    numpy_tree,
    one_step,
    plus,
)

from sam_jax import draws, optim, pytree
from sam_jax.optim import perturbations

RHO, BETA, GAMMA, SEED = 0.2, 0.6, 0.5, 3


def esam_reference(
    granularity, *, gamma=GAMMA, scale=1 / BETA, sign=1, norm_of_kept=False, beta=BETA, rho=RHO
):
    """Return the formula of ESAM; the arguments make wrong ones."""

    def gradient_of(w, x, y, indices, step):
        g = numpy_gradient(w, x, y)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), step), 0)
        if granularity == "tensor":  # only the random numbers come from JAX
            u = dict(zip(NAMES, np.asarray(jax.random.uniform(key, (2,))), strict=True))
        else:
            u = numpy_tree(draws.random_like(key, jax.tree.map(jnp.asarray, w), "uniform"))
        kept = {name: np.where(u[name] < beta, g[name], 0.0) for name in NAMES}
        if rho == 0 or not any(np.any(e) for e in kept.values()):
            return g  # the draw may leave every tensor where it is
        norm = length(kept if norm_of_kept else g)
        perturbed = plus(w, kept, rho * scale / norm)
        rises = sign * (numpy_losses(perturbed, x, y) - numpy_losses(w, x, y))
        chosen = np.argsort(-rises, kind="stable")[: round(gamma * len(x))]
        return numpy_gradient(perturbed, x[chosen], y[chosen])

    return gradient_of


@pytest.mark.parametrize("granularity", ["parameter", "tensor"])
def test_esam_equals_numpy(granularity):
    reference = functools.partial(esam_reference, granularity)
    assert_follows(
        lambda: optim.esam(RHO, BETA, GAMMA, jax.random.key(SEED), None, granularity),
        reference,
        {
            "no perturbation": lambda: reference(rho=0.0),
            "not rescaled": lambda: reference(scale=1.0),
            "all parameters": lambda: reference(beta=1.0, scale=1.0),
            "norm of the kept ones": lambda: reference(norm_of_kept=True),
            "whole batch": lambda: reference(gamma=1.0),
            "smallest rises": lambda: reference(sign=-1),
        },
    )


@pytest.mark.parametrize("norm", ["all", "bias"])
def test_esam_with_both_parts_at_one_is_sam_bit_for_bit(norm):
    mask = None if norm == "all" else {"bias": True, "kernel": False}
    data = make_data()
    wrappers = [lambda tx: tx] if mask else [lambda tx: tx, lambda tx: optim.m_sam(tx, 3)]
    for wrap in wrappers:
        esam = jax_trajectory(wrap(optim.esam(RHO, 1.0, 1.0, mask=mask)), data)
        sam = jax_trajectory(wrap(optim.sam(RHO, mask=mask)), data)
        other = jax_trajectory(wrap(optim.esam(RHO, 0.9, 1.0, mask=mask)), data)
        assert difference(esam, sam) == 0.0 < difference(other, sam)


def test_esam_with_gamma_one_needs_neither_batch_nor_losses():
    params, images, labels, _ = make_data()
    tx, batch = optim.esam(RHO, BETA, gamma=1.0), (images, labels)
    state = tx.init(params)
    alone, _ = one_step(tx, params, state, batch, batch=None, losses_fn=None)
    assert_trees_equal(alone, one_step(tx, params, state, batch)[0])


@pytest.mark.parametrize("gamma", [0.5, 0.001])
def test_esam_without_a_perturbation_takes_the_plain_gradient(gamma):
    params, images, labels, _ = make_data()
    plain = numpy_gradient(numpy_tree(params), images, labels)
    for rho in (0.0, RHO):
        tx = optim.esam(rho, 1.0, gamma)
        gradient, _ = one_step(tx, params, tx.init(params), (images, labels))
        if rho == 0:
            assert_trees_close(gradient, plain)
        else:  # of the part whose loss rises most
            pytest.raises(AssertionError, assert_trees_close, gradient, plain)


def test_esam_returns_the_auxiliary_outputs_of_both_passes():
    params, images, labels, _ = make_data()
    batch = images, labels

    def aux_grad_fn(params, batch):
        return grad_fn(params, batch), (params, len(batch[1]))

    tx = optim.esam(RHO, BETA, GAMMA)

    @jax.jit
    def gradient(params, state):
        return tx.gradient(aux_grad_fn, params, state, batch=batch, losses_fn=losses_fn)

    result, state = gradient(params, tx.init(params))
    assert_trees_equal(result.clean_aux[0], params)
    assert (result.clean_aux[1], result.perturbed_aux[1]) == (12, 6)
    assert int(state.count) == 1
    epsilon = jax.tree.map(jnp.subtract, result.perturbed_aux[0], params)
    assert 0 < pytree.norm(epsilon) < RHO / BETA


def ascent_draws(granularity, count, beta=BETA):
    """Return SAM's epsilon and `count` stochastic ones, of as many sub-batches."""
    params = gradient = make_data()[0]  # any gradient will do
    perturbation = perturbations.stochastic_ascent(
        RHO, beta, jax.random.key(0), granularity=granularity
    )
    state = perturbation.init(params)

    @jax.jit
    @jax.vmap
    def draw(index):
        return perturbation.update(gradient, state, params, sub_batch=index)[0]

    draws = draw(jnp.arange(count))
    ascent = perturbations.ascent(RHO)
    return ascent.update(gradient, ascent.init(params), params)[0], draws


@pytest.mark.parametrize("granularity", ["parameter", "tensor"])
def test_the_mean_of_the_stochastic_perturbation_is_that_of_sam(granularity):
    count = 4000
    sam, draws = ascent_draws(granularity, count)
    # The variance of one draw is epsilon^2 (1 - beta) / beta; five standard errors.
    tolerance = 5 * ((1 - BETA) / BETA / count) ** 0.5
    for epsilon, drawn in zip(jax.tree.leaves(sam), jax.tree.leaves(draws), strict=True):
        ratio = drawn / epsilon[None]
        assert jnp.all(jnp.abs(jnp.mean(ratio, axis=0) - 1) < tolerance)
        # Every draw is epsilon / beta or nothing; of a tensor all entries share the draw.
        assert jnp.all((drawn == 0) | (jnp.abs(ratio * BETA - 1) < 1e-6))
        alike = jnp.all((drawn == 0).reshape(count, -1) == (drawn == 0).reshape(count, -1)[:, :1])
        assert alike == (granularity == "tensor")


def test_a_schedule_of_beta_is_read_at_the_update():
    params = gradient = make_data()[0]  # any gradient will do
    schedule = optax.piecewise_constant_schedule(1.0, {1: 1e-9})  # all, then next to none
    perturbation = perturbations.stochastic_ascent(RHO, schedule, jax.random.key(0))
    first, state = perturbation.update(gradient, perturbation.init(params), params)
    second, _ = perturbation.update(gradient, state, params)
    assert pytree.norm(first) == pytest.approx(RHO)
    assert pytree.norm(second) == 0


def test_each_update_draws_anew():
    params = gradient = make_data()[0]  # any gradient will do
    perturbation = perturbations.stochastic_ascent(RHO, BETA, jax.random.key(0))
    first, state = perturbation.update(gradient, perturbation.init(params), params)
    second, _ = perturbation.update(gradient, state, params)
    assert jnp.any((first["kernel"] == 0) != (second["kernel"] == 0))
