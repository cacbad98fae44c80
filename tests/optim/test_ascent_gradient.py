"""`ascent_grad_fn` makes epsilon, and grad_fn all that is descended along."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_runs import (
    RHO,
    assert_plain,
    assert_trees_close,
    assert_trees_equal,
    other_batch,
    plain_results,
    state_at,
    trees_close,
    update,
)
from contract_table import APPLIES, METHODS, over
from problems import dense_net

from sam_jax import optim

# The random ones and those that ascend along memories of other gradients never ask for it.
IGNORE = (
    "average_sam",
    "momentum_sam",
    "saf",
    "mesa",
    "smooth_out",
    "smooth_out_copies",
    "weight_noise",
    "weight_noise_relative",
    "entropy_sgd",
    "extrap_sgd",
)


def another(problem):
    """A gradient that points elsewhere: of the same net on other data."""
    other = problem._replace(batch=other_batch(problem.batch))

    def ascent_grad_fn(params, batch=None, term=None):
        return other.grad_fn(params, None if batch is None else other_batch(batch), term)

    return ascent_grad_fn


def updated(case, rho, problem, **functions):
    tx = case.make(rho)
    return update(tx, problem, state_at(tx, problem, case.perturbs), **functions)[0]


@jax.disable_jit()
@over("passes", METHODS)
def test_the_same_gradient_changes_nothing(case):
    problem = dense_net()
    result = updated(case, RHO, problem, ascent_grad_fn=problem.grad_fn)
    assert_trees_equal(result, updated(case, RHO, problem))


@jax.disable_jit()
@over("passes", METHODS)
def test_another_gradient_moves_the_result_of_methods_that_ascend(case):
    problem = dense_net()
    result = updated(case, RHO, problem, ascent_grad_fn=another(problem))
    plain = updated(case, RHO, problem)
    if case.name in IGNORE:
        assert_trees_equal(result, plain)
    else:
        assert not trees_close(result, plain, 1e-3)


@jax.disable_jit()
@over("off at zero", METHODS)
def test_without_a_perturbation_the_result_is_that_of_grad_fn(case):
    problem = dense_net()
    tx = case.make(0.0)
    state = tx.init(problem.params)
    for wanted in plain_results(case, problem, updates=2):
        result, state = update(tx, problem, state, ascent_grad_fn=another(problem))
        assert_plain(case, result, wanted)


@jax.disable_jit()
@over(cases=[m for m in METHODS if m.skips is not None])
def test_a_step_without_a_pass_descends_along_grad_fn(case):
    problem, tx = dense_net(), case.make(RHO)
    state = state_at(tx, problem, case.skips)
    functions = {"ascent_grad_fn": another(problem)}
    assert_trees_equal(update(tx, problem, state, **functions)[0], update(tx, problem, state)[0])


def quartic(w):
    return jnp.sum(w**4)


def ascent(w):
    return jnp.array([3.0, -4.0]) * jnp.ones_like(w)


def test_epsilon_and_the_combinations_by_hand():
    with jax.enable_x64(True):
        grad_fn, w = jax.grad(quartic), jnp.array([1.0, -0.5])
        g = np.asarray(grad_fn(w))
        perturbed = np.asarray(grad_fn(w + 0.1 * np.array([0.6, -0.8])))
        orthogonal = g - perturbed * (g @ perturbed) / (perturbed @ perturbed)
        wanted = {
            optim.sam(0.1): perturbed,
            optim.gsam(0.1, alpha=0.5): perturbed - 0.5 * orthogonal,
            optim.wsam(0.1, gamma=0.75): g + 3 * (perturbed - g),
        }
        for tx, expected in wanted.items():
            result, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn, ascent_grad_fn=ascent)
            np.testing.assert_allclose(result, expected, rtol=1e-12)
            # The pure function makes the passes itself, of which the clean one has the outputs.
            result, _ = tx.gradient(
                lambda w: (grad_fn(w), quartic(w)),
                w,
                tx.init(w),
                ascent_grad_fn=lambda w: (ascent(w), quartic(w)),
            )
            np.testing.assert_allclose(result.gradient, expected, rtol=1e-12)
            assert result.clean_aux == quartic(w) and result.perturbed_aux > 1.1 * quartic(w)
            unlike, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
            assert np.abs(np.asarray(unlike) - expected).max() > 1e-2


def test_several_ascent_steps_all_take_it():
    with jax.enable_x64(True):
        w = jnp.array([1.0, -0.5])
        tx = optim.multi_step_sam(0.3, steps=3, step_size=0.1)
        visited = []

        def ascent_grad_fn(w):
            visited.append(np.asarray(w))
            return ascent(w), None

        result, _ = tx.gradient(
            lambda w: (jax.grad(quartic)(w), None), w, tx.init(w), ascent_grad_fn=ascent_grad_fn
        )
    steps = [0.1 * k * np.array([0.6, -0.8]) for k in range(3)]
    np.testing.assert_allclose(visited, np.asarray(w) + steps, rtol=1e-12)
    np.testing.assert_allclose(result.epsilon, 0.3 * np.array([0.6, -0.8]), rtol=1e-12)


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_m_sam_gives_every_sub_batch_its_own(strategy):
    problem = dense_net()
    aux = lambda f: lambda params, batch=None: (f(params, batch), None)  # noqa: E731
    tx = optim.m_sam(optim.sam(RHO), 4, strategy)
    result, _ = tx.gradient(
        aux(problem.grad_fn),
        problem.params,
        tx.init(problem.params),
        batch=problem.batch,
        ascent_grad_fn=aux(another(problem)),
    )

    def half(rows):
        part = problem._replace(batch=jax.tree.map(lambda x: x[rows], problem.batch))
        return updated_sam(part)

    def updated_sam(part):
        inner = optim.sam(RHO)
        state = inner.init(part.params)
        return update(inner, part, state, ascent_grad_fn=another(part))[0]

    halves = [half(slice(4)), half(slice(4, None))]
    wanted = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    assert_trees_close(result.gradient, wanted, 1e-5)
    assert not trees_close(*halves, 1e-2)


def test_the_draws_of_both_gradients_are_those_of_the_sub_batch():
    seen = {"descent": [], "ascent": []}

    def recording(name):
        def grad_fn(params, batch, rngs):
            seen[name].append(jax.random.key_data(rngs).tolist())
            return params + jnp.mean(batch), None

        return grad_fn

    tx = optim.m_sam(optim.sam(RHO), 2, "scan")
    w = jnp.ones(3)
    with jax.disable_jit():
        tx.gradient(
            recording("descent"),
            w,
            tx.init(w),
            batch=jnp.arange(4.0),
            rngs=jax.random.key(1),
            ascent_grad_fn=recording("ascent"),
        )
    # One ascent and one descent a sub-batch, with equal keys, which differ between sub-batches.
    assert seen["descent"] == seen["ascent"] and len(seen["ascent"]) == 2
    assert seen["ascent"][0] != seen["ascent"][1]


def test_without_a_reader_the_ordinary_clean_pass_is_not_made():
    calls = []

    def counting(name):
        def grad_fn(w):
            calls.append(name)
            return jax.grad(quartic)(w), None

        return grad_fn

    for tx, passes in (
        (optim.sam(0.1), ["ascent", "descent"]),
        (optim.gsam(0.1), ["descent", "ascent", "descent"]),
        (optim.average_sam(0.1, jax.random.key(0)), ["descent"]),
    ):
        calls.clear()
        w = jnp.ones(2)
        tx.gradient(counting("descent"), w, tx.init(w), ascent_grad_fn=counting("ascent"))
        assert calls == passes


def test_leaves_that_are_no_parameters_reach_it():
    params = {"w": jnp.array([1.0, 2.0]), "count": jnp.array(3)}

    def ascent_grad_fn(params):
        return {"w": params["count"] * params["w"], "count": np.zeros((), jax.dtypes.float0)}

    grad_fn = functools.partial(
        jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True),
    )
    tx = optax.chain(optim.sam(0.1), optax.identity())
    result, _ = tx.update(
        grad_fn(params), tx.init(params), params, grad_fn=grad_fn, ascent_grad_fn=ascent_grad_fn
    )
    direction = np.array([1.0, 2.0]) / np.sqrt(5)
    np.testing.assert_allclose(result["w"], 2 * (np.array([1.0, 2.0]) + 0.1 * direction), rtol=1e-6)


def test_the_list_of_methods_that_ignore_it_names_methods():
    names = {case.name for case in METHODS if APPLIES["passes"](case)}
    assert set(IGNORE) <= names
