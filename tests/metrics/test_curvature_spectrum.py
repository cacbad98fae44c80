"""Lanczos, eigenvalues and spectral density, against dense Hessians and matfree."""

import functools

import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from matfree import decomp, eig, funm

from sam_jax import metrics
from sam_jax.draws import random_like
from sam_jax.metrics.curvature import lanczos
from sam_jax.metrics.curvature.density import broaden, spectral_density
from sam_jax.metrics.curvature.eigenvalues import hessian_eigenvalues
from sam_jax.metrics.curvature.lanczos import ritz_pairs
from sam_jax.pytree import normalise

KEY = jax.random.key(2)
trapezoid = np.trapezoid if hasattr(np, "trapezoid") else np.trapz


@functools.cache
def network():
    """A tanh network in float64, its batches, its dense Hessian; call it with 64 bits enabled."""
    params = minima.mlp_params(jnp.float64)
    batches = minima.mlp_batches(3, 16, jnp.float64)
    _, hessian = minima.dense_derivatives(lambda p: minima.mean_mlp_loss(p, batches), params)
    return params, batches, hessian


def ravel(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def with_eigenvalues(eigenvalues, seed=0):
    d = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    return basis @ np.diag(eigenvalues) @ basis.T


def of_matrix(matrix):
    """A loss with this Hessian and a gradient everywhere."""
    return minima.quadratic(matrix, np.ones(len(matrix)))


def dense(tridiagonal):
    off = np.diag(np.asarray(tridiagonal.off_diagonal), 1)
    return np.diag(np.asarray(tridiagonal.diagonal)) + off + off.T


@jax.jit
def random_unit(key, index, like):
    return normalise(random_like(jax.random.fold_in(key, index), like))


@functools.partial(jax.jit, static_argnames="steps")
def tridiagonalise(matrix, steps, key):
    zeros = jnp.zeros_like(matrix[0])
    return lanczos.tridiagonalise(
        lambda v: matrix @ v, zeros, steps, lambda i: random_unit(key, i, zeros)
    )


@functools.partial(jax.jit, static_argnames=("steps", "reortho"))
def matfrees(matrix, steps, start, reortho="full"):
    """Return matfree's tridiagonalisation."""
    return decomp.tridiag_sym(steps, reortho=reortho)(lambda v: matrix @ v, start)


@pytest.mark.parametrize("steps", [1, 9, 30])
def test_tridiagonal_matrix_is_the_projection_and_that_of_matfree(steps):
    with jax.enable_x64(True):
        matrix = jnp.asarray(with_eigenvalues(np.linspace(-2, 5, 30)))
        ours = tridiagonalise(matrix, steps, KEY)
        theirs = matfrees(matrix, steps, random_unit(KEY, 0, jnp.zeros(30)))
    basis = np.asarray(ours.basis)
    np.testing.assert_allclose(basis @ basis.T, np.eye(steps), atol=1e-14)
    np.testing.assert_allclose(basis @ np.asarray(matrix) @ basis.T, dense(ours), atol=1e-13)
    np.testing.assert_allclose(dense(ours), theirs.J_small, atol=1e-11)
    np.testing.assert_allclose(basis, theirs.Q_tall, atol=1e-9)
    assert np.all(np.asarray(ours.off_diagonal) > 0)


def test_float32_stays_orthogonal_where_the_plain_recurrence_does_not():
    eigenvalues = np.concatenate([np.linspace(0, 1, 295), [20.0, 40.0, 60.0, 80.0, 100.0]])
    matrix = jnp.asarray(with_eigenvalues(eigenvalues), jnp.float32)
    steps = 60
    ours = tridiagonalise(matrix, steps, KEY)
    start = random_unit(KEY, 0, jnp.zeros(300))
    plain = matfrees(matrix, steps, start, "none")

    def loss_of_orthogonality(basis):
        return np.max(np.abs(np.asarray(basis @ basis.T) - np.eye(steps)))

    def copies_of_the_largest(values):
        return np.sum(np.abs(np.asarray(values) - 100) < 0.1)

    # A few roundings of sums over 300 products.
    assert loss_of_orthogonality(ours.basis) < 1e-6
    assert loss_of_orthogonality(plain.Q_tall) > 0.5
    assert copies_of_the_largest(ritz_pairs(ours)[0]) == 1
    assert copies_of_the_largest(np.linalg.eigvalsh(plain.J_small)) > 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_exhausted_subspace_is_left_for_a_random_direction(dtype):
    with jax.enable_x64(True):
        matrix = jnp.asarray(with_eigenvalues([0.0] * 17 + [-1.0, 2.0, 2.0]), dtype)
        result = tridiagonalise(matrix, 20, KEY)
        values, vectors = ritz_pairs(result)
        start = np.asarray(random_unit(KEY, 0, jnp.zeros(20, dtype)))
    rounding = 50 * np.finfo(dtype).eps
    basis = np.asarray(result.basis)
    np.testing.assert_allclose(basis @ basis.T, np.eye(20), atol=rounding)
    # Three distinct eigenvalues: the third length vanishes, and T falls into blocks.
    off_diagonal = np.asarray(result.off_diagonal)
    assert np.all(off_diagonal[:2] > 0.1) and off_diagonal[2] == 0
    np.testing.assert_allclose(values, [-1.0] + [0.0] * 17 + [2.0] * 2, atol=rounding)
    # Only the first block has a share in the start, hence in the quadrature.
    weights = np.asarray(vectors)[0] ** 2
    np.testing.assert_allclose(weights.sum(), 1, atol=rounding)
    np.testing.assert_allclose(
        weights @ np.asarray(values) ** 2, np.sum((np.asarray(matrix) @ start) ** 2), atol=rounding
    )


def test_zero_and_scalar_hessians():
    for loss_fn, value in [(jnp.sum, 0.0), (lambda w: 1.5 * w @ w, 3.0)]:
        result = hessian_eigenvalues(loss_fn, jnp.ones(5), key=KEY, num_eigenvalues=5)
        np.testing.assert_allclose(result.top, value, rtol=1e-6)
        np.testing.assert_allclose(result.bottom, value, rtol=1e-6)
        np.testing.assert_allclose(result.top_residuals, 0, atol=1e-6)
    single = hessian_eigenvalues(lambda w: w**3, 2.0, key=KEY, vectors=True)
    assert single.top == single.bottom == 12.0 and abs(single.top_vectors[0]) == 1.0


def test_eigenpairs_of_a_network_are_those_of_the_dense_hessian():
    with jax.enable_x64(True):
        params, batches, hessian = network()
        result = hessian_eigenvalues(
            minima.mlp_loss, params, batches, key=KEY, num_eigenvalues=3, steps=30, vectors=True
        )
        result = jax.tree.map(np.asarray, result)
    values, vectors = np.linalg.eigh(hessian)
    assert values[0] < -1e-3 < 1e-1 < values[-1]  # both signs, so that the ends differ
    np.testing.assert_allclose(result.top, values[::-1][:3], rtol=1e-11)
    np.testing.assert_allclose(result.bottom, values[:3], rtol=1e-11)
    assert np.all(result.top_residuals < 1e-12) and np.all(result.bottom_residuals < 1e-12)
    for got, wanted in [
        (result.top_vectors, vectors.T[::-1][:3]),
        (result.bottom_vectors, vectors.T[:3]),
    ]:
        assert got["first"]["kernel"].shape == (3, 2, 6)
        rows = np.stack([ravel(jax.tree.map(lambda x: x[i], got)) for i in range(3)])  # noqa: B023
        np.testing.assert_allclose(np.abs(np.sum(rows * wanted, axis=1)), 1, rtol=1e-9)


def test_eigenvalues_of_an_early_stop_are_those_of_matfree():
    with jax.enable_x64(True):
        params, batches, hessian = network()
        flat, _ = ravel_pytree(params)
        ours = hessian_eigenvalues(
            minima.mlp_loss, params, batches, key=KEY, num_eigenvalues=2, steps=4
        )
        partial = jax.jit(eig.eigh_partial(decomp.tridiag_sym(4, reortho="full")), static_argnums=0)
        product = lambda v: jnp.asarray(hessian) @ v  # noqa: E731
        theirs, _ = partial(product, random_unit(KEY, 0, flat))
        other, _ = partial(product, random_unit(KEY, 1, flat))
    theirs, other = np.sort(theirs), np.sort(other)
    np.testing.assert_allclose(ours.top, theirs[::-1][:2], rtol=1e-10)
    np.testing.assert_allclose(ours.bottom, theirs[:2], rtol=1e-10)
    # Four steps are few: another start gives other values.
    assert np.abs(other - theirs).min() > 1e-3


def test_residual_of_an_early_stop_is_real_and_bounds_the_distance():
    with jax.enable_x64(True):
        params, batches, hessian = network()
        values, tops, residuals = np.linalg.eigvalsh(hessian), [], []
        for steps in (4, 16):
            result = hessian_eigenvalues(
                minima.mlp_loss, params, batches, key=KEY, steps=steps, vectors=True
            )
            v = ravel(jax.tree.map(lambda x: x[0], result.top_vectors))
            residual = np.linalg.norm(hessian @ v - float(result.top[0]) * v)
            np.testing.assert_allclose(result.top_residuals[0], residual, rtol=1e-6, atol=1e-13)
            # The Ritz value is the Rayleigh quotient, and below the largest eigenvalue.
            np.testing.assert_allclose(result.top[0], v @ hessian @ v, rtol=1e-11)
            tops.append(float(result.top[0]))
            residuals.append(residual)
    # Some eigenvalue is that close; after four steps it is another one than the largest.
    errors = [np.min(np.abs(values - top)) for top in tops]
    assert np.all(np.array(errors) <= np.array(residuals) + 1e-13)
    assert tops[0] < values[-1] - 1e-2 and residuals[0] > 1e-2
    assert tops[1] < values[-1] + 1e-12 and residuals[1] < 1e-3 * residuals[0]


def test_large_negative_eigenvalue_is_not_the_top_one():
    matrix = with_eigenvalues([-9.0, *np.linspace(-1, 1, 20), 4.0])
    result = hessian_eigenvalues(of_matrix(matrix), jnp.ones(22), key=KEY)
    np.testing.assert_allclose([result.top[0], result.bottom[0]], [4, -9], rtol=1e-5)


def test_float32_reaches_its_rounding():
    eigenvalues = np.concatenate([np.linspace(-1, 1, 297), [5.0, 20.0, 100.0]])
    matrix = jnp.asarray(with_eigenvalues(eigenvalues), jnp.float32)
    result = hessian_eigenvalues(of_matrix(matrix), jnp.ones(300), key=KEY, num_eigenvalues=3)
    # Some 10 roundings of 6e-8 of the largest eigenvalue.
    np.testing.assert_allclose(result.top, [100, 20, 5], atol=1e-4)
    assert result.top.dtype == jnp.float32 and np.all(result.top_residuals < 2e-4)
    # In the bulk, whose eigenvalues are 0.007 apart, 40 steps cannot tell; the residual says so.
    assert result.bottom_residuals[0] > 1e-3


def test_mask_gives_the_eigenvalues_of_a_block():
    with jax.enable_x64(True):
        params, batches, hessian = network()
        result = hessian_eigenvalues(
            minima.mlp_loss,
            params,
            batches,
            key=KEY,
            steps=40,
            vectors=True,
            mask={"first": {"kernel": True, "bias": False}, "second": False},
        )
    block = hessian[6:18, 6:18]
    values = np.linalg.eigvalsh(block)
    np.testing.assert_allclose(result.top[0], values[-1], rtol=1e-11)
    np.testing.assert_allclose(result.bottom[0], values[0], rtol=1e-11)
    assert abs(values[-1] - np.linalg.eigvalsh(hessian)[-1]) > 1e-2
    np.testing.assert_array_equal(result.top_vectors["second"]["kernel"], np.zeros((1, 6, 2)))
    np.testing.assert_array_equal(result.top_vectors["first"]["bias"], np.zeros((1, 6)))


def test_weights_of_the_batches_count():
    matrix = minima.spd_matrix(6)
    loss_fn, batches = of_matrix(matrix), jnp.array([[1.0, 1.0], [5.0, 5.0]])
    results = [
        hessian_eigenvalues(loss_fn, jnp.ones(6), batches, key=KEY, weights=w).top[0]
        for w in (None, jnp.array([3.0, 1.0]))
    ]
    np.testing.assert_allclose(results, [3 * 3.0, 3 * 2.0], rtol=1e-5)


def test_vectors_are_directions():
    """Along an eigenvector of a quadratic the loss rises by distance^2 lambda / 2 on both sides."""
    matrix = minima.spd_matrix(6)
    loss_fn = minima.quadratic(matrix, np.zeros(6))
    result = hessian_eigenvalues(
        loss_fn, jnp.zeros(6), key=KEY, num_eigenvalues=2, steps=6, vectors=True
    )
    rises = metrics.asymmetry_factor(
        loss_fn, jnp.zeros(6), distance=2.0, directions=result.top_vectors
    )
    np.testing.assert_allclose(rises.plus, 2 * np.asarray(result.top), rtol=1e-5)
    np.testing.assert_allclose(rises.factor, 1, rtol=1e-5)


def test_density_after_all_steps_is_exact_for_its_starts():
    with jax.enable_x64(True):
        params, batches, hessian = network()
        flat, _ = ravel_pytree(params)
        result = spectral_density(
            minima.mlp_loss, params, batches, key=KEY, draws=3, steps=99, width=0.02, num_points=400
        )
        starts = [random_unit(jax.random.fold_in(KEY, i), 0, flat) for i in range(3)]
    values, vectors = np.linalg.eigh(hessian)
    grid = np.asarray(result.grid)
    gaussians = np.exp(-0.5 * ((grid[:, None] - values) / 0.02) ** 2) / (0.02 * np.sqrt(2 * np.pi))
    per_draw = np.stack([gaussians @ (vectors.T @ np.asarray(v)) ** 2 for v in starts])
    assert result.ritz_values.shape == (3, 30)
    # The largest density is about 10; the quadrature is that of the exact starts.
    np.testing.assert_allclose(result.density, per_draw.mean(0), atol=1e-9)
    np.testing.assert_allclose(result.stderr, per_draw.std(0, ddof=1) / np.sqrt(3), atol=1e-9)
    np.testing.assert_allclose(trapezoid(result.density, grid), 1, atol=1e-5)


def test_density_of_an_early_stop_is_that_of_matfree():
    """At every x, the mean over starts of the quadratic form of a Gaussian of the matrix."""
    with jax.enable_x64(True):
        params, batches, hessian = network()
        flat, _ = ravel_pytree(params)
        grid = jnp.linspace(-0.5, 1.5, 5)
        ours = spectral_density(
            minima.mlp_loss, params, batches, key=KEY, draws=3, steps=6, width=0.2, grid=grid
        )

        @jax.jit
        def at(x):
            gaussian = lambda value: jax.scipy.stats.norm.pdf(x, value, 0.2)  # noqa: E731
            form = funm.monte_carlo_funm_sym(
                funm.dense_funm_sym_eigh(gaussian), decomp.tridiag_sym(6, reortho="full")
            )
            starts = [random_unit(jax.random.fold_in(KEY, i), 0, flat) for i in range(3)]
            return [form(lambda v: jnp.asarray(hessian) @ v, start) for start in starts]

        theirs = np.array([at(x) for x in grid])
    np.testing.assert_allclose(ours.density, theirs.mean(axis=1), rtol=1e-8)
    np.testing.assert_allclose(ours.stderr, theirs.std(axis=1, ddof=1) / np.sqrt(3), rtol=1e-7)


def test_moments_are_those_of_the_hessian():
    """A quadrature with k nodes is exact for the moments up to 2 k - 1, whatever the steps."""
    with jax.enable_x64(True):
        params, batches, hessian = network()
        flat, _ = ravel_pytree(params)
        draws, steps = 200, 5
        result = spectral_density(
            minima.mlp_loss, params, batches, key=KEY, draws=draws, steps=steps, num_points=2000
        )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(draws))
        starts = np.asarray(jax.vmap(random_unit, (0, None, None))(keys, 0, flat))
        result = jax.tree.map(np.asarray, result)
    moments = [np.sum(result.ritz_weights * result.ritz_values**p, axis=1) for p in range(11)]
    for p in range(11):
        exact = np.einsum("ni,ij,nj->n", starts, np.linalg.matrix_power(hessian, p), starts)
        if p <= 2 * steps - 1:
            np.testing.assert_allclose(moments[p], exact, rtol=1e-9)
        else:  # the first one that the quadrature misses
            assert np.max(np.abs(moments[p] / exact - 1)) > 1e-4
    mean = np.trace(hessian) / flat.size
    stderr = np.std(moments[1], ddof=1) / np.sqrt(draws)
    assert abs(moments[1].mean() - mean) < 5 * stderr < 0.6 * mean
    # Broadening keeps the mean, and adds its variance to the second moment.
    grid, density = result.grid, result.density
    np.testing.assert_allclose(trapezoid(density, grid), 1, atol=1e-5)
    np.testing.assert_allclose(trapezoid(density * grid, grid), moments[1].mean(), atol=1e-5)
    np.testing.assert_allclose(
        trapezoid(density * grid**2, grid), moments[2].mean() + result.width**2, rtol=1e-4
    )


def test_density_of_a_large_spectrum_is_its_histogram():
    eigenvalues = np.concatenate([np.full(300, 0.0), np.linspace(1, 2, 99), [10.0]])
    matrix = jnp.asarray(with_eigenvalues(eigenvalues), jnp.float32)
    result = spectral_density(
        of_matrix(matrix), jnp.ones(400), key=KEY, draws=20, steps=40, width=0.05
    )
    grid, density = np.asarray(result.grid), np.asarray(result.density)
    for low, high, share in [(-0.5, 0.5, 300 / 400), (0.6, 2.5, 99 / 400), (9, 11, 1 / 400)]:
        inside = (grid > low) & (grid < high)
        got = trapezoid(density[inside], grid[inside])
        # A share p of a uniform unit vector has the variance 2 p (1 - p) / (d + 2), here 20 times.
        assert abs(got - share) < 5 * np.sqrt(2 * share * (1 - share) / 402 / 20)
    assert grid[0] == pytest.approx(-0.25, abs=1e-3) and grid[-1] == pytest.approx(10.25, abs=1e-3)
    assert density.min() >= 0 and np.all(np.isfinite(result.stderr))


def test_given_grid_and_width():
    matrix = minima.spd_matrix(8)
    arguments = {"key": KEY, "draws": 3, "steps": 8}
    grid = jnp.linspace(0.0, 4.0, 50)
    given = spectral_density(of_matrix(matrix), jnp.ones(8), grid=grid, width=0.1, **arguments)
    np.testing.assert_array_equal(given.grid, grid)
    again = jax.jit(
        lambda grid, width: spectral_density(
            of_matrix(matrix), jnp.ones(8), grid=grid, width=width, **arguments
        )
    )(grid, 0.1)
    np.testing.assert_allclose(again.density, given.density, rtol=1e-3, atol=1e-5)
    by_hand = [
        broaden(values, masses, grid, 0.1)
        for values, masses in zip(given.ritz_values, given.ritz_weights, strict=True)
    ]
    np.testing.assert_allclose(np.mean(by_hand, axis=0), given.density, rtol=1e-4, atol=1e-6)
    wider = spectral_density(of_matrix(matrix), jnp.ones(8), grid=grid, width=0.3, **arguments)
    assert np.max(wider.density) < 0.8 * np.max(given.density)
    default = spectral_density(of_matrix(matrix), jnp.ones(8), **arguments)
    np.testing.assert_allclose(default.width, 2.5 / 200, rtol=1e-4)
    assert default.grid.shape == (1024,)
    # The default grid holds the whole mass as long as its spacing resolves the width.
    for width, num_points, resolved in [(None, 1024, True), (1e-4, 1024, False), (0.01, 400, True)]:
        found = spectral_density(
            of_matrix(matrix), jnp.ones(8), width=width, num_points=num_points, **arguments
        )
        spacing = found.grid[1] - found.grid[0]
        assert (spacing < found.width) == resolved
        assert (abs(jnp.sum(found.density) * spacing - 1) < 1e-3) == resolved


@pytest.mark.parametrize(("scale", "value"), [(0.0, 0.0), (1.5, 3.0), (-5e3, -1e4)])
def test_density_of_equal_eigenvalues_is_one_peak(scale, value):
    result = spectral_density(lambda w: scale * w @ w, jnp.ones(7), key=KEY, draws=2, steps=5)
    # Steps of a float32 grid of 1024 points are some roundings wide: a per cent of the mass.
    np.testing.assert_allclose(trapezoid(result.density, result.grid), 1, atol=1e-2)
    np.testing.assert_allclose(result.grid[np.argmax(result.density)], value, rtol=1e-4, atol=0.1)


def test_one_draw_has_no_standard_error():
    result = spectral_density(of_matrix(minima.spd_matrix(4)), jnp.ones(4), key=KEY, draws=1)
    assert np.all(np.isnan(result.stderr)) and np.all(np.isfinite(result.density))
