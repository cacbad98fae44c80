"""m-SAM: sub-batches, strategies, devices, the limit of small rho, and auxiliary outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from contract_table import (
    METHODS,
    assert_trees_close,
    assert_trees_equal,
    in_m_sam,
    over_methods,
    trees_close,
    update,
)
from jax.sharding import Mesh, PartitionSpec

from sam_jax import optim

RHO = 0.3
EXAMPLES = 32


def sub_batch(batch, m, index):
    return jax.tree.map(lambda x: x[index * m : (index + 1) * m], batch)


def python_loop(method, m, problem):
    """The mean over sub-batches, each with the perturbation of the inner method."""
    tx = method.make(RHO)
    count = problem.batch["x"].shape[0] // m
    gradients = []
    for index in range(count):
        batch = sub_batch(problem.batch, m, index)

        def grad_fn(params, batch=batch):
            return problem.grad_fn(params, batch)

        gradient, _ = tx.update(
            grad_fn(problem.params),
            tx.init(problem.params),
            problem.params,
            grad_fn=grad_fn,
            sub_batch=index,
        )
        gradients.append(gradient)
    return jax.tree.map(lambda *leaves: sum(leaves) / count, *gradients)


@over_methods
def test_m_equal_to_the_batch_is_the_inner_method(case):
    problem = problems.tanh_net()
    for strategy in ("vmap", "scan"):
        tx = in_m_sam(case, m=8, strategy=strategy).make(RHO)
        assert_trees_equal(update(tx, problem)[0], update(case.make(RHO), problem)[0])


@pytest.mark.parametrize("m, strategy", [(1, "vmap"), (1, "scan"), (4, "scan")])
@over_methods
def test_sub_batches_equal_a_python_loop(case, m, strategy):
    problem = problems.tanh_net()
    tx = in_m_sam(case, m=m, strategy=strategy).make(RHO)
    result, state = jax.jit(lambda state: update(tx, problem, state))(tx.init(problem.params))
    assert_trees_close(result, python_loop(case, m, problem))
    assert not trees_close(result, update(case.make(RHO), problem)[0], 1e-3)  # m matters
    assert int(state.count) == 1


def on_devices(tx, problem, kind):
    """Run one update with the batch split over eight devices."""

    def step(params, state, shard):
        return tx.update(
            problem.grad_fn(params, shard),
            state,
            params,
            grad_fn=problem.grad_fn,
            batch=shard,
        )

    state = tx.init(problem.params)
    if kind == "pmap":
        shards = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), problem.batch)
        results = jax.pmap(step, axis_name="devices", in_axes=(None, None, 0))(
            problem.params, state, shards
        )
        first, last = (jax.tree.map(lambda x, i=i: x[i], results) for i in (0, 7))
        assert_trees_equal(first, last)
        return last
    replicated = PartitionSpec()
    step = jax.shard_map(
        step,
        mesh=Mesh(np.array(jax.devices()[:8]), ("devices",)),
        in_specs=(replicated, replicated, PartitionSpec("devices")),
        out_specs=replicated,
        check_vma=kind == "shard_map",
    )
    return jax.jit(step)(problem.params, state, problem.batch)


# Each device holds 4 examples: m = 2 splits the shard, 4 is the shard, 16 are groups of four
# devices, 32 is the global batch. Two methods: one follows the gradient, one draws.
FOLLOWS, DRAWS = METHODS[0], METHODS[3]


@pytest.mark.parametrize("kind", ["pmap", "shard_map", "shard_map_unchecked"])
@pytest.mark.parametrize(
    "case, m, strategy",
    [
        (FOLLOWS, 2, "vmap"),
        (FOLLOWS, 2, "scan"),
        (FOLLOWS, 4, "vmap"),
        (FOLLOWS, 16, "vmap"),
        (FOLLOWS, 32, "vmap"),
        (DRAWS, 2, "scan"),
        (DRAWS, 16, "vmap"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_devices_give_the_numbers_of_one_device(case, m, strategy, kind):
    problem = problems.least_squares(examples=EXAMPLES)
    tx = optim.m_sam(case.make(RHO), m, strategy, axis_name="devices")
    if kind == "shard_map" and m == 16:
        with pytest.raises(ValueError, match="groups of 4 of the 8 devices.*check_vma=False"):
            on_devices(tx, problem, kind)
        return
    result, state = on_devices(tx, problem, kind)
    assert_trees_close(result, update(in_m_sam(case, m=m).make(RHO), problem)[0])
    assert int(state.count) == 1


def test_an_m_that_fits_no_group_of_devices_is_refused():
    problem = problems.least_squares(examples=EXAMPLES)
    for m in (3, 12, 64):
        tx = optim.m_sam(optim.sam(RHO), m, axis_name="devices")
        with pytest.raises(ValueError, match="4 times a divisor of 8"):
            on_devices(tx, problem, "shard_map")


@pytest.mark.parametrize("m", [2, 8])
def test_slope_in_rho_is_the_mean_hessian_gradient_product(m):
    # d/drho at 0 of mean_i grad L_i(w + rho g_i / |g_i|) = mean_i H_i g_i / |g_i|.
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        slopes = []

        @jax.jit
        def hessian_times_direction(params, batch):
            def grad_fn(params):
                return problem.grad_fn(params, batch)

            g = grad_fn(params)
            length = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))
            return jax.jvp(grad_fn, (params,), (jax.tree.map(lambda x: x / length, g),))[1]

        for index in range(8 // m):
            batch = sub_batch(problem.batch, m, index)
            slopes.append(hessian_times_direction(problem.params, batch))
        wanted = jax.tree.map(lambda *s: sum(s) / len(s), *slopes)
        rho = 1e-6
        tx = optim.m_sam(optim.sam(rho), m)
        clean = problem.grad_fn(problem.params)
        slope = jax.tree.map(
            lambda a, b: (a - b) / rho, jax.jit(lambda: update(tx, problem)[0])(), clean
        )
        # Forward difference: rho times third derivatives, plus 1e-16 / rho of rounding.
        assert_trees_close(slope, wanted, 1e-4)
        assert not trees_close(jax.tree.map(jnp.negative, slope), wanted, 1e-1)


def aux_grad_fn_of(problem, calls):
    def loss_and_statistics(params, batch):
        statistics = {
            "mean_x": jnp.mean(batch["x"]),
            "kernel": params["first"]["kernel"],
            "positive": jnp.sum(batch["x"] > 0),
        }
        return problem.loss_fn(params, batch), statistics

    def aux_grad_fn(params, batch):
        calls.append(None)
        (loss, statistics), gradient = jax.value_and_grad(loss_and_statistics, has_aux=True)(
            params, batch
        )
        return gradient, {"loss": loss, **statistics}

    return aux_grad_fn


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
@over_methods
def test_auxiliary_outputs_of_each_pass_are_averaged(case, strategy):
    problem, m = problems.tanh_net(), 2
    tx = in_m_sam(case, m=m, strategy=strategy).make(RHO)
    result, state = tx.gradient(
        aux_grad_fn_of(problem, []), problem.params, tx.init(problem.params), batch=problem.batch
    )
    assert_trees_close(result.gradient, update(tx, problem)[0])
    assert int(state.count) == 1

    whole = problem.loss_fn(problem.params, problem.batch)
    x, kernel = problem.batch["x"], problem.params["first"]["kernel"]
    passes = [result.perturbed_aux]
    if case.follows_gradient:
        passes.append(result.clean_aux)
        np.testing.assert_allclose(result.clean_aux["loss"], whole, rtol=1e-6)
        np.testing.assert_allclose(result.clean_aux["kernel"], kernel, rtol=1e-6)
    else:
        assert result.clean_aux is None
    for aux in passes:
        np.testing.assert_allclose(aux["mean_x"], jnp.mean(x), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(aux["positive"], jnp.sum(x > 0) / (8 // m))
    assert abs(result.perturbed_aux["loss"] - whole) > 1e-2
    assert not np.allclose(result.perturbed_aux["kernel"], kernel, atol=1e-3)


@over_methods
def test_perturbed_aux_comes_from_the_perturbed_point(case):
    problem = problems.tanh_net()
    tx = case.make(RHO)

    def grad_fn(params):
        return problem.grad_fn(params), params

    result, _ = tx.gradient(grad_fn, problem.params, tx.init(problem.params))
    assert_trees_equal(problem.grad_fn(result.perturbed_aux), result.gradient)
    if case.follows_gradient:
        assert_trees_equal(result.clean_aux, problem.params)


@pytest.mark.parametrize("inside_m_sam", [False, True])
@over_methods
def test_a_pass_that_a_method_does_not_need_is_not_made(case, inside_m_sam):
    problem, calls = problems.tanh_net(), []
    aux_grad_fn = aux_grad_fn_of(problem, calls)
    tx = in_m_sam(case).make(RHO) if inside_m_sam else case.make(RHO)
    grad_fn = aux_grad_fn if inside_m_sam else lambda params: aux_grad_fn(params, problem.batch)
    tx.gradient(grad_fn, problem.params, tx.init(problem.params), batch=problem.batch)
    assert len(calls) == case.cost  # vmap calls its function once for all sub-batches


@over_methods
def test_a_clean_pass_that_the_caller_made_is_used(case):
    problem, calls = problems.tanh_net(), []
    aux_grad_fn = aux_grad_fn_of(problem, calls)
    tx = case.make(RHO)
    clean = aux_grad_fn(problem.params, problem.batch)
    result, _ = tx.gradient(
        lambda params: aux_grad_fn(params, problem.batch),
        problem.params,
        tx.init(problem.params),
        clean=clean,
    )
    assert len(calls) == 2
    assert result.clean_aux is clean[1]
    assert_trees_close(result.gradient, update(tx, problem)[0])


def test_scan_needs_less_memory_than_vmap():
    problem = problems.wide_net(width=32, examples=512, inputs=32)

    def temporary_bytes(strategy):
        tx = optim.m_sam(optim.sam(RHO), m=16, strategy=strategy)
        step = jax.jit(lambda params, state: update(tx, problem, state, params)[0])
        compiled = step.lower(problem.params, tx.init(problem.params)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # 32 sub-batches: vmap holds perturbed weights and activations of all, scan those of one.
    assert temporary_bytes("scan") < temporary_bytes("vmap") / 4
