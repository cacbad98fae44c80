"""Every method inside optax's wrappers and JAX's transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import (
    RHO,
    arguments,
    assert_trees_close,
    assert_trees_equal,
    compiled,
    counts,
    perturbing_update,
    state_at,
    trees_close,
    update,
)
from contract_table import KEY, KINDS, METHODS, in_m_sam, named, over
from jax.sharding import Mesh, PartitionSpec

from sam_jax import optim

DEVICES = 8


# --- optax ------------------------------------------------------------------------------------


def scale_by_value():
    """A link that needs the loss: optax's reduce-on-plateau and line searches do."""

    def update(updates, state, params=None, *, value, **extra_args):
        return jax.tree.map(lambda u: value * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def named_chain(*links):
    return optax.named_chain(*((f"link{i}", link) for i, link in enumerate(links)))


def assert_extra_arguments_pass(case, chain):
    problem = problems.dense_net()
    link = case.make(RHO)
    tx = chain(link, scale_by_value(), optax.sgd(0.5))
    result, _ = update(tx, problem, value=jnp.float32(3.0))
    wanted, _ = update(link, problem)
    assert_trees_close(result, jax.tree.map(lambda g: -1.5 * g, wanted))


@jax.disable_jit()
@over()
def test_chains_pass_extra_arguments_through(case):
    assert_extra_arguments_pass(case, optax.chain)


@jax.disable_jit()
@over(cases=KINDS)
def test_named_chains_pass_extra_arguments_through(case):
    assert_extra_arguments_pass(case, named_chain)


def test_a_line_search_runs_behind_sam():
    problem = problems.dense_net()
    tx = optax.chain(
        optim.sam(RHO),
        optax.scale(-1.0),
        optax.scale_by_backtracking_linesearch(max_backtracking_steps=9),
    )

    def value_fn(params, grad_fn=None):  # optax hands it every extra argument
        return problem.loss_fn(params, problem.batch)

    gradient = problem.grad_fn(problem.params)
    result, _ = tx.update(
        gradient,
        tx.init(problem.params),
        problem.params,
        grad_fn=problem.grad_fn,
        value=value_fn(problem.params),
        grad=gradient,
        value_fn=value_fn,
    )
    after = value_fn(optax.apply_updates(problem.params, result))
    assert after < value_fn(problem.params)


@jax.disable_jit()
@over("a coefficient")
def test_inject_hyperparams_reads_the_coefficient_from_the_state(case):
    problem = problems.dense_net()
    tx = optax.inject_hyperparams(lambda rho: case.make(rho))(rho=0.125)
    state = state_at(tx, problem, case.perturbs)
    weak, strong = (perturbing_update(case, rho, problem) for rho in (0.125, RHO))
    # What a memory took in under another coefficient may differ in the last digits of float32.
    state.hyperparams["rho"] = jnp.float32(RHO)
    result, _ = update(tx, problem, state)
    assert_trees_close(result, strong, 1e-4)
    assert not trees_close(strong, weak, 1e-3)


def kernels_only(params):
    return jax.tree.map(lambda w: w.ndim > 1, params)


# A mask that is a function would be taken for a schedule, and m must stay a Python int: both are
# static. A key, a norm order and eta may go into the state or be static.
INJECTED = {
    "norm_order": (optim.sam, {"norm_order": 3.0}, ()),
    "eta": (optim.asam, {"eta": 0.1}, ()),
    "key": (optim.average_sam, {"key": KEY}, ()),
    "static key": (optim.average_sam, {"key": KEY}, ("key",)),
    "mask function": (optim.sam, {"mask": kernels_only}, ("mask",)),
    "mask tree": (optim.sam, {"mask": {"Dense_0": True, "LayerNorm_0": False}}, ()),
    "m": (lambda rho, m: optim.m_sam(optim.sam(rho), m), {"m": 2}, ("m",)),
    "k": (optim.looksam, {"k": 3}, ()),
    "probability": (optim.ss_sam, {"probability": 1.0}, ()),
    "gamma": (optim.esam, {"gamma": 0.5}, ("gamma",)),
}


@pytest.mark.parametrize("name", INJECTED)
def test_inject_hyperparams_of_the_other_arguments(name):
    constructor, given, static = INJECTED[name]
    problem = problems.dense_net()
    tx = optax.inject_hyperparams(constructor, static_args=static)(rho=RHO, **given)
    state = tx.init(problem.params)
    for argument in static:
        assert argument not in state.hyperparams
    step = jax.jit(lambda state: update(tx, problem, state)[0])
    with jax.disable_jit():
        wanted, _ = update(constructor(RHO, **given), problem)
    assert_trees_close(step(state), wanted)


@over(cases=[*named("sam", "interval_sam"), in_m_sam(*named("sam"))])
def test_multi_steps_gives_grad_fn_the_last_micro_batch_only(case):
    # optax.MultiSteps averages the incoming gradients, but the second pass is the last call's.
    problem = problems.dense_net()
    halves = [
        problem._replace(batch=jax.tree.map(lambda x, s=s: x[s], problem.batch))
        for s in (slice(4), slice(4, 8))
    ]
    inner = case.make(RHO)
    tx = optax.MultiSteps(inner, every_k_schedule=2)
    clean = [half.grad_fn(problem.params) for half in halves]
    first, state = jax.jit(lambda s: update(tx, halves[0], s))(tx.init(problem.params))
    result, _ = jax.jit(lambda s: update(tx, halves[1], s))(state)
    assert_trees_equal(first, jax.tree.map(jnp.zeros_like, first))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *clean)
    last = {"grad_fn": halves[1].grad_fn, "batch": halves[1].batch}
    wanted, _ = inner.update(mean, inner.init(problem.params), problem.params, **last)
    assert_trees_close(result, wanted)
    assert not trees_close(result, update(inner, problem)[0], 1e-3)  # not of the whole batch


# --- JAX --------------------------------------------------------------------------------------


def mesh():
    return Mesh(np.array(jax.devices()[:DEVICES]), ("devices",))


def one_a_device(function):
    """Run function on slices of its arguments, one on each device."""
    split = PartitionSpec("devices")

    def local(*arguments):
        result = function(*jax.tree.map(lambda x: x[0], arguments))
        return jax.tree.map(lambda x: x[None], result)

    return jax.jit(jax.shard_map(local, mesh=mesh(), in_specs=split, out_specs=split))


MAPS = {
    "vmap": lambda f: jax.jit(jax.vmap(f)),
    "pmap": jax.pmap,
    "shard_map": one_a_device,
}


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def maps_over_a_batch_of_parameters(case, name):
    """Eight parameters at once give the results of one after the other."""
    step, tx = compiled(case), case.make(RHO)
    problem, state = step.problem, step.state_at(RHO, case.perturbs)
    points = [jax.tree.map(lambda w, i=i: w + i / 8, problem.params) for i in range(DEVICES)]
    mapped = MAPS[name](lambda params, state: update(tx, problem, state, params))
    results, states = mapped(stacked(points), stacked([state] * DEVICES))
    for i, params in enumerate(points):
        wanted, _, new_state = step(RHO, state, params)
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], results), wanted)
        assert counts(jax.tree.map(lambda x, i=i: x[i], states)) == counts(new_state) != []


@over()
def test_vmap_over_parameters(case):
    maps_over_a_batch_of_parameters(case, "vmap")


@pytest.mark.devices
@pytest.mark.parametrize("name", ["pmap", "shard_map"])
@over(cases=named("average_sam", "interval_sam"))
def test_one_run_on_each_device(case, name):
    maps_over_a_batch_of_parameters(case, name)


def data_parallel(function, kind):
    """Run function(params, state, shard) with shards on eight devices; replicated result."""
    if kind == "pmap":
        mapped = jax.pmap(function, axis_name="devices", in_axes=(None, None, 0))

        def run(params, state, batch):
            shards = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), batch)
            return jax.tree.map(lambda x: x[0], mapped(params, state, shards))

        return run
    replicated, split = PartitionSpec(), PartitionSpec("devices")
    return jax.jit(
        jax.shard_map(
            function,
            mesh=mesh(),
            in_specs=(replicated, replicated, split),
            out_specs=replicated,
            check_vma=kind == "shard_map",
        )
    )


def gives_the_method_of_the_whole_batch(case, kind):
    step, tx = compiled(case), case.make(RHO)
    problem, state = step.problem, step.state_at(RHO, case.perturbs)

    def local_step(params, state, shard):
        local = problem._replace(batch=shard)

        def grad_fn(params, batch=None, term=None):
            if kind == "shard_map":  # knows that params are replicated and sums by itself
                gradient = local.grad_fn(params, batch, term)
                return jax.tree.map(lambda g: g / DEVICES, gradient)
            return jax.lax.pmean(local.grad_fn(params, batch, term), "devices")

        places = arguments(local, first=jax.lax.axis_index("devices"))
        places["grad_fn"] = grad_fn
        return tx.update(grad_fn(params), state, params, **places)[0]

    result = data_parallel(local_step, kind)(problem.params, state, problem.batch)
    assert_trees_close(result, step(RHO, state)[0])


@pytest.mark.devices
@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
@over("the whole batch", METHODS)
def test_data_parallel_gradients_give_the_method_of_the_whole_batch(case, kind):
    gives_the_method_of_the_whole_batch(case, kind)


@pytest.mark.devices
@over("the whole batch", KINDS)
def test_data_parallel_gradients_under_an_unchecked_shard_map(case):
    gives_the_method_of_the_whole_batch(case, "shard_map_unchecked")
