"""What holds for every public function of the instruments, over the table of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instrument_runs import assert_close, measured, over, plain_result
from instrument_table import (
    BATCHES,
    NET,
    ON_THE_HOST,
    TABLE,
    WITHOUT_PARAMS,
    Problem,
    public_functions,
)

from sam_jax import pytree

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


def bits(x):
    with jax.ensure_compile_time_eval():  # the key is known, also inside the loops of instruments
        x = jax.random.key_data(x) if pytree.is_key(x) else x
    return str(np.asarray(x).dtype), np.asarray(x).tobytes()


def all_bits(tree):
    return [bits(leaf) for leaf in jax.tree.leaves(tree)]


def test_every_public_function_is_in_the_table():
    in_table = {row.function for row in TABLE}
    assert in_table | set(WITHOUT_PARAMS) == public_functions()
    assert not in_table & set(WITHOUT_PARAMS)


# --- leaves -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Noting(Problem):
    """A problem with further leaves, whose bits every evaluation of the loss notes."""

    seen: list = dataclasses.field(default_factory=list)

    def loss(self, params, batch):
        self.seen.append(all_bits(params["others"]))
        return super().loss(params, batch)


def with_others(others, make=Noting, **fields):
    net = jax.tree.map(jnp.asarray, NET)
    return make({"net": net, "others": others}, net=lambda params: params["net"], **fields)


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
    assert all_bits(ours) == all_bits(plain_result(row))
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
    problem = with_others(OTHERS, make=Problem)  # the bits of a traced leaf cannot be noted

    def measure(params):
        _, ours = split_result(row.call(dataclasses.replace(problem, params=params)))
        return ours

    assert_close(jax.jit(measure)(problem.params), split_result(row.call(problem))[1])


@over([row for row in TABLE if row.takes_mask])
def test_leaves_that_the_mask_leaves_out_stay_bit_for_bit(row):
    problem = with_others(LEFT_OUT, mask={"net": True, "others": False})
    theirs, ours = split_result(row.call(problem))
    assert all_bits(ours) == all_bits(plain_result(row))
    assert len(problem.seen) > 0
    assert all(found == all_bits(LEFT_OUT) for found in problem.seen)
    assert not any(np.any(leaf) for leaf in theirs)
    # Chosen, a complex leaf is refused, and the others change what is measured.
    with pytest.raises(ValueError, match=r"split \['others'\]\['complex'\] in two real arrays"):
        row.call(dataclasses.replace(problem, mask=None))


@over([row for row in TABLE if row.function != "stack_directions"])
def test_complex_parameters_are_refused(row):
    problem = with_others({"complex": jnp.array([1 + 2j])})
    with pytest.raises(ValueError, match=r"split .*\['complex'\] in two real|hold real numbers"):
        row.call(problem)


@over()
def test_directions_may_have_none_at_leaves_that_are_no_parameters(row):
    class Bare(Problem):
        """Its directions and other models hold None there."""

        def each(self, function):
            return {"net": super().each(function)["net"], "others": None}

    _, ours = split_result(row.call(with_others(jnp.arange(3), make=Bare)))
    assert all_bits(ours) == all_bits(plain_result(row))


# --- numbers ------------------------------------------------------------------------------------


@over()
def test_a_python_number_stands_for_an_array(row):
    numbers = Problem(jax.tree.map(jnp.asarray, NET) | {"scale": float(NET["scale"])})
    assert all_bits(row.call(numbers)) == all_bits(plain_result(row))


# --- the range of float32 -----------------------------------------------------------------------


POWERS = (-2, -1, 0, 1, 2)  # of the unit: an eigenvalue has -2, a distance 1, a loss none


@pytest.mark.parametrize("sign", [-1, 1])
@over()
def test_the_unit_of_the_parameters_changes_no_number(row, sign):
    """With powers of two for units every result is exact, times a power of the unit."""
    unit = 2.0 ** (sign * row.log_unit)
    params = jax.tree.map(lambda w: jnp.asarray(w * np.float32(unit)), NET)
    found, wanted = (
        [np.asarray(leaf) for leaf in jax.tree.leaves(result)]
        for result in (row.call(Problem(params, unit=unit)), plain_result(row))
    )
    for a, b in zip(found, wanted, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # a power may be out of range
            powers = [b * np.ldexp(1.0, sign * row.log_unit * k).astype(b.dtype) for k in POWERS]
        assert any(np.array_equal(a, power, equal_nan=True) for power in powers)


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


# --- losses that are none -----------------------------------------------------------------------

ASK_A_LOSS = ("sharpness", "asymmetry", "level_set", "loss", "gradient", "hessian", "density")
NO_LOSSES = {
    "complex": lambda loss: 1j * loss,
    "none": lambda loss: None,
    "text": lambda loss: "loss",
    "vector": lambda loss: jnp.stack([loss, loss]),
    "a loss and outputs": lambda loss: (loss, {"correct": jnp.ones(3)}),
}


@pytest.mark.parametrize("name", NO_LOSSES)
@over([row for row in TABLE if any(word in row.function for word in ASK_A_LOSS)])
def test_what_is_no_loss_is_refused(row, name):
    class Wrong(Problem):
        """A problem whose loss functions return something else."""

        def loss(self, params, batch):
            return NO_LOSSES[name](super().loss(params, batch))

        def whole(self, params):
            return NO_LOSSES[name](jnp.sum(self.net(params)["kernel"]))

    with pytest.raises(ValueError, match="loss_fn must return (a|one) real scalar.*got"):
        row.call(Wrong())


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
