"""What holds for every method, over random pytrees, dtypes, masks and hyperparameters.

The rules of the contract on their problems are in test_contract_*.py; here hypothesis draws.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_runs import assert_trees_close, assert_trees_equal, other_batch
from contract_table import APPLIES, CASES, METHODS, in_m_sam, over
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from random_trees import EXAMPLES, RandomProblem, problems_of

from sam_jax import optim, pytree

few = settings(
    max_examples=6,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],  # to make a failing example smaller takes minutes
)
SEED = st.integers(0, 2**20)
DRAWS = ("average_sam", "ss_sam", "esam", "esam_whole_batch", "smooth_out", "smooth_out_copies")
DRAWS += ("weight_noise", "weight_noise_relative", "entropy_sgd")


@pytest.fixture(autouse=True)
def wide_and_eager():
    """Float64 is at hand, and nothing is compiled but single operations."""
    with jax.enable_x64(True), jax.disable_jit():
        yield


def arguments(problem):
    return {
        "batch": problem.batch,
        "previous_batch": other_batch(problem.batch),
        "losses_fn": problem.losses,
        "logits_fn": problem.logits,
        "indices": jnp.arange(EXAMPLES),
    }


def method_of(case, problem, rho=None):
    # An optimiser inside a method needs optax.masked there, see test_contract_other_leaves.py.
    assume(not case.wraps or all(map(pytree.is_parameter, jax.tree.leaves(problem.params))))
    mask = {"mask": problem.mask} if case.masks else {}
    return case.make(problem.rho if rho is None else rho, **mask)


def state_of(case, tx, problem):
    """Return the state before the update that perturbs."""
    state = tx.init(problem.params)
    for _ in range(case.perturbs):
        clean = problem.grad_fn(problem.params)
        _, state = tx.update(
            clean, state, problem.params, grad_fn=problem.grad_fn, **arguments(problem)
        )
    return state


def result_of(case, problem, tx=None):
    """Return the result of the pure function in the update that perturbs."""
    tx = method_of(case, problem) if tx is None else tx
    state = state_of(case, tx, problem)
    clean = problem.aux_grad_fn(problem.params)
    result, _ = tx.gradient(
        problem.aux_grad_fn, problem.params, state, clean=clean, **arguments(problem)
    )
    return result


def parameters_of(tree, params):
    return jax.tree.map(lambda w, x: x if pytree.is_parameter(w) else None, params, tree)


def dtypes_of(tree):
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


# --- epsilon --------------------------------------------------------------------------------------


@over("an epsilon")
@few
@given(problem=problems_of())
def test_epsilon_is_as_long_as_rho_and_lies_in_the_mask(case, problem):
    result, params = result_of(case, problem), problem.params
    at_w, others = pytree.partition(params)
    epsilon = jax.tree.map(lambda _, e: e, at_w, result.epsilon)  # None where it leaves out
    perturbed, other_leaves = pytree.partition(result.perturbed_aux)
    assert jax.tree.leaves(other_leaves) == jax.tree.leaves(others)
    # It is float32 or wider, and its sum with the weights is rounded once.
    assert set(dtypes_of(epsilon)) <= {np.dtype("float32"), np.dtype("float64")}
    assert_trees_equal(perturbed, pytree.add(at_w, epsilon))
    if not case.wraps:
        assert dtypes_of(parameters_of(result.gradient, params)) == dtypes_of(at_w)
    wide = jax.tree.map(
        lambda w, e: np.zeros(w.shape) if e is None else np.asarray(e, np.float64), at_w, epsilon
    )
    if case.masks:
        kept = parameters_of(problem.mask, params)
        outside = jax.tree.map(lambda keep, e: None if keep else e, kept, wide)
        assert not any(np.any(e) for e in jax.tree.leaves(outside))
    # Adversarial weight perturbation moves kernels alone, which the mask may all leave out.
    if case.length and (case.name != "awp" or any(map(np.any, jax.tree.leaves(wide)))):
        # Sums of up to thirteen squares in float32, a root and a product.
        np.testing.assert_allclose(case.length(wide, at_w), problem.rho, rtol=3e-6)


# --- rho = 0 and a zero gradient ------------------------------------------------------------------


@over("off at zero")
@few
@given(problem=problems_of())
def test_zero_is_the_plain_gradient_of_any_tree(case, problem):
    result = result_of(case, problem, method_of(case, problem, 0.0)).gradient
    clean = problem.grad_fn(problem.params)
    if case.wraps:
        state = case.wraps.init(problem.params)
        for _ in range(case.perturbs + 1):
            plain, state = case.wraps.update(clean, state, problem.params)
        clean = plain
    result, clean = (parameters_of(tree, problem.params) for tree in (result, clean))
    if case.m is None:
        assert_trees_equal(result, clean)
    else:  # the mean of the gradients of sub-batches is rounded once more
        assert_trees_close(result, clean, 2 * float(jnp.finfo(jnp.bfloat16).eps))


@over("zero at a zero gradient")
@few
@given(problem=problems_of())
def test_a_zero_gradient_stays_zero_in_any_tree(case, problem):
    zeros = jax.tree.map(jnp.zeros_like, problem.linear)
    problem = problem._replace(linear=zeros, square=zeros)
    result = result_of(case, problem)
    for leaf in jax.tree.leaves(parameters_of(result.gradient, problem.params)):
        assert not np.any(np.asarray(leaf))
    if case.m is None and case.epsilon:
        assert not any(np.any(np.asarray(e)) for e in jax.tree.leaves(result.epsilon))


# --- the order of leaves and of examples ----------------------------------------------------------


def turned_round(tree):
    """Return the layers in the opposite order."""
    return list(reversed(tree))


WITHOUT_DRAWS = [c for c in METHODS if c.name not in DRAWS and c.evaluates]


@over(cases=WITHOUT_DRAWS)
@few
@given(problem=problems_of(("layers",), ("float64",)))
def test_the_order_of_the_leaves_does_not_matter(case, problem):
    turned = problem._replace(
        **{name: turned_round(getattr(problem, name)) for name in RandomProblem._fields[:3]},
        mask=turned_round(problem.mask),
    )
    wanted = turned_round(result_of(case, problem).gradient)
    assert_trees_close(result_of(case, turned).gradient, wanted, 1e-12)


@over(cases=[c for c in METHODS if APPLIES["passes"](c) and APPLIES["the whole batch"](c)])
@few
@given(problem=problems_of(("layers",), ("float64",)), seed=SEED)
def test_the_order_of_the_examples_does_not_matter(case, problem, seed):
    order = np.random.default_rng(seed).permutation(EXAMPLES)
    permuted = problem._replace(batch={"x": problem.batch["x"][order]})
    wanted = result_of(case, problem).gradient
    assert_trees_close(result_of(case, permuted).gradient, wanted, 1e-12)


# --- m-SAM ----------------------------------------------------------------------------------------

IN_M_SAM = [case for case in METHODS if APPLIES["m_sam"](case) and case.name not in DRAWS]


@over(cases=IN_M_SAM)
@few
@given(problem=problems_of(dtypes=("float64",)), m=st.sampled_from([1, 2, 3, 6]), seed=SEED)
def test_m_sam_is_the_mean_over_sub_batches_in_whichever_order(case, problem, m, seed):
    wrapped = in_m_sam(case, m, "scan")
    result = result_of(wrapped, problem).gradient
    count = EXAMPLES // m
    groups = problem.batch["x"].reshape(count, m)
    alone = [result_of(case, problem._replace(batch={"x": x})).gradient for x in groups]

    def mean(tree, *trees):
        return sum(trees, tree) / count

    at_parameters = [parameters_of(tree, problem.params) for tree in (result, *alone)]
    result, *alone = at_parameters
    assert_trees_close(result, jax.tree.map(mean, *alone), 1e-12)
    order = np.random.default_rng(seed).permutation(count)
    permuted = problem._replace(batch={"x": groups[order].ravel()})
    again = parameters_of(result_of(wrapped, permuted).gradient, problem.params)
    assert_trees_close(again, result, 1e-12)


# --- norms and scales -----------------------------------------------------------------------------


@few
@given(problem=problems_of(dtypes=("float64",)), p=st.floats(1.05, 20.0), seed=SEED)
def test_the_ascent_in_a_p_norm_reaches_the_dual_norm(problem, p, seed):
    """Hoelder: the largest slope over ||epsilon||_p <= rho is rho ||g||_q with 1/p + 1/q = 1."""
    result = result_of(METHODS[0], problem, optim.sam(problem.rho, norm_order=p))
    slope = problem.grad_fn(problem.params)
    g, epsilon = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(parameters_of(t, problem.params))])
        for t in (slope, result.epsilon)
    )
    dual = np.linalg.norm(g, p / (p - 1))
    np.testing.assert_allclose(g @ epsilon, problem.rho * dual, rtol=1e-10)
    other = np.random.default_rng(seed).normal(size=g.size)
    other *= problem.rho / np.linalg.norm(other, p)
    assert g @ other <= g @ epsilon * (1 + 1e-10)


@few
@given(st.lists(st.integers(-6, 6), min_size=2, max_size=2), SEED, st.sampled_from([2.0, 3.0]))
def test_asam_does_not_see_how_layers_share_their_scale(powers, seed, norm_order):
    """Layers whose product is the network: its loss, ascended to, is the same in any scale."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(5, 3)), random.normal(size=5)

    def loss(w):
        return jnp.mean((x @ w["a"] * w["b"] * w["c"] - y) ** 2)

    first, second = (2.0**k for k in powers)
    params = {"a": jnp.asarray(random.normal(size=3)), "b": jnp.array(1.5), "c": jnp.array(-0.5)}
    scaled = {
        "a": first * params["a"], "b": second * params["b"], "c": params["c"] / first / second,
    }  # fmt: skip

    def perturbed(method, w):
        tx = method(0.25)
        grad_fn = jax.grad(loss)
        result, _ = tx.gradient(lambda w: (grad_fn(w), loss(w)), w, tx.init(w))
        return float(result.perturbed_aux)

    def asam(rho):
        return optim.asam(rho, eta=0.0, norm_order=norm_order)

    np.testing.assert_allclose(perturbed(asam, scaled), perturbed(asam, params), rtol=1e-10)
    if sum(map(abs, powers)) > 3:  # SAM does
        assert abs(perturbed(optim.sam, scaled) / perturbed(optim.sam, params) - 1) > 1e-4


# --- averages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["swa", "weight_ema"])
@few
@given(problem=problems_of())
def test_an_average_of_equal_parameters_is_they(name, problem):
    (case,) = (case for case in CASES if case.name == name)
    tx, params = case.make(None), problem.params
    state = tx.init(params)
    zeros = jax.tree.map(lambda w: w * 0 if pytree.is_parameter(w) else None, params)
    for _ in range(3):
        _, state = update_at(tx, zeros, state, params)
    averaged = optim.averaged_params(state, params)
    assert_trees_close(parameters_of(averaged, params), parameters_of(params, params), 1e-6)
    assert dtypes_of(parameters_of(averaged, params)) == dtypes_of(parameters_of(params, params))


def update_at(tx, updates, state, params):
    return tx.update(updates, state, params)
