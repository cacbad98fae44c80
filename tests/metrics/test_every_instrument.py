"""What holds for every public function of the instruments, over the table of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instrument_table import (
    BATCHES,
    NET,
    ON_THE_HOST,
    TABLE,
    WITHOUT_PARAMS,
    Problem,
    public_functions,
)
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax import metrics, pytree

OTHERS = {
    "drop": jax.random.PRNGKey(123456789),  # raw key data, which float32 would round
    "key": jax.random.key(7),
    "ids": jnp.arange(8),
    "codes": jnp.full((2, 2), -128, jnp.int8),
    "words": jnp.arange(3, dtype=jnp.uint32),
    "flag": jnp.array(True),
    "count": 3,
    "nothing": None,
}
LEFT_OUT = {
    "odd": jnp.array([-0.0, 3.0, 1e-40, 2.0], jnp.float32),
    "complex": jnp.array([1 + 2j]),
    "half": jnp.array([1.1], jnp.bfloat16),
}


def over(rows=TABLE):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def bits(x):
    with jax.ensure_compile_time_eval():  # the key is known, also inside the loops of instruments
        x = jax.random.key_data(x) if pytree.is_key(x) else x
    return str(np.asarray(x).dtype), np.asarray(x).tobytes()


def all_bits(tree):
    return [bits(leaf) for leaf in jax.tree.leaves(tree)]


def assert_close(got, wanted, rtol=1e-4, atol=1e-5):
    assert len(jax.tree.leaves(got)) == len(jax.tree.leaves(wanted))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def test_every_public_function_is_in_the_table():
    in_table = {row.function for row in TABLE}
    assert in_table | set(WITHOUT_PARAMS) == public_functions()
    assert not in_table & set(WITHOUT_PARAMS)


# --- leaves -------------------------------------------------------------------------------------


class Noting(Problem):
    """A problem with further leaves, whose bits every evaluation of the loss notes."""

    def loss(self, params, batch):
        self.seen.append(all_bits(params["others"]))
        return super().loss(params, batch)


def with_others(others, **fields):
    problem = Noting(
        {"net": jax.tree.map(jnp.asarray, NET), "others": others}, net=lambda p: p["net"], **fields
    )
    object.__setattr__(problem, "seen", [])
    return problem


def split_result(result):
    """Return the leaves of a result that belong to the further leaves, and all others."""
    found = {True: [], False: []}
    for path, leaf in jax.tree.leaves_with_path(result):
        found["others" in jax.tree_util.keystr(path)].append(leaf)
    return found[True], found[False]


@over()
def test_leaves_that_are_no_parameters_stay_bit_for_bit_and_do_not_count(row):
    problem = with_others(OTHERS)
    theirs, ours = split_result(row.call(problem))
    assert all_bits(ours) == all_bits(row.call(Problem()))
    assert all(found == all_bits(OTHERS) for found in problem.seen)
    # A model that is returned has them; a direction has None there.
    is_model = row.function in ("curve_point", "initial_controls", "plane_through")
    if is_model or row.function in ("trajectory_plane", "stack_directions"):
        assert len(theirs) >= 7
    else:
        assert not theirs
    if is_model:
        assert all_bits(theirs) == all_bits(OTHERS)


@over([row for row in TABLE if row.function not in ON_THE_HOST])
def test_leaves_that_are_no_parameters_may_be_traced(row):
    problem = with_others({**OTHERS, "count": 3})

    class Plain(Problem):  # np.asarray of a traced leaf is not possible
        pass

    def measure(params):
        _, ours = split_result(row.call(Plain(params, net=problem.net)))
        return ours

    assert_close(jax.jit(measure)(problem.params), split_result(row.call(problem))[1])


@over([row for row in TABLE if row.takes_mask])
def test_leaves_that_the_mask_leaves_out_stay_bit_for_bit(row):
    problem = with_others(LEFT_OUT, mask={"net": True, "others": False})
    theirs, ours = split_result(row.call(problem))
    assert all_bits(ours) == all_bits(row.call(Problem()))
    assert len(problem.seen) > 0
    assert all(found == all_bits(LEFT_OUT) for found in problem.seen)
    assert not any(np.any(leaf) for leaf in theirs)
    # Chosen, a complex leaf is refused, and the others change what is measured.
    with pytest.raises(ValueError, match=r"split \['others'\]\['complex'\] in two real arrays"):
        row.call(dataclasses.replace(problem, mask=None))


@over([row for row in TABLE if row.function not in ("stack_directions", "curve_length")])
def test_complex_parameters_are_refused(row):
    problem = with_others({"complex": jnp.array([1 + 2j])})
    with pytest.raises(ValueError, match=r"split .*\['complex'\] in two real|hold real numbers"):
        row.call(problem)


@over()
def test_directions_may_have_none_at_leaves_that_are_no_parameters(row):
    class Bare(Noting):
        """Its directions and other models hold None there."""

        def each(self, function):
            return {"net": super().each(function)["net"], "others": None}

    params = {"net": jax.tree.map(jnp.asarray, NET), "others": jnp.arange(3)}
    problem = Bare(params, net=lambda p: p["net"])
    object.__setattr__(problem, "seen", [])
    _, ours = split_result(row.call(problem))
    assert all_bits(ours) == all_bits(row.call(Problem()))


# --- numbers ------------------------------------------------------------------------------------


@over()
def test_a_python_number_stands_for_an_array(row):
    net = jax.tree.map(jnp.asarray, NET)
    numbers = Problem(net | {"scale": float(NET["scale"])})
    assert all_bits(row.call(numbers)) == all_bits(row.call(Problem(net)))


# --- devices ------------------------------------------------------------------------------------

SPLIT = {"bias": P("data"), "kernel": P("data", None), "scale": P()}
PLACES = {"batch": (False, True), "parameters": (True, False), "both": (True, True)}


def on_mesh(mesh, place, **fields):
    def put(tree, specs):
        return jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), tree, specs)

    split_parameters, split_batch = PLACES[place]
    everywhere = {name: P() for name in (*NET, *BATCHES)}
    examples = {name: P(None, "data") for name in BATCHES}
    params = put(NET, SPLIT if split_parameters else {name: everywhere[name] for name in NET})
    batches = put(BATCHES, examples if split_batch else {name: P() for name in BATCHES})
    return params, Problem(params, batches, **fields)


def measured(row, problem, jit):
    if not jit:
        return row.call(problem)

    def call(params, batches):
        return row.call(dataclasses.replace(problem, params=params, batches=batches))

    return jax.jit(call)(problem.params, problem.batches)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=lambda kind: kind.name)
@over()
def test_arrays_that_are_split_over_devices_give_the_numbers_of_one(row, kind, place):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    _, problem = on_mesh(mesh, place)
    with jax.set_mesh(mesh):
        result = measured(row, problem, jit=row.function not in ON_THE_HOST)
    assert_close(result, measured(row, Problem(), jit=row.function not in ON_THE_HOST))


@over([row for row in TABLE if row.function not in ON_THE_HOST])
def test_explicit_axes_need_neither_jit_nor_a_mesh_in_the_context(row):
    _, problem = on_mesh(jax.make_mesh((4,), ("data",)), "both")
    assert_close(row.call(problem), row.call(Problem()))


@over([row for row in TABLE if row.function.endswith(("directions", "direction", "product"))])
def test_directions_lie_where_the_parameters_lie(row):
    mesh = jax.make_mesh((4,), ("data",))
    _, problem = on_mesh(mesh, "parameters")
    with jax.set_mesh(mesh):
        result = measured(row, problem, jit=True)
    assert "data" in result["kernel"].sharding.spec and "data" in result["bias"].sharding.spec


def test_eigenvectors_lie_where_the_parameters_lie():
    mesh = jax.make_mesh((4,), ("data",))
    _, problem = on_mesh(mesh, "parameters")
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
    _, problem = on_mesh(mesh, "both", mesh=mesh)
    (row,) = [row for row in TABLE if row.function == "loss_line"]
    with pytest.raises(ValueError, match="must not close over arrays .* Leave out mesh"):
        row.call(problem)


# --- the range of float32 -----------------------------------------------------------------------


@pytest.mark.parametrize("sign", [-1, 1])
@over()
def test_the_unit_of_the_parameters_changes_no_number(row, sign):
    """With powers of two for units every result is exact, times a power of the unit."""
    unit = 2.0 ** (sign * row.log_unit)
    params = jax.tree.map(lambda w: jnp.asarray(w * np.float32(unit)), NET)
    found, wanted = (
        [np.asarray(leaf) for leaf in jax.tree.leaves(row.call(problem))]
        for problem in (Problem(params, unit=unit), Problem())
    )
    for a, b in zip(found, wanted, strict=True):
        powers = [np.ldexp(b.astype(np.float64), sign * row.log_unit * k) for k in range(-2, 3)]
        assert any(np.array_equal(a, power.astype(b.dtype), equal_nan=True) for power in powers)


# --- NaN ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True])
@over()
def test_one_draw_or_batch_gets_past_a_watch_for_nan(row, jit):
    one = Problem(batches=jax.tree.map(lambda x: jnp.asarray(x[:1]), BATCHES), count=1)
    jit = jit and row.function not in ON_THE_HOST
    with jax.debug_nans(True):
        result = measured(row, one, jit)
    for name in ("stderr", "signed_stderr"):
        if hasattr(result, name):
            error = np.asarray(getattr(result, name))
            assert np.all(np.isinf(error) if jit else np.isnan(error))
            assert np.all(np.isnan(getattr(measured(row, one, jit), name)))


# --- what is known under jit --------------------------------------------------------------------


@over()
def test_arrays_from_outside_may_be_closed_over_in_jit(row):
    class Made(Problem):
        """All arrays are made outside of jit."""

        direction, directions, controls = (
            *(Problem().direction, Problem().directions, Problem().controls),
        )
        other, third = Problem().other, Problem().third

    problem = Made()
    assert_close(jax.jit(lambda: row.call(problem))(), row.call(problem))


@pytest.mark.parametrize("name", WITHOUT_PARAMS)
def test_arrays_may_be_closed_over_in_functions_without_parameters(name):
    call, arrays = WITHOUT_PARAMS[name]
    assert_close(jax.jit(lambda: call(*arrays))(), call(*arrays))
