import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import metrics

KEY = jax.random.key(7)
RELATIVE = ("filter", "layer", "relative", "adaptive")


def weights(seed=0, dtype=jnp.float32):
    """A convolution, its BatchNorm, a dense layer and a temperature."""
    rng = np.random.default_rng(seed)
    shapes = {"conv": (3, 3, 2, 4), "scale": (4,), "dense": (4, 5), "bias": (5,), "t": ()}
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def norm(x):
    return np.linalg.norm(np.ravel(np.asarray(x, np.float64)))


def test_each_filter_has_the_norm_of_its_weights():
    w, z = weights(0), weights(1)
    d = metrics.normalise_direction(z, w, "filter")
    for name in ("conv", "dense"):
        for f in range(w[name].shape[-1]):
            expected = z[name][..., f] * norm(w[name][..., f]) / norm(z[name][..., f])
            np.testing.assert_allclose(d[name][..., f], expected, rtol=1e-5)
    for name in ("scale", "bias", "t"):
        np.testing.assert_array_equal(d[name], 0)
    # The negative control: the filters of the other end have other norms.
    assert abs(norm(d["dense"][0]) - norm(w["dense"][0])) > 0.01


def test_filter_axis():
    w, z = weights(0), weights(1)
    kernels = lambda tree: {"conv": tree["conv"], "dense": tree["dense"]}  # noqa: E731
    moved = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), (kernels(z), kernels(w)))
    first = metrics.normalise_direction(*moved, "filter", filter_axis=0)
    last = metrics.normalise_direction(kernels(z), kernels(w), "filter")
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(jnp.moveaxis(x, 0, -1), y, rtol=1e-6), first, last
    )


def test_each_layer_has_the_norm_of_its_weights():
    w, z = weights(0), weights(1)
    d = metrics.normalise_direction(z, w, "layer")
    for name in w:
        expected = z[name] * norm(w[name]) / norm(z[name])
        np.testing.assert_allclose(d[name], expected, rtol=1e-5)


def test_whole_direction():
    w, z = weights(0), weights(1)
    unit, relative, adaptive = (
        flat(metrics.normalise_direction(z, w, n)) for n in ("unit", "relative", "adaptive")
    )
    np.testing.assert_allclose(unit, flat(z) / norm(flat(z)), rtol=1e-5)
    np.testing.assert_allclose(relative, flat(z) * norm(flat(w)) / norm(flat(z)), rtol=1e-5)
    np.testing.assert_allclose(adaptive, np.abs(flat(w)) * flat(z) / norm(flat(z)), rtol=1e-5)


@pytest.mark.parametrize("normalisation", ["unit", *RELATIVE])
def test_random_directions_are_normalised_draws(normalisation):
    w = weights(0, jnp.bfloat16)
    unit = metrics.random_directions(KEY, w, 3, "rademacher")
    found = metrics.random_directions(KEY, w, 3, "rademacher", normalisation)
    for index in range(3):
        first, expected = (jax.tree.map(lambda x: x[index], tree) for tree in (unit, found))  # noqa: B023
        # Only the direction of z counts, so that of unit norm serves as well.
        again = metrics.normalise_direction(first, w, normalisation)
        np.testing.assert_allclose(flat(again), flat(expected), rtol=1e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}


def test_random_numbers_depend_on_key_and_structure_only():
    """All models of one architecture are measured along the same directions."""
    small, large = weights(0), jax.tree.map(lambda x: 50 * x + 3, weights(1))

    @jax.jit
    def draw(key, w):
        unit = metrics.random_directions(key, w, 1, "gaussian")
        return unit, metrics.random_directions(key, w, 1, "gaussian", "layer")

    (first, first_layer), (second, second_layer) = draw(KEY, small), draw(KEY, large)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    # Relative to the weights the lengths differ, and the cosine in every layer is one.
    for name in small:
        a, b = np.ravel(first_layer[name]), np.ravel(second_layer[name])
        np.testing.assert_allclose(a @ b / norm(a) / norm(b), 1.0, rtol=1e-5)
        assert norm(b) > 2 * norm(a)
    other, _ = draw(jax.random.key(8), small)
    assert np.abs(flat(other) - flat(first)).max() > 0.1


@pytest.mark.parametrize("normalisation", RELATIVE)
def test_parts_of_norm_zero_stay_zero(normalisation):
    w, z = weights(0), weights(1)
    w["dense"] = w["dense"].at[:, 2].set(0)
    z["conv"] = jnp.zeros_like(z["conv"])
    d = metrics.normalise_direction(z, w, normalisation)
    assert np.all(np.isfinite(flat(d)))
    np.testing.assert_array_equal(d["conv"], 0)
    if normalisation in ("filter", "adaptive"):
        np.testing.assert_array_equal(d["dense"][:, 2], 0)


@pytest.mark.parametrize("normalisation", RELATIVE)
def test_weights_of_zero_give_no_direction(normalisation):
    zero = jnp.zeros((3, 2))
    with pytest.raises(ValueError, match="relative to the weights, and all of them are zero"):
        metrics.random_directions(KEY, zero, 2, "gaussian", normalisation)
    traced = jax.jit(lambda w: metrics.random_directions(KEY, w, 2, "gaussian", normalisation))
    np.testing.assert_array_equal(traced(zero), 0)


def test_normalisation_errors():
    with pytest.raises(ValueError, match=r"one of \['unit', .*'adaptive'\], got 'weight'"):
        metrics.normalise_direction(jnp.ones(3), jnp.ones(3), "weight")
    with pytest.raises(ValueError, match=r"direction must .*expected \(3,\), got \(2,\)"):
        metrics.normalise_direction(jnp.ones(2), jnp.ones(3), "layer")
    for axis in (5, 2, -3, 0.5):
        with pytest.raises(ValueError, match=rf"filter_axis must.*got {axis} .*shape \(3, 2\)"):
            metrics.normalise_direction(
                jnp.ones((3, 2)), jnp.ones((3, 2)), "filter", filter_axis=axis
            )
    with pytest.raises(ValueError, match="at least two axes.*params has none"):
        metrics.random_directions(KEY, jnp.ones(3), 2, "gaussian", "filter")
