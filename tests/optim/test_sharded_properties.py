"""Random shardings of random parameters: the numbers of one device, laid as the parameters are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_runs import assert_trees_close
from contract_table import named, over
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

pytestmark = pytest.mark.devices

SHAPES = {"kernel": (4, 8), "bias": (8,), "deep": {"kernel": (8, 2, 4), "bias": (4,)}}
AXES = {"data": 2, "model": 4}
KINDS = (AxisType.Auto, AxisType.Explicit)


def is_shape(x):
    return isinstance(x, tuple)


@st.composite
def specs(draw):
    """Draw for every leaf which axis of the mesh splits which of its own; each axis once."""

    def spec(shape):
        names = [None] * len(shape)
        for name, size in AXES.items():
            fits = [i for i, n in enumerate(shape) if n % size == 0 and names[i] is None]
            place = draw(st.sampled_from([None, *fits]))
            if place is not None:
                names[place] = name
        return PartitionSpec(*names)

    return jax.tree.map(spec, SHAPES, is_leaf=is_shape)


def gradient(params):
    return jax.tree.map(lambda w: jnp.sin(3 * w) + w * w, params)


@over(cases=named("sam", "asam", "layer_sam", "gsam"))
@settings(max_examples=4, deadline=None, database=None, derandomize=True)
@given(layout=specs(), kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_any_sharding_gives_the_numbers_of_one_device(case, layout, kind, seed):
    random = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32), SHAPES, is_leaf=is_shape
    )
    tx = case.make(2.0 ** (seed % 5 - 3))

    def update(params, state):
        return tx.update(gradient(params), state, params, grad_fn=gradient)

    state = tx.init(params)
    wanted, _ = update(params, state)
    mesh = jax.make_mesh(tuple(AXES.values()), tuple(AXES), axis_types=(kind,) * len(AXES))
    with jax.set_mesh(mesh):
        placed = jax.tree.map(
            lambda w, spec: jax.device_put(w, NamedSharding(mesh, spec)), params, layout
        )
        result, _ = jax.jit(update)(placed, state)
    # The norm is summed in another order.
    assert_trees_close(jax.device_get(result), wanted, 1e-5)
    if kind is AxisType.Explicit:
        for w, g in zip(*map(jax.tree.leaves, (placed, result)), strict=True):
            assert g.sharding.is_equivalent_to(w.sharding, w.ndim)
