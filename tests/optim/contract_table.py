"""The table of transformations that every rule of the contract runs over.

A new method joins by one line in METHODS; it then runs plain and inside m_sam.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from sam_jax import optim

KEY = 7  # the seed of every method that draws
M = 2  # examples in a sub-batch of the m_sam cases


def p_norm(order):
    def length(epsilon, params):
        del params
        entries = jnp.concatenate([e.ravel() for e in jax.tree.leaves(epsilon)])
        return jnp.linalg.norm(entries, order)

    return length


def adaptive_norm(epsilon, params, eta=0.01):
    def entry(path, e, w):
        return e if path and path[-1].key == "bias" else e / (jnp.abs(w) + eta)

    return p_norm(2)(jax.tree.map_with_path(entry, epsilon, params), params)


class Method(NamedTuple):
    """One transformation and what the rules need to know about it."""

    name: str
    make: Callable[..., Any]  # make(rho, mask=None) -> transformation
    cost: float  # gradients per update under jit
    length: Callable[[Any, Any], jax.Array]  # of an epsilon at params: it must be rho
    follows_gradient: bool = True  # whether a zero gradient means a zero epsilon
    m: int | None = None  # examples in a sub-batch; None outside m_sam


def average_sam(rho, mask=None):
    return optim.average_sam(rho, jax.random.key(KEY), mask)


METHODS = [
    Method("sam", optim.sam, 2, p_norm(2)),
    Method("sam_3_norm", functools.partial(optim.sam, norm_order=3.0), 2, p_norm(3)),
    Method("asam", optim.asam, 2, adaptive_norm),
    Method("average_sam", average_sam, 1, p_norm(2), follows_gradient=False),
]


def in_m_sam(method, m=M, strategy="vmap"):
    """Return the method inside m_sam."""

    def make(rho, mask=None):
        return optim.m_sam(method.make(rho, mask=mask), m, strategy)

    return method._replace(name=f"m_sam({method.name})", make=make, m=m)


# test_m_sam.py holds the other strategy, "scan", to the numbers of this one.
CASES = [*METHODS, *(in_m_sam(method) for method in METHODS)]

over_methods = pytest.mark.parametrize("case", METHODS, ids=lambda case: case.name)
over_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def update(tx, problem, state=None, params=None, **extra_args):
    """Call `tx.update` on a problem; outside m_sam the batch passes through unused."""
    params = problem.params if params is None else params
    state = tx.init(params) if state is None else state
    return tx.update(
        problem.grad_fn(params),
        state,
        params,
        grad_fn=problem.grad_fn,
        batch=problem.batch,
        **extra_args,
    )


def measured(tx, problem, measure, state=None):
    """Return `measure(perturbed params)`, averaged over the sub-batches of m_sam."""

    def aux_grad_fn(params, batch=None):
        return problem.grad_fn(params, batch), measure(params)

    state = tx.init(problem.params) if state is None else state
    result, _ = tx.gradient(aux_grad_fn, problem.params, state, batch=problem.batch)
    return result.perturbed_aux


def epsilon_length(case, tx, problem, state=None):
    """Return the length of epsilon, which is rho for every case of the table."""

    def measure(perturbed):
        epsilon = jax.tree.map(
            lambda p, w: p.astype(jnp.float32) - w.astype(jnp.float32), perturbed, problem.params
        )
        return case.length(epsilon, problem.params)

    return measured(tx, problem, measure, state)


def assert_trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert bool(jnp.all(x == y)), (x, y)


def assert_trees_close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert trees_close(a, b, tolerance), (a, b)


def trees_close(a, b, tolerance=1e-5):
    """Whether leaves agree to `tolerance`, relative to the largest entry of each leaf pair."""
    return all(
        bool(jnp.max(jnp.abs(x - y)) <= tolerance * (jnp.max(jnp.abs(y)) + 1e-30))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
