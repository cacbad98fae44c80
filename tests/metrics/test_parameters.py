"""Which leaves of params an instrument measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.metrics.parameters import chosen_parameters

TWO = {"a": {"kernel": jnp.array([-2.0, 0.0]), "bias": jnp.array([4.0])}, "b": jnp.ones(())}


def test_a_mask_is_a_tree_a_prefix_or_a_function():
    prefix = chosen_parameters(TWO, {"a": True, "b": False})
    assert prefix["a"] is not None and prefix["b"] is None
    kernels = lambda p: jax.tree.map_with_path(lambda path, _: "kernel" in str(path), p)  # noqa: E731
    chosen = chosen_parameters(TWO, kernels)
    assert chosen["a"]["kernel"].tolist() == [-2, 0]
    assert chosen["a"]["bias"] is None and chosen["b"] is None


def test_a_mask_may_hold_anything_at_leaves_that_are_no_parameters():
    params = {"w": 1.0, "ids": jnp.arange(3), "nothing": None}
    for mask in (True, {"w": True, "ids": 7, "nothing": None}, {"w": True, "ids": None}):
        mask = mask | {"nothing": None} if isinstance(mask, dict) else mask
        chosen = chosen_parameters(params, mask)
        assert chosen["w"] == 1 and chosen["ids"] is None and chosen["nothing"] is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"a": True}, "mask must hold booleans in the structure of params"),
        ({"a": 1.0, "b": 0.0}, "mask must hold one boolean a leaf, got 1.0"),
        ({"a": np.array([True, False]), "b": True}, "mask must hold one boolean a leaf"),
        ({"a": False, "b": False}, "mask must choose at least one leaf"),
        (lambda p: jax.tree.map(lambda _: False, p), "mask must choose at least one leaf"),
    ],
)
def test_mask_errors(mask, message):
    with pytest.raises(ValueError, match=message):
        chosen_parameters({"a": jnp.ones(2), "b": jnp.ones(())}, mask)


def test_a_traced_mask_is_refused():
    with pytest.raises(ValueError, match="mask must be known when jit traces"):
        jax.jit(lambda keep: chosen_parameters(TWO, {"a": keep, "b": True}))(True)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "params must hold at least one array or number of floating point, got an empty"),
        ({"ids": jnp.arange(3), "n": 2}, "of floating point, got int, int32"),
        ({"w": jnp.ones(2, complex)}, r"Complex parameters are not measured: split \['w'\] in two"),
        (1j, "split the only leaf in two real arrays, or leave it out by mask"),
    ],
)
def test_params_that_cannot_be_measured(params, message):
    with pytest.raises(ValueError, match=message):
        chosen_parameters(params)
