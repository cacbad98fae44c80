"""The spectral density of the Hessian: how its eigenvalues are distributed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.draws import check_key
from sam_jax.metrics.checks import (
    check_count,
    check_positive,
    check_products,
    check_vector,
)
from sam_jax.metrics.curvature.hessian import hessian_operator
from sam_jax.metrics.curvature.lanczos import ritz_pairs, tridiagonalise
from sam_jax.metrics.evaluation import full_precision, standard_error
from sam_jax.typing import AnyArray, Array, Batch, Float, Key, LossFn, Mask, Num, Params, Scalar

# How far a grid of our own reaches beyond the outermost Ritz values, in standard deviations: a
# Gaussian loses 3e-7 of its mass there.
PADDING = 5.0


class SpectralDensity(NamedTuple):
    """A density over g values of an eigenvalue, and the quadrature it was made from."""

    grid: Float[Array, " points"]  # eigenvalues, shape [g]
    density: Float[Array, " points"]  # mean over the draws, shape [g], in units of 1 / eigenvalue
    stderr: Float[
        Array, " points"
    ]  # standard error of the density over the draws, shape [g]; NaN for one draw
    width: Float[Array, ""]  # standard deviation of the Gaussians, scalar
    ritz_values: Float[Array, "draws steps"]  # shape [draws, k], ascending
    ritz_weights: Float[
        Array, "draws steps"
    ]  # shape [draws, k], not negative, with the sum one in every draw


@full_precision
def spectral_density(
    loss_fn: LossFn,
    params: Params,
    batches: Batch | None = None,
    *,
    key: Key,
    draws: int = 10,
    steps: int = 80,
    width: Scalar | None = None,
    grid: Num[AnyArray, " points"] | None = None,
    num_points: int = 1024,
    weights: Num[AnyArray, " batches"] | None = None,
    mask: Mask = None,
    mesh: Mesh | None = None,
) -> SpectralDensity:
    """Return the density of the eigenvalues of the Hessian, by stochastic Lanczos quadrature.

    The density of d eigenvalues lambda_j, each broadened to a Gaussian of standard deviation
    `width`, is estimated as a mean over random unit vectors v:

        1/d sum_j N(x; lambda_j, width^2)  =  E_v sum_j (v'u_j)^2 N(x; lambda_j, width^2)
                                           ~  mean_v sum_i tau_i N(x; theta_i, width^2).

    Here u_j are the eigenvectors of the Hessian. T is the tridiagonal matrix of k Lanczos steps
    from v: theta_i are its eigenvalues (the Ritz values), and tau_i the squares of the first
    entries of its eigenvectors. This is a Gauss quadrature: per vector exact for polynomials of
    degree 2 k - 1 in place of N, and exact altogether for k = d. Hence mean_v sum_i tau_i theta_i
    estimates the mean eigenvalue, tr(H) / d.

    Where the eigenvalues are dense the Ritz values stand for many of them and are apart by about
    the range of the spectrum / k: a `width` well below that shows a comb. An outlier appears
    at its place, with a mass of 1/d on average that differs much between draws; the standard
    error tells.

    The cost is `draws * steps` products of `hessian_vector_product`, one after the other. The
    memory is `steps * d` numbers (80 steps of a network of 2.3 million parameters: 735 MB in
    float32) and one product. Jit the call to compile it once for many models.

    Args:
      loss_fn: `loss_fn(params, batch)` -> mean loss of the batch, a scalar; without `batches`
        `loss_fn(params)` -> the loss over the whole set.
      params: parameters. They are widened to float32 if narrower.
      batches: a pytree whose leaves have leading axes [n, m, ...]: n batches of m examples.
      key: a typed key; the start of draw i derives from `fold_in(key, i)` and is the same for all
        models of one architecture.
      draws: number of random vectors.
      steps: number k of Lanczos steps a draw; those beyond the number d of parameters are left
        out.
      width: standard deviation of the Gaussians, in units of the eigenvalues; None for 1/200 of
        the range of all Ritz values, and at least 1/10000 of the largest size. Give it, and `grid`,
        to compare models.
      grid: shape [g], where to evaluate the density, with a spacing of at most about `width`;
        None for `num_points` equidistant values that cover all Ritz values and 5 `width` more
        on both sides. Over them the density times the spacing sums to one where the spacing is
        at most about `width`, as it is by default: a narrower `width` needs more of them.
      num_points: number g of values of such a grid; not used with `grid`.
      weights: shape [n], the weight of each batch; None for equal ones.
      mask: the leaves over which the Hessian is taken, as in `hessian_vector_product`.
      mesh: devices to share the batches out over, as in `loss_plane`; None for no sharing.

    Returns:
      A `SpectralDensity`.

    Raises:
      ValueError: if `draws` or `steps` is below one; `num_points` is below two; `width` is not
        positive; `grid` is not a non-empty vector of finite numbers; `key` is not one typed key;
        and as `hessian_vector_product`.

    References:
      Golub and Welsch, Calculation of Gauss Quadrature Rules, 1969.
      Lin, Saad and Yang, Approximating Spectral Densities of Large Matrices, 2016,
      https://arxiv.org/abs/1308.5467.
      Ghorbani, Krishnan and Xiao, An Investigation into Neural Net Optimization via Hessian
      Eigenvalue Density, 2019, https://arxiv.org/abs/1901.10159.

    >>> loss_fn = lambda w: 0.5 * jnp.sum(jnp.repeat(jnp.array([1.0, 3.0]), 50) * w**2)
    >>> result = spectral_density(loss_fn, jnp.ones(100), key=jax.random.key(0), steps=4)
    >>> mass = result.density * (result.grid[1] - result.grid[0])
    >>> print(f"{jnp.sum(mass):.3f}")
    1.000
    >>> print(f"mean eigenvalue {jnp.sum(mass * result.grid):.0f}")
    mean eigenvalue 2
    """
    check_count("draws", draws)
    check_count("steps", steps)
    check_key(key)
    if width is not None:
        check_positive("width", width)
    if grid is None:
        check_count("num_points", num_points)
        if num_points < 2:
            raise ValueError(f"num_points must be at least 2, got {num_points}.")
    else:
        grid = check_vector("grid", grid)
    operator = hessian_operator(loss_fn, params, batches, weights, mask, mesh)
    steps = min(steps, operator.size)

    def quadrature(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        random_unit = operator.random_unit(jax.random.fold_in(key, index))
        tridiagonal = tridiagonalise(operator.product, operator.zeros, steps, random_unit)
        values, vectors = ritz_pairs(tridiagonal)
        return values, vectors[0] ** 2

    values, masses = jax.lax.map(quadrature, jnp.arange(draws))
    check_products(values)
    low, high = jnp.min(values), jnp.max(values)
    width = _default_width(low, high) if width is None else jnp.asarray(width, values.dtype)
    if grid is None:
        grid = jnp.linspace(low - PADDING * width, high + PADDING * width, num_points)
    grid = jnp.asarray(grid, values.dtype)
    per_draw = jax.lax.map(lambda rule: broaden(rule[0], rule[1], grid, width), (values, masses))
    return SpectralDensity(
        grid=grid,
        density=jnp.mean(per_draw, axis=0),
        stderr=standard_error(per_draw),
        width=width,
        ritz_values=values,
        ritz_weights=masses,
    )


def broaden(values: jax.Array, masses: jax.Array, grid: jax.Array, width: Scalar) -> jax.Array:
    """Return sum_i masses[i] N(x; values[i], width^2) at every x of the grid, shape [g].

    Of the values and weights of a `SpectralDensity` this makes the density at another width.
    """
    distances = (grid[:, None] - values[None]) / width
    return jax.scipy.stats.norm.pdf(distances) @ masses / width


def _default_width(low: jax.Array, high: jax.Array) -> jax.Array:
    """Return 1/200 of the range, but no less than a grid in float32 resolves, and never zero."""
    width = jnp.maximum((high - low) / 200, jnp.maximum(jnp.abs(low), jnp.abs(high)) / 10_000)
    return jnp.where(width == 0, 1.0, width)
