"""Random numbers in the structure of parameters: their law, their streams, and where they lie."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax import draws, pytree, threefry


@pytest.mark.parametrize(
    "distribution, mean, variance", [("gaussian", 0, 1), ("uniform", 0.5, 1 / 12)]
)
def test_random_like_has_the_law_it_names(distribution, mean, variance):
    count = 20_000
    tree = {"a": jnp.zeros((count // 2, 2), jnp.bfloat16), "b": jnp.zeros(count)}
    numbers = draws.random_like(jax.random.key(0), tree, distribution)
    assert jax.tree.structure(numbers) == jax.tree.structure(tree)
    assert numbers["a"].shape == (count // 2, 2) and numbers["a"].dtype == jnp.float32
    x, y = np.asarray(numbers["a"]).ravel(), np.asarray(numbers["b"])
    for z in (x, y):
        assert abs(z.mean() - mean) < 5 * (variance / count) ** 0.5
        # Var of the sample variance is below 2 variance^2 / count for both laws.
        assert abs(z.var() - variance) < 5 * variance * (2 / count) ** 0.5
    assert abs(np.corrcoef(x, y)[0, 1]) < 5 / count**0.5  # leaves are independent
    assert x.min() >= 0 or distribution == "gaussian"


def test_random_like_names_the_distributions_it_knows():
    with pytest.raises(ValueError, match="gaussian.*uniform.*'cauchy'"):
        draws.random_like(jax.random.key(0), jnp.zeros(3), "cauchy")


# The streams that results depend on: another number here means other results for one seed.
STREAMS = {
    "gaussian": {
        "a": [-1.446257, 1.539381, 0.3825063],
        "big": [-1.9432216, 0.1048161, -0.04758957],
        "last": [-0.5877814, -2.455146, 1.3943341],
        "z": [-0.5876674, 0.20941563, -1.2453285],
    },
    "uniform": {
        "a": [0.07405257, 0.9381443, 0.648957],
        "big": [0.02599466, 0.5417391, 0.48102164],
        "last": [0.2783395, 0.007041335, 0.9183916],
        "z": [0.27837777, 0.5829381, 0.10650551],
    },
}


def two_sizes():
    """Return small leaves, which share a draw, and large ones, each with its own."""
    return {
        "a": jnp.zeros((2, 2)),
        "big": jnp.zeros((512, 512)),
        "last": jnp.zeros((300, 700), jnp.bfloat16),
        "z": jnp.zeros(3),
    }


@pytest.mark.parametrize("distribution", STREAMS)
def test_streams_are_those_of_every_version(distribution):
    numbers = draws.random_like(jax.random.key(3), two_sizes(), distribution)
    for name, wanted in STREAMS[distribution].items():
        np.testing.assert_allclose(numbers[name].ravel()[:3], wanted, rtol=1e-6)


@pytest.mark.parametrize("distribution", draws.SAMPLERS)
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_the_numbers_are_those_of_jax_random_bit_for_bit(impl, distribution):
    key, sample = jax.random.key(5, impl=impl), draws.SAMPLERS[distribution]
    tree = {"a": jnp.zeros((3, 5)), "b": jnp.zeros(()), "big": jnp.zeros((400, 400)), "c": None}
    with jax.enable_x64(True):
        wide = {
            name: None if leaf is None else leaf.astype(jnp.float64) for name, leaf in tree.items()
        }
        for like in (tree, wide):
            numbers = draws.random_like(key, like, distribution)
            dtype = like["a"].dtype
            shared = jax.jit(sample, static_argnums=(1, 2))(key, (16,), dtype)
            own = sample(jax.random.fold_in(key, 2), (400, 400), dtype)
            np.testing.assert_array_equal(numbers["a"].ravel(), shared[:15])
            np.testing.assert_array_equal(numbers["b"], shared[15])
            np.testing.assert_array_equal(numbers["big"], own)
            assert numbers["a"].dtype == numbers["big"].dtype == dtype
            assert numbers["c"] is None
    assert draws.random_like(key, {}, distribution) == {}


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("number", [0, 7, 2**31 - 1, np.uint32(2**32 - 1)])
def test_a_folded_key_is_that_of_jax_random(number, impl):
    key = jax.random.key(5, impl=impl)
    found, wanted = threefry.fold_in(key, number), jax.random.fold_in(key, number)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(jax.random.key_data(found), jax.random.key_data(wanted))
    assert not np.array_equal(jax.random.key_data(found), jax.random.key_data(key))


def test_small_leaves_share_one_draw_and_large_ones_have_a_key_each():
    key, tree = jax.random.key(3), two_sizes()
    numbers = draws.random_like(key, tree)
    together = jax.random.normal(key, (7,))
    np.testing.assert_array_equal(numbers["a"].ravel(), together[:4])
    np.testing.assert_array_equal(numbers["z"], together[4:])
    for place, name in ((1, "big"), (2, "last")):
        own = jax.random.normal(jax.random.fold_in(key, place), tree[name].shape)
        np.testing.assert_array_equal(numbers[name], own)
        assert numbers[name].dtype == jnp.float32


def noise_of_layers(axis_type, kernel, count):
    """Return the compiled addition of noise to layers that eight devices share, and their size."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    layers = [{"kernel": jnp.ones(kernel), "bias": jnp.ones(1024)} for _ in range(count)]
    params = jax.device_put(layers, NamedSharding(mesh, P("data")))

    def perturbed(key, params):
        noise = pytree.normalise(draws.random_like(key, params))
        return pytree.add(params, noise, 0.5)

    with jax.set_mesh(mesh):
        program = jax.jit(perturbed, donate_argnums=1).lower(jax.random.key(0), params).compile()
        result = program(jax.random.key(0), params)
    return program, layers, result


# Kernels with a stream each, and small ones, which share one.
@pytest.mark.devices
@pytest.mark.parametrize("kernel, count", [((512, 1024), 4), ((256, 512), 8)])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_devices_draw_the_noise_of_their_own_part(axis_type, kernel, count):
    program, layers, result = noise_of_layers(axis_type, kernel, count)
    # A device holds its eighth of the noise, another of its squares for the norm, and as jax 0.12
    # compiles it one more.
    assert program.memory_analysis().temp_size_in_bytes < 3.5 * 4 * pytree.size(layers) / 8
    assert not re.search("all-gather|all-to-all|collective-permute", program.as_text())
    wanted = pytree.normalise(draws.random_like(jax.random.key(0), layers))
    for w, z, r in zip(*map(jax.tree.leaves, (layers, wanted, result)), strict=True):
        np.testing.assert_allclose(np.asarray(r), np.asarray(w + 0.5 * z), rtol=1e-6)
        assert r.sharding.spec[0] == "data"
