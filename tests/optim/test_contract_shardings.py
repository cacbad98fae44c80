"""Every method on a mesh: the numbers of one device, and the shardings of what it was given."""

import functools

import jax
import numpy as np
import optax
import problems
import pytest
from contract_runs import RHO, arguments, assert_trees_close, state_at
from contract_table import METHODS, over
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

pytestmark = pytest.mark.devices

AXES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
SPLIT = {"batch": (P("data"), P()), "params": (P(), P("data")), "both": (P("data"), P("data"))}
ONE = problems.dense_net((4, 8, 2), examples=16)  # every leaf can be cut in two


def gathered(tree):
    return jax.tree.map(lambda w: jax.sharding.reshard(w, P()), tree)


def gathering(problem):
    """Return the problem with its parameters gathered where they are used, as FSDP does."""
    return problem._replace(
        loss_fn=lambda params, batch: problem.loss_fn(gathered(params), batch),
        logits_fn=lambda params, batch: problem.logits_fn(gathered(params), batch),
    )


def step_of(case, problem):
    tx = case.make(RHO)

    @jax.jit
    def step(params, state, batch):
        here = problem._replace(params=params, batch=batch)
        extra = {"grad_fn": here.grad_fn, **arguments(here)}
        result, state = tx.update(here.grad_fn(params), state, params, **extra)
        # With automatic axes the compiler lays out the gradient as it likes.
        return result, optax.apply_updates(params, result), state

    return step


@functools.cache
def start_and_result(name):
    """Return the state before the update that perturbs, and what it gives on one device."""
    (case,) = (case for case in METHODS if case.name == name)
    state = state_at(case.make(RHO), ONE, case.perturbs)
    return state, step_of(case, ONE)(ONE.params, state, ONE.batch)


def split_like(tree, mesh, spec):
    """Place what has the shape of a parameter by `spec`, and the rest on every device."""
    shapes = {w.shape for w in jax.tree.leaves(ONE.params)}

    def place(x):
        return jax.device_put(x, NamedSharding(mesh, spec if x.shape in shapes else P()))

    return jax.tree.map(place, tree)


def shardings(tree):
    """Return the axis that splits the leading dimension of every leaf, or None."""
    specs = (getattr(leaf.sharding, "spec", ()) for leaf in jax.tree.leaves(tree))
    return [spec[0] if spec else None for spec in specs]


@pytest.mark.parametrize("split", SPLIT)
@pytest.mark.parametrize("kind", AXES)
@over(cases=METHODS)
def test_a_mesh_gives_the_numbers_of_one_device_and_keeps_shardings(case, kind, split):
    state, (wanted, *_) = start_and_result(case.name)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AXES[kind],))
    batch_spec, params_spec = SPLIT[split]
    with jax.set_mesh(mesh):
        params, state = (split_like(tree, mesh, params_spec) for tree in (ONE.params, state))
        batch = jax.device_put(ONE.batch, NamedSharding(mesh, batch_spec))
        step = step_of(case, gathering(ONE) if kind == "explicit" else ONE)
        result, new_params, new_state = step(params, state, batch)
    assert_trees_close(*jax.tree.map(np.asarray, (result, wanted)), 2e-5)
    assert shardings(new_params if kind == "auto" else result) == shardings(params)
    assert shardings(new_state) == shardings(state)
    assert set(shardings(params)) == {params_spec[0] if params_spec else None}
