"""Every transformation inside optax's wrappers and JAX's transforms, and what it costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_table import (
    KEY,
    assert_trees_close,
    assert_trees_equal,
    in_m_sam,
    over_cases,
    over_methods,
    trees_close,
    update,
)
from jax.sharding import Mesh, PartitionSpec

from sam_jax import optim

RHO = 0.3
DEVICES = 8


# --- optax -----------------------------------------------------------------------------------


def scale_by_value():
    """A link that needs the loss: optax's reduce-on-plateau and line searches do."""

    def update(updates, state, params=None, *, value, **extra_args):
        return jax.tree.map(lambda u: value * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


CHAINS = {
    "chain": optax.chain,
    "named_chain": lambda *links: optax.named_chain(
        *((f"link{i}", t) for i, t in enumerate(links))
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
@over_cases
def test_chains_pass_extra_arguments_through(case, chain):
    problem = problems.tanh_net()
    link = case.make(RHO)
    tx = CHAINS[chain](link, scale_by_value(), optax.sgd(0.5))
    result, _ = update(tx, problem, value=jnp.float32(3.0))
    wanted, _ = update(link, problem)
    assert_trees_close(result, jax.tree.map(lambda g: -1.5 * g, wanted))


def test_a_line_search_runs_behind_sam():
    problem = problems.tanh_net()
    tx = optax.chain(
        optim.sam(RHO), optax.scale_by_backtracking_linesearch(max_backtracking_steps=5)
    )

    def value_fn(params, grad_fn=None):  # optax hands it every extra argument
        return problem.loss_fn(params, problem.batch)

    grad = problem.grad_fn(problem.params)
    result, _ = tx.update(
        grad,
        tx.init(problem.params),
        problem.params,
        grad_fn=problem.grad_fn,
        value=value_fn(problem.params),
        grad=grad,
        value_fn=value_fn,
    )
    assert jax.tree.structure(result) == jax.tree.structure(problem.params)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(result))


@over_cases
def test_inject_hyperparams_reads_rho_from_the_state(case):
    problem = problems.tanh_net()
    tx = optax.inject_hyperparams(lambda rho: case.make(rho))(rho=0.1)
    state = tx.init(problem.params)
    assert_trees_close(update(tx, problem, state)[0], update(case.make(0.1), problem)[0])
    state.hyperparams["rho"] = jnp.float32(RHO)
    result, _ = update(tx, problem, state)
    assert_trees_close(result, update(case.make(RHO), problem)[0])
    assert not trees_close(result, update(case.make(0.1), problem)[0])


def kernels_only(params):
    return jax.tree.map(lambda w: w.ndim > 1, params)


# A mask that is a function would be taken for a schedule, and m must stay a Python int: both are
# static. A key, a norm order and eta may go into the state or be static.
INJECTED = {
    "norm_order": (optim.sam, {"norm_order": 3.0}, ()),
    "eta": (optim.asam, {"eta": 0.1}, ()),
    "key": (optim.average_sam, {"key": jax.random.key(KEY)}, ()),
    "static key": (optim.average_sam, {"key": jax.random.key(KEY)}, ("key",)),
    "mask function": (optim.sam, {"mask": kernels_only}, ("mask",)),
    "mask tree": (optim.sam, {"mask": {"first": True, "second": False}}, ()),
    "m": (lambda rho, m: optim.m_sam(optim.sam(rho), m), {"m": 2}, ("m",)),
}


@pytest.mark.parametrize("name", INJECTED)
def test_inject_hyperparams_of_the_other_arguments(name):
    constructor, arguments, static = INJECTED[name]
    problem = problems.tanh_net()
    tx = optax.inject_hyperparams(constructor, static_args=static)(rho=RHO, **arguments)
    state = tx.init(problem.params)
    for argument in static:
        assert argument not in state.hyperparams
    step = jax.jit(lambda state: update(tx, problem, state)[0])
    assert_trees_close(step(state), update(constructor(RHO, **arguments), problem)[0])


@over_cases
def test_multi_steps_gives_grad_fn_the_last_micro_batch_only(case):
    # optax.MultiSteps averages the incoming gradients, but the second pass is the last call's.
    problem = problems.tanh_net()
    halves = [jax.tree.map(lambda x, s=s: x[s], problem.batch) for s in (slice(4), slice(4, 8))]
    inner = case.make(RHO)
    tx = optax.MultiSteps(inner, every_k_schedule=2)
    state = tx.init(problem.params)
    clean = [problem.grad_fn(problem.params, half) for half in halves]

    def call(tx, state, gradient, half):
        def grad_fn(params, batch=None):
            return problem.grad_fn(params, half if batch is None else batch)

        return tx.update(gradient, state, problem.params, grad_fn=grad_fn, batch=half)

    step = jax.jit(lambda *arguments: call(tx, *arguments))
    first, state = step(state, clean[0], halves[0])
    result, _ = step(state, clean[1], halves[1])
    assert_trees_equal(first, jax.tree.map(jnp.zeros_like, first))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *clean)
    assert_trees_close(result, call(inner, inner.init(problem.params), mean, halves[1])[0])
    assert not trees_close(result, update(inner, problem)[0], 1e-3)  # not of the whole batch


# --- JAX -------------------------------------------------------------------------------------


def mesh():
    return Mesh(np.array(jax.devices()[:DEVICES]), ("devices",))


def one_a_device(function, check_vma):
    """Run function on slices of its arguments, one on each device."""
    split = PartitionSpec("devices")

    def local(*arguments):
        result = function(*jax.tree.map(lambda x: x[0], arguments))
        return jax.tree.map(lambda x: x[None], result)

    return jax.jit(
        jax.shard_map(local, mesh=mesh(), in_specs=split, out_specs=split, check_vma=check_vma)
    )


MAPS = {
    "vmap": lambda f: jax.jit(jax.vmap(f)),
    "pmap": jax.pmap,
    "shard_map": functools.partial(one_a_device, check_vma=True),
    "shard_map_unchecked": functools.partial(one_a_device, check_vma=False),
}


@functools.cache
def eight_updates(case):
    """Eight parameters, and the gradients at each from a plain Python loop."""
    problem = problems.least_squares()
    points = [jax.tree.map(lambda w, i=i: w + 0.1 * i, problem.params) for i in range(DEVICES)]
    tx = case.make(RHO)
    results = [update(tx, problem, params=params)[0] for params in points]
    stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
    return stack(*points), stack(*results)


@pytest.mark.parametrize("name", MAPS)
@over_cases
def test_maps_over_a_batch_of_parameters(case, name):
    params, wanted = eight_updates(case)
    problem, tx = problems.least_squares(), case.make(RHO)
    states = jax.vmap(tx.init)(params)
    step = MAPS[name](lambda params, state: update(tx, problem, state, params))
    result, states = step(params, states)
    assert_trees_close(result, wanted)
    assert states.count.tolist() == [1] * DEVICES


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


@pytest.mark.parametrize("kind", ["pmap", "shard_map", "shard_map_unchecked"])
@over_methods
def test_data_parallel_gradients_give_the_method_of_the_whole_batch(case, kind):
    problem, tx = problems.least_squares(examples=16), case.make(RHO)

    def step(params, state, shard):
        def mean_loss(params):
            return jax.lax.pmean(problem.loss_fn(params, shard), "devices")

        def grad_fn(params, batch=None):
            if kind == "shard_map":  # knows that params are replicated and sums by itself
                return jax.grad(mean_loss)(params)
            return jax.lax.pmean(problem.grad_fn(params, shard), "devices")

        return tx.update(grad_fn(params), state, params, grad_fn=grad_fn)

    result, _ = data_parallel(step, kind)(problem.params, tx.init(problem.params), problem.batch)
    assert_trees_close(result, update(tx, problem)[0])


# --- cost ------------------------------------------------------------------------------------


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("m", [None, 2048])
@over_methods
def test_jitted_cost_in_floating_point_operations(case, m):
    # Nothing runs, so the batch can be large: matrix products of 4096 examples dwarf what is
    # elementwise in the parameters (norms, random numbers: about 350 operations an entry for each
    # of 2 sub-batches, 3 % of a gradient), and the tolerance is far below one more gradient.
    problem = problems.wide_net()
    case = case if m is None else in_m_sam(case, m=m)
    tx = case.make(RHO)
    gradient = flops(problem.grad_fn, problem.params)
    step = flops(
        lambda params, state: update(tx, problem, state, params),
        problem.params,
        tx.init(problem.params),
    )
    assert step / gradient == pytest.approx(case.cost, rel=0.04)
