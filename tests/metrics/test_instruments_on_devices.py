"""Every instrument over several devices: the numbers of one, laid out as the parameters are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instrument_runs import assert_close, measured, over, plain_result
from instrument_table import BATCHES, NET, ON_THE_HOST, TABLE, Problem
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax import metrics
from sam_jax.metrics.over_devices import map_rows, sum_rows

pytestmark = pytest.mark.devices

SPLIT = {"bias": P("data"), "kernel": P("data", None), "scale": P()}
PLACES = {"batch": (False, True), "parameters": (True, False), "both": (True, True)}


def on_mesh(mesh, place):
    def put(tree, specs):
        return jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), tree, specs)

    split_parameters, split_batch = PLACES[place]
    everywhere = {name: P() for name in (*NET, *BATCHES)}
    examples = {name: P(None, "data") for name in BATCHES}
    params = put(NET, SPLIT if split_parameters else {name: everywhere[name] for name in NET})
    batches = put(BATCHES, examples if split_batch else {name: P() for name in BATCHES})
    return Problem(params, batches)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=lambda kind: kind.name)
@over()
def test_arrays_that_are_split_over_devices_give_the_numbers_of_one(row, kind, place):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    problem = on_mesh(mesh, place)
    with jax.set_mesh(mesh):
        result = measured(row, problem, jit=row.function not in ON_THE_HOST)
    assert_close(result, measured(row, Problem(), jit=row.function not in ON_THE_HOST))


@over([row for row in TABLE if row.function not in ON_THE_HOST])
def test_explicit_axes_need_neither_jit_nor_a_mesh_in_the_context(row):
    problem = on_mesh(jax.make_mesh((4,), ("data",)), "both")
    assert_close(row.call(problem), row.call(Problem()))


@over([row for row in TABLE if row.function.endswith(("directions", "direction", "product"))])
def test_directions_lie_where_the_parameters_lie(row):
    mesh = jax.make_mesh((4,), ("data",))
    problem = on_mesh(mesh, "parameters")
    with jax.set_mesh(mesh):
        result = measured(row, problem, jit=True)
    assert "data" in result["kernel"].sharding.spec and "data" in result["bias"].sharding.spec


def test_eigenvectors_lie_where_the_parameters_lie():
    mesh = jax.make_mesh((4,), ("data",))
    problem = on_mesh(mesh, "parameters")
    (row,) = [row for row in TABLE if row.function == "hessian_eigenvalues"]
    with jax.set_mesh(mesh):
        result = measured(row, problem, jit=True)
    assert result.top_vectors["kernel"].sharding.spec == P(None, "data", None)


@over([row for row in TABLE if row.takes_mask])
def test_batches_may_be_split_along_their_number(row):
    mesh = jax.make_mesh((4,), ("data",))
    batches = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P("data"))), BATCHES)
    with jax.set_mesh(mesh):
        result = measured(row, Problem(jax.tree.map(jnp.asarray, NET), batches), jit=True)
    assert_close(result, measured(row, Problem(), jit=True))


def test_examples_that_are_split_can_be_cut_into_batches():
    mesh = jax.make_mesh((4,), ("data",))
    examples = jax.device_put(jnp.arange(16), NamedSharding(mesh, P("data")))
    for cut in (metrics.split_batches, jax.jit(metrics.split_batches, static_argnums=1)):
        np.testing.assert_array_equal(cut(examples, 2), np.arange(16).reshape(8, 2))


MESHES = {
    "make_mesh": lambda: jax.make_mesh((4,), ("data",)),
    "Auto": lambda: jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,)),
    "both kinds": lambda: jax.make_mesh(
        (2, 2), ("data", "model"), axis_types=(AxisType.Explicit, AxisType.Auto)
    ),
}


@pytest.mark.parametrize("in_context", [False, True])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", MESHES)
@over([row for row in TABLE if row.function in ("loss_line", "loss_plane")])
def test_points_are_shared_out_over_any_mesh(row, name, split, jit, in_context):
    mesh = MESHES[name]()
    params = jax.tree.map(jnp.asarray, NET)
    if split:
        params = jax.tree.map(
            lambda w, spec: jax.device_put(w, NamedSharding(mesh, spec)), params, SPLIT
        )
    call = lambda params: row.call(Problem(params, BATCHES, mesh=mesh))  # noqa: E731
    with jax.set_mesh(mesh if in_context else jax.sharding.get_mesh()):
        result = jax.jit(call)(params) if jit else call(params)
    assert_close(result, row.call(Problem()))


def test_a_loss_that_closes_over_explicit_axes_is_refused_where_points_are_shared_out():
    mesh = jax.make_mesh((4,), ("data",))
    problem = on_mesh(mesh, "both")
    problem = dataclasses.replace(problem, mesh=mesh)
    (row,) = [row for row in TABLE if row.function == "loss_line"]
    with pytest.raises(ValueError, match="must not close over arrays .* Leave out mesh"):
        row.call(problem)


# --- the work shared out over a mesh --------------------------------------------------------------

SHARED = list({row.function: row for row in TABLE if row.takes_mesh}.values())  # one a function


def devices_mesh(count):
    return jax.sharding.Mesh(jax.devices()[:count], ("devices",))


def evaluations(jaxpr):
    """Return how many entries of tanh a device computes: the evaluations of the net, as traced."""
    found = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "tanh":
            found += equation.outvars[0].aval.size
        inner = [x for x in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        found += times * sum(evaluations(getattr(x, "jaxpr", x)) for x in inner if is_jaxpr(x))
    return found


def is_jaxpr(x):
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")


def work(row, mesh):
    def call(params, batches):
        return row.call(Problem(params, batches, mesh=mesh))

    problem = Problem()
    return evaluations(jax.make_jaxpr(call)(problem.params, problem.batches).jaxpr)


@over(SHARED)
def test_eight_devices_give_the_numbers_of_one(row):
    problem = Problem(mesh=devices_mesh(8))
    assert_close(measured(row, problem, jit=True), plain_result(row))


@over(SHARED)
def test_the_work_is_shared_out(row):
    """The fewest rows are three points, of which a device of eight takes one."""
    alone, shared = (work(row, devices_mesh(count)) for count in (1, 8))
    assert work(row, None) == alone > 0  # negative control
    assert shared <= alone / 2
    if row.function not in ("loss_plane", "hessian_eigenvalues"):
        assert shared < work(row, devices_mesh(2))


def test_every_instrument_that_evaluates_a_loss_shares_it_out():
    alone = {"gradient_direction"}  # one gradient
    evaluating = {
        row.function for row in TABLE if row.function not in ON_THE_HOST if work(row, None)
    }
    assert evaluating == {row.function for row in SHARED} | alone


@pytest.mark.parametrize("spec", [P(), P("data"), P("data", "model")])
def test_what_a_loss_closes_over_may_lie_on_other_axes_of_the_same_devices(spec):
    """As parameters that a training has split do, and its data, which lie whole on every device."""
    training = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    kernel = jax.device_put(NET["kernel"], NamedSharding(training, spec))
    rows = jnp.arange(5)

    @jax.jit
    def squares(kernel):
        square = lambda row: jnp.sum(kernel[row] ** 2)  # noqa: E731
        total = sum_rows(square, rows, jnp.ones(5), jnp.zeros(()), devices_mesh(8))
        return map_rows(square, rows, devices_mesh(8)), total

    each, total = squares(kernel)
    wanted = np.sum(NET["kernel"][:5] ** 2, axis=1)
    np.testing.assert_allclose(each, wanted, rtol=1e-6)
    np.testing.assert_allclose(total, wanted.sum(), rtol=1e-6)
