"""Every rule of the leaves of the parameters, their dtypes and the mask, over the whole table."""

import jax
import jax.numpy as jnp
import problems
import pytest
from contract_runs import (
    RHO,
    all_finite,
    assert_trees_equal,
    measured,
    moved,
    perturbed_and_length,
    state_at,
    update,
)
from contract_table import METHODS, in_m_sam, over
from test_contract import constant_gradient

DTYPES = ["float64", "float32", "bfloat16", "float16"]


@pytest.mark.parametrize("dtype", [*DTYPES, "mixed"])
@over()
def test_parameter_dtypes_are_kept(case, dtype):
    with jax.enable_x64(True):
        problem = problems.dense_net(dtype=jnp.float64)
        leaves, structure = jax.tree.flatten(problem.params)
        dtypes = DTYPES if dtype == "mixed" else [dtype] * 4
        params = structure.unflatten(x.astype(d) for x, d in zip(leaves, dtypes, strict=True))
        seen = []

        def grad_fn(params, batch=None, term=None):
            seen.append([leaf.dtype.name for leaf in jax.tree.leaves(params)])
            return problem.grad_fn(params, batch, term)

        tx = case.make(jnp.float64(RHO))
        before = jax.eval_shape(tx.init, params)
        result, state = jax.eval_shape(
            lambda params, state: update(tx, problem, state, params, grad_fn=grad_fn),
            params,
            before,
        )
        assert bool(seen) == case.evaluates and all(names == dtypes for names in seen)
        assert [leaf.dtype.name for leaf in jax.tree.leaves(result)] == dtypes
        assert state == before


@jax.disable_jit()
@over("a mask")
def test_selection_never_leaks_nan(case):
    mask = {"Dense_0": False, "LayerNorm_0": True}
    params = problems.dense_net().params
    gradient = jax.tree.map(jnp.ones_like, params)
    gradient["Dense_0"] = jax.tree.map(lambda g: g * jnp.nan, gradient["Dense_0"])
    params["Dense_0"]["kernel"] = jnp.full((4, 2), -jnp.inf)  # a switched-off weight

    def epsilon(perturbed):
        return jax.tree.map(lambda p, w: jnp.where(p == w, 0, p - w), perturbed, params)

    problem, tx = constant_gradient(params, gradient), case.make(RHO, mask=mask)
    result = measured(tx, problem, state_at(tx, problem, case.perturbs), epsilon)
    assert_trees_equal(result["Dense_0"], jax.tree.map(jnp.zeros_like, params["Dense_0"]))
    assert all_finite(result)
    assert float(jnp.max(jnp.abs(result["LayerNorm_0"]["kernel"]))) > 1e-3


def kernels_only(params):
    return jax.tree.map(lambda w: w.ndim > 1, params)


MASKS = {
    "tree": (
        {name: {"kernel": True, "bias": False} for name in ("Dense_0", "LayerNorm_0")},
        kernels_only,
    ),
    "prefix": (
        {"Dense_0": True, "LayerNorm_0": False},
        lambda p: jax.tree.broadcast({"Dense_0": True, "LayerNorm_0": False}, p),
    ),
    "function": (kernels_only, kernels_only),
}


@jax.disable_jit()
@over("a mask")
def test_mask_perturbs_the_chosen_leaves_with_their_own_norm(case):
    problem = problems.dense_net()
    everything = moved(perturbed_and_length(case, RHO, problem, True)[0], problem.params)
    assert everything[1::2] == [True, True]  # awp leaves biases alone, esam may by chance
    for mask, chosen_of in MASKS.values():
        chosen = jax.tree.leaves(chosen_of(problem.params))
        points, length = perturbed_and_length(case, RHO, problem, mask)
        wanted = [e and c for e, c in zip(everything, chosen, strict=True)]
        assert moved(points, problem.params) == wanted
        # Leaves that stay have epsilon 0: the length over all is that over the chosen.
        assert length == pytest.approx(RHO, rel=3e-6)


@over("m_sam", METHODS)
def test_scan_over_sub_batches_keeps_the_dtypes(case):
    # eval_shape compares the types that the rounds of a scan hand on.
    problem = problems.dense_net()
    leaves, structure = jax.tree.flatten(problem.params)
    params = structure.unflatten(
        x.astype(d) for x, d in zip(leaves, ["float32", "bfloat16"] * 2, strict=True)
    )
    tx = in_m_sam(case, strategy="scan").make(RHO)
    result, _ = jax.eval_shape(
        lambda params, state: update(tx, problem, state, params), params, tx.init(params)
    )
    assert jax.tree.map(lambda x: x.dtype, result) == jax.tree.map(lambda x: x.dtype, params)
