"""What holds for the instruments over random numbers: orders, splits, scales, symmetries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instrument_table import BATCHES, NET, Problem

from sam_jax import metrics
from sam_jax.metrics.directions.parallel import check_not_parallel

few = settings(max_examples=8, deadline=None, database=None, derandomize=True)
SEED = st.integers(0, 2**20)
KEY = jax.random.key(3)
N, M = 3, 8  # batches, and examples in each


@functools.cache
def compiled(measure):
    """Compile a function of parameters and batches once for all numbers."""
    return jax.jit(lambda params, batches: measure(Problem(params=params, batches=batches)))


def drawn(seed):
    """Return other numbers for the parameters and the batches."""
    random = np.random.default_rng(seed)

    def numbers(shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    params = jax.tree.map(lambda w: numbers(np.shape(w)), NET)
    return params, jax.tree.map(lambda x: numbers((N, M, *np.shape(x)[2:])), BATCHES), random


# --- examples and batches -------------------------------------------------------------------------

OVER_BATCHES = {
    "adversarial_sharpness": lambda p: metrics.adversarial_sharpness(
        p.loss, p.params, p.batches, rho=0.1, steps=2
    ),
    "average_sharpness": lambda p: metrics.average_sharpness(
        p.loss, p.params, p.batches, rho=0.3, key=KEY, draws=2
    ),
    "hessian_vector_product": lambda p: metrics.hessian_vector_product(
        p.loss, p.params, vector=p.direction, batches=p.batches
    ),
    "hessian_trace": lambda p: (
        metrics.hessian_trace(p.loss, p.params, batches=p.batches, key=KEY, draws=2).per_draw
    ),
    "hessian_eigenvalues": lambda p: (
        metrics.hessian_eigenvalues(
            p.loss, p.params, batches=p.batches, key=KEY, num_eigenvalues=1, steps=4
        ).top
    ),
    "spectral_density": lambda p: (
        metrics.spectral_density(
            p.loss, p.params, batches=p.batches, key=KEY, draws=1, steps=4, num_points=16
        ).density
    ),
}
# The sharpness of batches is the mean over them, the curvature is that of their mean loss.
OF_THE_MEAN_LOSS = [name for name in OVER_BATCHES if "sharpness" not in name]


def assert_close(result, wanted, rtol=2e-3):
    """Relative to the largest entry: float32, and an ascent's direction is a quotient."""
    for a, b in zip(*map(jax.tree.leaves, (result, wanted)), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("name", OVER_BATCHES)
@few
@given(seed=SEED)
def test_the_order_of_examples_and_of_batches_does_not_matter(name, seed):
    measure = compiled(OVER_BATCHES[name])
    params, batches, random = drawn(seed)
    within, of_batches = random.permutation(M), random.permutation(N)
    wanted = measure(params, batches)
    assert_close(measure(params, jax.tree.map(lambda x: x[:, within], batches)), wanted)
    turned = measure(params, jax.tree.map(lambda x: x[of_batches], batches))
    if name == "adversarial_sharpness":
        wanted = wanted._replace(
            per_batch_loss=wanted.per_batch_loss[of_batches],
            per_batch_perturbed_loss=wanted.per_batch_perturbed_loss[of_batches],
        )
    assert_close(turned, wanted)


@pytest.mark.parametrize("name", OF_THE_MEAN_LOSS)
@few
@given(seed=SEED)
def test_the_split_into_batches_does_not_matter_to_the_curvature(name, seed):
    measure = compiled(OVER_BATCHES[name])
    params, batches, _ = drawn(seed)
    split = jax.tree.map(lambda x: x.reshape(2 * N, M // 2, *x.shape[2:]), batches)
    assert_close(measure(params, split), measure(params, batches))


# --- directions -----------------------------------------------------------------------------------

NORMALISATIONS = ("unit", "filter", "layer", "relative", "adaptive")


@pytest.mark.parametrize("how", NORMALISATIONS)
@few
@given(seed=SEED, power=st.integers(-20, 20), factor=st.floats(1.0, 2.0))
def test_a_normalised_direction_keeps_its_direction_alone(how, seed, power, factor):
    params, _, random = drawn(seed)
    direction = jax.tree.map(
        lambda w: jnp.asarray(random.normal(size=w.shape), jnp.float32), params
    )

    def normalised(scale):
        scaled = jax.tree.map(lambda d: jnp.float32(scale) * d, direction)
        return metrics.normalise_direction(scaled, params, how)

    wanted = normalised(1.0)
    # Powers of two are exact; another factor rounds each entry twice.
    assert_close(normalised(2.0**power), wanted, 0)
    assert_close(normalised(-(2.0**power)), scaled_by(wanted, -1.0), 0)
    assert_close(normalised(factor * 2.0**power), wanted, 1e-6)
    if how == "filter":  # and the weights give it its size, per filter
        again = metrics.normalise_direction(direction, scaled_by(params, 4.0), how)
        assert_close(again, scaled_by(wanted, 4.0), 0)


DTYPES = ("float64", "float32", "bfloat16")


def scaled_by(tree, factor):
    return jax.tree.map(lambda x: jnp.float32(factor) * x, tree)


@few
@given(
    seed=SEED, power=st.integers(-60, 60), dtype=st.sampled_from(["float64", "float32", "bfloat16"])
)
def test_parallel_is_what_a_multiple_is_and_no_random_pair(seed, power, dtype):
    with jax.enable_x64(True):
        random = np.random.default_rng(seed)
        first, second = random.normal(size=(2, 20))
        factor = np.ldexp(random.uniform(1, 2) * random.choice([-1, 1]), power)

        def directions(second):
            return {name: {"w": jnp.asarray(v, dtype)} for name, v in (("x", first), ("y", second))}

        with pytest.raises(ValueError, match="x and y are parallel to rounding"):
            check_not_parallel(directions(factor * first))
        check_not_parallel(directions(factor * second))


# --- symmetric losses -----------------------------------------------------------------------------


@few
@given(seed=SEED, distance=st.integers(-4, 1))
def test_a_symmetric_loss_has_asymmetry_factor_one(seed, distance):
    with jax.enable_x64(True):
        random = np.random.default_rng(seed)
        centre = {"kernel": jnp.zeros((2, 3))}
        directions = {"kernel": jnp.asarray(random.normal(size=(3, 2, 3)))}

        def loss(params):
            d = params["kernel"]
            return jnp.sum(jnp.abs(d)) + jnp.sum(d**2) * jnp.sum(jnp.cos(d)) / 8 + jnp.sum(d**4)

        length = 2.0**distance
        factor = metrics.asymmetry_factor(loss, centre, length, directions=directions)
        index = metrics.asymmetry_index(loss, centre, length, directions=directions)
        # cos is even to the last bit, and so is the rest.
        assert np.all(np.asarray(factor.ratios) == 1) and factor.factor == 1
        assert index.index == 1

        def tilted(params):
            return loss(params) + 0.1 * jnp.sum(jnp.exp(params["kernel"]))

        assert metrics.asymmetry_factor(tilted, centre, length, directions=directions).factor != 1


# --- spectra --------------------------------------------------------------------------------------

SIZE = 7


@functools.cache
def spectrum():
    """Compile the eigenvalues and the trace of a symmetric matrix."""

    def measure(matrix, w):
        def loss(w):
            return w @ matrix @ w / 2

        found = metrics.hessian_eigenvalues(
            loss, w, key=KEY, num_eigenvalues=2, steps=SIZE, vectors=False
        )
        return found.top, found.bottom, metrics.hessian_vector_product(loss, w, vector=w)

    return jax.jit(measure)


@few
@given(seed=SEED, power=st.integers(-20, 20), equal=st.integers(1, 3))
def test_eigenvalues_of_random_matrices_are_those_of_numpy(seed, power, equal):
    with jax.enable_x64(True):
        random = np.random.default_rng(seed)
        values = np.ldexp(random.normal(size=SIZE), power)
        values[:equal] = values[0]
        basis, _ = np.linalg.qr(random.normal(size=(SIZE, SIZE)))
        matrix = (basis * values) @ basis.T
        matrix = (matrix + matrix.T) / 2
        w = random.normal(size=SIZE)
        top, bottom, product = spectrum()(jnp.asarray(matrix), jnp.asarray(w))
        wanted = np.linalg.eigvalsh(matrix)
        largest = np.abs(wanted).max()
        np.testing.assert_allclose(product, matrix @ w, rtol=0, atol=1e-14 * largest * SIZE)
        np.testing.assert_allclose(top, wanted[::-1][:2], rtol=0, atol=1e-10 * largest)
        np.testing.assert_allclose(bottom, wanted[:2], rtol=0, atol=1e-10 * largest)
