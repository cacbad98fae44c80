"""The asymmetry factor: how unequally the loss rises on the two sides of a minimum."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sam_jax.metrics.checks import check_loss, check_positive
from sam_jax.metrics.directions.random import choose_directions
from sam_jax.metrics.evaluation import (
    full_precision,
    losses_along,
    scalar_loss,
    standard_error,
)
from sam_jax.metrics.parameters import loss_of_parameters
from sam_jax.typing import Array, Float, Int, Key, LossFn, Params, PyTree, Scalar


class AsymmetryFactor(NamedTuple):
    """Rises of the loss on both sides of k directions; scalars, and arrays of shape [k]."""

    factor: Float[Array, ""]  # mean of the ratios
    stderr: Float[
        Array, ""
    ]  # standard error of the factor over the directions, NaN for one direction
    loss: Float[Array, ""]  # at the parameters themselves
    ratios: Float[Array, " directions"]  # min(plus, minus) / max(plus, minus)
    plus: Float[Array, " directions"]  # L(w + distance * u) - L(w)
    minus: Float[Array, " directions"]  # L(w - distance * u) - L(w)
    num_not_positive: Int[Array, ""]  # directions on which a rise is not positive; int32


@full_precision
def asymmetry_factor(
    loss_fn: LossFn,
    params: Params,
    distance: Scalar = 5.0,
    *,
    key: Key | None = None,
    num_directions: int = 30,
    distribution: str = "uniform",
    normalisation: str = "unit",
    directions: PyTree | None = None,
    mesh: Mesh | None = None,
) -> AsymmetryFactor:
    """Return the mean over directions u of min(l+, l-) / max(l+, l-).

    Here l+ = L(w + distance * u) - L(w) and l- = L(w - distance * u) - L(w). A factor of one
    means that both sides rise alike, a factor near zero that one side is much flatter.

    The ratios are raw. They lie in [0, 1] only where both rises are positive. Where w is not a
    minimum along u, the ratio is negative (one side falls), at least one (both fall) or not finite
    (no side rises). One such ratio can dominate the factor: `num_not_positive` counts these
    directions, and a factor is only as good as that count is small. A side whose loss overflows to
    infinity is not counted: beside a finite rise it makes the ratio exactly 0.

    With the defaults this is the definition behind the asymmetry column of Table 1 and
    Figure 5 of the study of asymmetry (its notation: Omega, mu = 5, m = 30; the loss is the mean
    over the whole training set). Its law "uniform", normalised U(0, 1) draws, is also used in He et
    al.'s code, for a net of two parameters. For many parameters it draws nearly the same direction
    each time: a shift of all of them by about the same amount. So the standard error over
    directions says little about other directions; "gaussian" is isotropic.

    A distance along directions of unit norm means less to a model with larger weights, even where
    their scale changes none of its outputs. To compare models whose weights differ in scale, choose
    a `normalisation` relative to the weights, "filter" above all, and a distance of 0.1 to 1.

    The cost is two losses a direction and one more. The points run one after the other through
    one compiled loss, and random directions are drawn inside the loop, never stored. Jit the
    call to compile it once for many models.

    Args:
      loss_fn: `loss_fn(params)` -> scalar, the loss over the whole set.
      params: parameters w. They are widened to float32 if narrower.
      distance: how far to go on each side, in units of the length of a direction.
      key: a typed key for random directions, as in `random_directions`. They depend on the key and
        the structure of the parameters only, so all models of one architecture are measured along
        the same directions. Their lengths depend on the weights too, where `normalisation` says so.
      num_directions: number k of random directions; not used with `directions`.
      distribution: law of the random directions, "uniform", "gaussian" or "rademacher"; not
        used with `directions`.
      normalisation: length of the random directions, "unit", "filter", "layer", "relative" or
        "adaptive" as in `normalise_direction`; not used with `directions`.
      directions: directions to use instead, a pytree like `params` with one more leading axis
        of size k. They are used as given and not scaled to unit norm, because scaled directions
        (such as filter-normalised ones) carry their own units.
      mesh: devices to share the points out over, as in `loss_plane`; None for no sharing.

    Returns:
      An `AsymmetryFactor`.

    Raises:
      ValueError: if one of these holds:
        - not exactly one of `key` (one typed key) and `directions` is given;
        - `distance` is not positive, or `num_directions` is below one;
        - the distribution or the normalisation is unknown;
        - directions are zero, not finite or do not fit `params`;
        - `loss_fn` does not return a scalar, or the loss at `params` is not finite. (Under jit
          the loss is not known, and the rises are not finite.)

    References:
      Boca, Cross, Holm and Korkmaz, Towards an Even Better Understanding of Sharpness-Aware
      Minimisation, 2023, https://github.com/Kausta/R252_SAM.
      He, Huang and Yuan, Asymmetric Valleys: Beyond Sharp and Flat Local Minima, 2019,
      https://arxiv.org/abs/1902.00744 (asymmetric directions), and its code,
      https://github.com/962086838/code-for-Asymmetric-Valley, logistic_regression_2params.py.

    >>> loss_fn = lambda w: jnp.sum(jnp.where(w > 0, 1.0, 4.0) * w**2)
    >>> result = asymmetry_factor(loss_fn, jnp.zeros(3), distance=2.0, key=jax.random.key(0))
    >>> print(f"{result.factor:.2f} from {result.ratios.shape[0]} directions")
    0.25 from 30 directions
    >>> axes = jnp.eye(3)  # one direction a row
    >>> asymmetry_factor(loss_fn, jnp.zeros(3), distance=2.0, directions=axes).minus.tolist()
    [16.0, 16.0, 16.0]
    """
    check_positive("distance", distance)
    loss_fn, parameters = loss_of_parameters(scalar_loss(loss_fn), params)
    direction_at, count = choose_directions(
        params, key, directions, num_directions, distribution, normalisation
    )
    loss, plus, minus = rises_on_both_sides(
        loss_fn, parameters, direction_at, count, distance, mesh=mesh
    )
    ratios = jnp.minimum(plus, minus) / jnp.maximum(plus, minus)
    return AsymmetryFactor(
        factor=jnp.mean(ratios),
        stderr=standard_error(ratios),
        loss=loss,
        ratios=ratios,
        plus=plus,
        minus=minus,
        num_not_positive=count_not_positive(plus, minus),
    )


def rises_on_both_sides(
    loss_fn: LossFn,
    params: Params,
    direction_at: Callable[[jax.Array], PyTree],
    count: int,
    distance: Scalar,
    *,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return L(w), and L(w + distance * u) - L(w) and L(w - distance * u) - L(w), shapes [k]."""
    # The points: w itself, then the plus side of every direction, then the minus side.
    sides = np.arange(count)
    losses = losses_along(
        loss_fn,
        params,
        direction_at,
        indices=jnp.asarray([0, *sides, *sides]),
        distances=distance * jnp.asarray(np.repeat([0.0, 1.0, -1.0], [1, count, count])),
        mesh=mesh,
    )
    check_loss(losses[0])
    plus, minus = jnp.split(losses[1:] - losses[0], 2)
    return losses[0], plus, minus


def count_not_positive(plus: jax.Array, minus: jax.Array) -> jax.Array:
    """Return on how many directions a rise is not positive; NaN is not."""
    return jnp.sum(~((plus > 0) & (minus > 0)), dtype=jnp.int32)
