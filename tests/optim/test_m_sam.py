"""m-SAM: sub-batches, strategies, devices, the limit of small rho, and auxiliary outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from contract_runs import (
    RHO,
    arguments,
    assert_trees_close,
    assert_trees_equal,
    counts,
    other_batch,
    perturbing_update,
    start,
    state_at,
    trees_close,
    update,
)
from contract_table import KINDS, METHODS, in_m_sam, named, over
from jax.sharding import Mesh, PartitionSpec

from sam_jax import optim

EXAMPLES = 32


def sub_batch(problem, m, index):
    """Return the problem on the examples of one sub-batch."""
    batch = jax.tree.map(lambda x: x[index * m : (index + 1) * m], problem.batch)
    return problem._replace(batch=batch)


def python_loop(tx, m, problem, state):
    """The mean over sub-batches, each with the perturbation of the inner method."""
    count = len(problem.batch["x"]) // m
    gradients = [
        update(tx, sub_batch(problem, m, index), state, sub_batch=index)[0]
        for index in range(count)
    ]
    return jax.tree.map(lambda *leaves: sum(leaves) / count, *gradients)


@jax.disable_jit()
@over("passes", METHODS)
def test_m_equal_to_the_batch_is_the_inner_method(case):
    problem = problems.dense_net()
    wanted = perturbing_update(case, RHO, problem)
    strategy = "scan" if case.needs_clean else "vmap"  # one sub-batch is neither
    whole = in_m_sam(case, m=8, strategy=strategy)
    assert_trees_equal(perturbing_update(whole, RHO, problem), wanted)


def assert_equals_a_python_loop(case, m, strategy):
    """The loop runs eagerly, what equals it as one program."""
    problem, tx = problems.dense_net(), in_m_sam(case, m, strategy).make(RHO)
    step = jax.jit(lambda state, batch: update(tx, problem._replace(batch=batch), state))
    state = tx.init(start(problem))
    for _ in range(case.perturbs):
        _, state = step(state, other_batch(problem.batch))
    result, new_state = step(state, problem.batch)
    with jax.disable_jit():
        wanted = python_loop(case.make(RHO), m, problem, state)
        whole = perturbing_update(case, RHO, problem)
    assert_trees_close(result, wanted)
    # The term of mesa is a mean over examples, like the loss: m changes nothing.
    assert trees_close(result, whole, 1e-3) == (case.name == "mesa")
    assert set(counts(new_state)) == {case.perturbs + 1}


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
@over("m_sam", METHODS)
def test_sub_batches_equal_a_python_loop(case, strategy):
    assert_equals_a_python_loop(case, 4, strategy)


@pytest.mark.parametrize("m, strategy", [(1, "vmap"), (2, "scan")])
@over(cases=KINDS)
def test_more_sub_batches_equal_a_python_loop(case, m, strategy):
    assert_equals_a_python_loop(case, m, strategy)


@jax.disable_jit()
@pytest.mark.parametrize("strategy", ["vmap", "scan"])
@over(cases=KINDS)
def test_sub_batches_run_outside_jit(case, strategy):
    problem, tx = problems.dense_net(), in_m_sam(case, 4, strategy).make(RHO)
    state = state_at(tx, problem, case.perturbs)
    result, _ = update(tx, problem, state)
    assert_trees_close(result, python_loop(case.make(RHO), 4, problem, state))


@over("refused by m_sam", METHODS)
def test_a_method_with_a_memory_takes_one_sub_batch_only(case):
    problem = problems.dense_net()
    reason = f"(?s)keeps .*{case.memory}.* from step to step.*m makes 4 sub-batches.*Choose m equal"
    for strategy in ("vmap", "scan"):
        with pytest.raises(ValueError, match=reason):
            update(in_m_sam(case, 2, strategy).make(RHO), problem)


def on_devices(tx, problem, kind):
    """Run one update with the batch split over eight devices."""

    def step(params, state, shard):
        return update(tx, problem._replace(batch=shard), state, params)

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
# devices, 32 is the global batch, which a method with a memory (vasso) needs.
SPLITS = [
    ("sam", 2, "vmap"),
    ("sam", 2, "scan"),
    ("sam", 4, "vmap"),
    ("sam", 16, "vmap"),
    ("sam", 32, "vmap"),
    ("average_sam", 2, "scan"),
    ("average_sam", 16, "vmap"),
    ("interval_sam", 2, "vmap"),
    ("esam", 2, "vmap"),
    ("vasso", 32, "vmap"),
]
# Groups of devices are what the check of shard_map has an influence on.
RUNS = [(*split, kind) for split in SPLITS for kind in ("pmap", "shard_map")]
RUNS += [(*split, "shard_map_unchecked") for split in SPLITS if split[1] >= 16]


@pytest.mark.devices
@pytest.mark.parametrize("name, m, strategy, kind", RUNS)
def test_devices_give_the_numbers_of_one_device(name, m, strategy, kind):
    (case,) = named(name)
    problem = problems.exact_net(EXAMPLES)
    tx = optim.m_sam(case.make(RHO), m, strategy, axis_name="devices")
    if kind == "shard_map" and m == 16:
        with pytest.raises(ValueError, match="groups of 4 of the 8 devices.*check_vma=False"):
            on_devices(tx, problem, kind)
        return
    result, state = on_devices(tx, problem, kind)
    assert_trees_close(result, update(in_m_sam(case, m=m).make(RHO), problem)[0])
    assert set(counts(state)) == {1}


@pytest.mark.devices
def test_an_m_that_fits_no_group_of_devices_is_refused():
    problem = problems.exact_net(EXAMPLES)
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
            batch = sub_batch(problem, m, index).batch
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


def aux_grad_fn_of(problem):
    def loss_and_statistics(params, batch):
        statistics = {
            "mean_x": jnp.mean(batch["x"]),
            "kernel": params["Dense_0"]["kernel"],
            "positive": jnp.sum(batch["x"] > 0),
        }
        return problem.loss_fn(params, batch), statistics

    def aux_grad_fn(params, batch):
        (loss, statistics), gradient = jax.value_and_grad(loss_and_statistics, has_aux=True)(
            params, batch
        )
        return gradient, {"loss": loss, **statistics}

    return aux_grad_fn


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
@over(cases=named("sam", "average_sam", "interval_sam"))
def test_auxiliary_outputs_of_each_pass_are_combined(case, strategy):
    problem, m = problems.dense_net(), 2
    tx = in_m_sam(case, m=m, strategy=strategy).make(RHO)
    result, state = tx.gradient(
        aux_grad_fn_of(problem), problem.params, tx.init(problem.params), **arguments(problem)
    )
    assert_trees_close(result.gradient, update(tx, problem)[0])
    assert set(counts(state)) == {1}

    whole = problem.loss_fn(problem.params, problem.batch)
    x, kernel = problem.batch["x"], problem.params["Dense_0"]["kernel"]
    passes = [result.perturbed_aux]
    if case.needs_clean:
        passes.append(result.clean_aux)
        np.testing.assert_allclose(result.clean_aux["loss"], whole, rtol=1e-6)
        np.testing.assert_allclose(result.clean_aux["kernel"], kernel, rtol=1e-6)
    else:
        assert result.clean_aux is None
    for aux in passes:
        np.testing.assert_allclose(aux["mean_x"], jnp.mean(x), rtol=1e-5, atol=1e-7)
        assert aux["positive"] == jnp.sum(x[-m:] > 0)  # an integer counts: the last one
    assert abs(result.perturbed_aux["loss"] - whole) > 1e-2
    assert not np.allclose(result.perturbed_aux["kernel"], kernel, atol=1e-3)


def test_scan_needs_less_memory_than_vmap():
    problem = problems.wide_net(width=32, examples=512, inputs=32)

    def temporary_bytes(strategy):
        tx = optim.m_sam(optim.sam(RHO), m=16, strategy=strategy)
        step = jax.jit(lambda params, state: update(tx, problem, state, params)[0])
        compiled = step.lower(problem.params, tx.init(problem.params)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # 32 sub-batches: vmap holds perturbed weights and activations of all, scan those of one.
    assert temporary_bytes("scan") < temporary_bytes("vmap") / 4
