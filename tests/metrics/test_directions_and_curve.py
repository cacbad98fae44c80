import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest

from sam_jax import metrics

KEY = jax.random.key(0)


def flat_directions(key, shapes, number, distribution):
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    directions = metrics.random_directions(key, params, number, distribution)
    for name, shape in shapes.items():
        assert directions[name].shape == (number, *shape)
    leaves = [np.reshape(leaf, (number, -1)) for leaf in jax.tree.leaves(directions)]
    return np.concatenate(leaves, axis=1)


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_directions_have_unit_norm_and_their_cosines(distribution):
    d = 100_000
    shapes = {"a": (100, 900), "b": (10_000,)}
    u = flat_directions(KEY, shapes, 6, distribution)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1.0, rtol=1e-5)
    with_ones = u.sum(axis=1) / np.sqrt(d)
    between = (u @ u.T)[np.triu_indices(6, 1)]
    # Deviations of a mean over d coordinates: a few times 1 / sqrt(d) = 0.003.
    along_ones, mutual = {"uniform": (np.sqrt(3) / 2, 0.75), "gaussian": (0.0, 0.0)}[distribution]
    np.testing.assert_allclose(with_ones, along_ones, atol=5 / np.sqrt(d))
    np.testing.assert_allclose(between, mutual, atol=5 / np.sqrt(d))
    assert (u.min() >= 0) == (distribution == "uniform")


def test_directions_depend_on_key_and_index_only():
    shapes = {"a": (3, 4), "b": (5,)}
    five = flat_directions(KEY, shapes, 5, "gaussian")
    np.testing.assert_allclose(flat_directions(KEY, shapes, 3, "gaussian"), five[:3], rtol=1e-6)
    other = flat_directions(jax.random.key(1), shapes, 5, "gaussian")
    assert np.abs(other - five).max() > 0.1
    assert np.abs(five[0] - five[1]).max() > 0.1


def test_direction_errors():
    with pytest.raises(ValueError, match=r"one of \['gaussian', 'uniform'\], got 'normal'"):
        metrics.random_directions(KEY, jnp.ones(3), 2, "normal")
    with pytest.raises(ValueError, match="num_directions must be an integer of at least 1, got 0"):
        metrics.random_directions(KEY, jnp.ones(3), 0, "uniform")


def test_curve_of_a_cubic():
    distances = np.array([-2.0, 0.0, 0.5, 3.0])
    params = {"a": jnp.array([1.0, 0.0]), "b": jnp.array(2.0)}
    direction = {"a": np.array([2.0, 0.0]), "b": np.array(-1.0)}  # not of unit norm
    with jax.enable_x64(True):
        losses = metrics.loss_curve(lambda p: p["a"][0] ** 3 + p["b"], params, direction, distances)
    np.testing.assert_allclose(losses, (1 + 2 * distances) ** 3 + 2 - distances, rtol=1e-6)
    assert losses.shape == (4,)


def test_curve_agrees_with_the_sides_of_the_asymmetry():
    params, batches = minima.mlp_params(), minima.mlp_batches()
    loss_fn = lambda p: minima.mean_mlp_loss(p, batches)  # noqa: E731
    directions = metrics.random_directions(KEY, params, 2, "uniform")
    result = metrics.asymmetry_factor(loss_fn, params, 1.5, directions=directions)
    second = jax.tree.map(lambda leaf: leaf[1], directions)
    low, centre, high = metrics.loss_curve(loss_fn, params, second, [-1.5, 0, 1.5])
    np.testing.assert_allclose(high - centre, result.plus[1], rtol=1e-4)
    np.testing.assert_allclose(low - centre, result.minus[1], rtol=1e-4)
    np.testing.assert_allclose(centre, result.loss, rtol=1e-6)
    assert abs(high - low) > 1e-2


@pytest.mark.parametrize(
    ("direction", "distances", "message"),
    [
        ({"w": np.ones(3)}, [1.0], "direction must have the same pytree structure as params"),
        (np.ones(4), [1.0], r"expected \(3,\), got \(4,\)"),
        (np.ones(3), [], r"distances must have the shape \[k\], k >= 1, got \(0,\)"),
        (np.ones(3), 1.0, r"distances must have the shape \[k\], k >= 1, got \(\)"),
    ],
)
def test_curve_errors(direction, distances, message):
    with pytest.raises(ValueError, match=message):
        metrics.loss_curve(jnp.sum, jnp.ones(3), direction, distances)
