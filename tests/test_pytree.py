"""Arithmetic on pytrees: norms at the edges of each dtype, rounding once, random numbers."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import pytree

DTYPES = ["float64", "float32", "bfloat16", "float16"]

vectors = hypothesis.extra.numpy.arrays(np.float32, 5, elements=st.floats(-100, 100, width=32))
trees = st.fixed_dictionaries({"a": vectors, "b": st.tuples(vectors)})


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def to_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


@pytest.mark.parametrize("dtype", DTYPES)
def test_widen_never_narrows(dtype):
    with jax.enable_x64(True):
        wide = pytree.widen(jnp.ones(2, dtype)).dtype
        assert wide == (jnp.float64 if dtype == "float64" else jnp.float32)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(trees, trees)
def test_vdot_and_norm_equal_numpy(a, b):
    x, y = flat(a), flat(b)
    # float32 sums of 10 products: a few rounding errors of the sum of magnitudes.
    bound = 1e-6 * (np.abs(x) @ np.abs(y)) + 1e-30
    assert abs(float(pytree.vdot(to_jax(a), to_jax(b))) - x @ y) <= bound
    large = {"a": a["a"] + 1}  # squares of tiny numbers vanish in float32: keep away from them
    np.testing.assert_allclose(
        pytree.norm(to_jax(large)), np.linalg.norm(flat(large)), rtol=1e-6, atol=1e-18
    )


@pytest.mark.parametrize("entry", [300.0, 1e-4])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_norms_of_narrow_types_neither_overflow_nor_underflow(dtype, entry):
    tree = {"a": jnp.full(60_000, entry, dtype), "b": jnp.full(40_000, entry, dtype)}
    stored = float(tree["a"][0])
    np.testing.assert_allclose(pytree.norm(tree), stored * 100_000**0.5, rtol=1e-4)


def test_norm_has_gradient_zero_at_zero_and_the_direction_elsewhere():
    np.testing.assert_array_equal(jax.grad(pytree.norm)(jnp.zeros(3)), 0)
    np.testing.assert_allclose(jax.grad(pytree.norm)(jnp.array([3.0, -4.0])), [0.6, -0.8])


def test_nan_is_not_hidden():
    assert jnp.isnan(pytree.norm(jnp.array([1.0, jnp.nan])))
    assert jnp.isnan(pytree.safe_divide(1.0, jnp.array(jnp.nan)))


def test_safe_divide():
    quotient = pytree.safe_divide(3.0, jnp.array([2.0, 0.0]))
    np.testing.assert_array_equal(quotient, [1.5, 0.0])
    slope = jax.grad(lambda x: pytree.safe_divide(x, x * 0))(1.0)
    assert slope == 0


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(trees, st.floats(-10, 10, width=32))
def test_scale_and_add_equal_numpy(tree, factor):
    np.testing.assert_allclose(
        flat(pytree.scale(to_jax(tree), factor)), factor * flat(tree), rtol=1e-6, atol=1e-30
    )
    result = pytree.add(to_jax(tree), jax.tree.map(jnp.ones_like, to_jax(tree)), factor)
    np.testing.assert_allclose(flat(result), flat(tree) + factor, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rounds_once_to_the_dtype_of_the_parameters(dtype):
    with jax.enable_x64(True):
        ulp = float(jnp.finfo(dtype).eps)
        w = jnp.ones(2, dtype)
        # 0.4 ulp is rounded away and 0.6 ulp is rounded up; the step itself stays wide.
        wide = "float64" if dtype == "float64" else "float32"
        result = pytree.add(w, jnp.array([0.4 * ulp, 0.6 * ulp], wide))
        assert result.dtype == dtype
        np.testing.assert_array_equal(np.asarray(result, np.float64), [1.0, 1.0 + ulp])


def test_adding_zero_changes_no_bit():
    w = jax.random.normal(jax.random.key(0), (100,)).astype(jnp.bfloat16)
    direction = jnp.ones(100)
    assert bool(jnp.all(pytree.add(w, direction, 0.0) == w))
    assert not bool(jnp.all(pytree.add(w, direction, 0.1) == w))


def test_size_counts_scalars():
    assert pytree.size({"a": jnp.zeros((2, 3)), "b": [jnp.zeros(()), jnp.zeros((0, 4))]}) == 7


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(trees)
def test_normalise_has_unit_norm_or_stays_zero(tree):
    tree = jax.tree.map(lambda x: jnp.where(jnp.abs(x) < 1e-3, 0, x), tree)
    unit = pytree.normalise(tree)
    expected = 1.0 if np.any(flat(tree)) else 0.0
    np.testing.assert_allclose(np.linalg.norm(flat(unit)), expected, rtol=1e-6)
    assert flat(unit) @ flat(tree) >= 0
