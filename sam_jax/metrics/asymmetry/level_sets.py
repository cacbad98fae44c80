"""How far a minimum reaches on both sides until the loss has risen by a given amount."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sam_jax.metrics.checks import check_count, check_loss, check_positive
from sam_jax.metrics.directions.random import choose_directions
from sam_jax.metrics.evaluation import full_precision, scalar_loss, unknown
from sam_jax.metrics.over_devices import map_rows
from sam_jax.metrics.parameters import loss_of_parameters
from sam_jax.pytree import add
from sam_jax.typing import Array, Bool, Float, Int, Key, LossFn, Params, PyTree, Scalar


class LevelSetWidths(NamedTuple):
    """Widths of a level set on both sides of k directions; scalars, and arrays of shape [k]."""

    factor: Float[Array, ""]  # mean of the ratios that are not censored, NaN if all are
    stderr: Float[Array, ""]  # standard error of the factor over these directions, NaN for one
    lower: Float[Array, ""]  # least value the mean over all directions can have: censored ratios 0
    upper: Float[Array, ""]  # largest value it can have: censored widths max_distance
    num_censored: Int[Array, ""]  # directions with a censored side; int32
    loss: Float[Array, ""]  # L(w)
    ratios: Float[
        Array, " directions"
    ]  # min(plus, minus) / max(plus, minus), NaN where a side is censored
    plus: Float[
        Array, " directions"
    ]  # mu+, where L(w + mu+ u) = L(w) + rise; max_distance where censored
    minus: Float[
        Array, " directions"
    ]  # mu-, where L(w - mu- u) = L(w) + rise; max_distance where censored
    plus_censored: Bool[
        Array, " directions"
    ]  # whether the loss stays below the level up to max_distance; bool
    minus_censored: Bool[Array, " directions"]  # the same for the minus side


@full_precision
def level_set_widths(
    loss_fn: LossFn,
    params: Params,
    rise: Scalar,
    max_distance: Scalar,
    *,
    key: Key | None = None,
    num_directions: int = 10,
    distribution: str = "gaussian",
    normalisation: str = "unit",
    directions: PyTree | None = None,
    doublings: int = 10,
    bisections: int = 10,
    mesh: Mesh | None = None,
) -> LevelSetWidths:
    """Return the widths mu+ and mu- on both sides, and the mean of min(mu+, mu-) / max(mu+, mu-).

    Along a direction u, mu+ is the distance at which L(w + mu+ u) = L(w) + rise, and mu- the
    distance at which L(w - mu- u) = L(w) + rise. A factor of one means a symmetric level set.
    `asymmetry_factor` compares the rises at a fixed distance. This ratio, in contrast, is always in
    (0, 1] and free of units. It looks at every model at the same height over its minimum, however
    sharp.

    **Bracketing.** The loss is evaluated at max_distance / 2^doublings, and then at twice the
    distance again and again. This ends where the loss is at the level or above, or at max_distance.
    So the first crossing *on this grid* is found: a loss that crosses the level and comes back
    between two points of the grid is missed. Where L is convex along u there is one crossing only.
    A loss that is NaN counts as above the level, like values behind an overflow.

    **Bisection.** The bracket is halved `bisections` times, and its middle is the width. It is off
    by at most width / 2^(bisections + 1). For a width below the first point of the grid, the bound
    is max_distance / 2^(doublings + bisections + 1). The rise must be well above the rounding of
    L(w), in float32 about 1e-7 L(w).

    **Censoring.** Where the level is not reached up to max_distance, the width is only known to be
    larger (right-censored): it is reported as max_distance, with a flag. The ratio of this
    direction is NaN, and `factor` and `stderr` leave it out. That favours symmetric directions, so
    read them with `num_censored`; `lower` and `upper` bound the mean over all directions.

    The cost is at most doublings + bisections + 1 losses on each side of a direction, and one
    more. The points run one after the other through one compiled loop. Jit the call to compile
    it once for many models.

    Args:
      loss_fn: `loss_fn(params)` -> scalar, the loss over the whole set.
      params: parameters w. They are widened to float32 if narrower.
      rise: height of the level over L(w), in units of the loss, such as 0.1.
      max_distance: end of the bracket, in units of the length of a direction.
      key: a typed key for random directions, as in `random_directions`.
      num_directions: number k of random directions; not used with `directions`.
      distribution: law of the random directions, "gaussian", "uniform" or "rademacher"; not
        used with `directions`.
      normalisation: length of the random directions, "unit", "filter", "layer", "relative" or
        "adaptive" as in `normalise_direction`; not used with `directions`.
      directions: directions to use instead, as they are: a pytree like `params` with one more
        leading axis of size k, such as `stack_directions` makes.
      doublings: how often the first distance is doubled until it is max_distance.
      bisections: how often a bracket is halved.
      mesh: devices to share the searches out over, as in `loss_plane`; None for no sharing.

    Returns:
      A `LevelSetWidths`. All widths are NaN, and none is censored, if L(w) or L(w) + rise is not
      finite in the dtype of the loss. The same holds if `rise` or `max_distance` is not positive
      and finite. Such values pass only under jit, or where a number is beyond the range of that
      dtype.

    Raises:
      ValueError: if one of these holds:
        - not exactly one of `key` (one typed key) and `directions` is given;
        - `rise` or `max_distance` is not positive;
        - `num_directions`, `doublings` or `bisections` is below one;
        - the distribution or the normalisation is unknown;
        - directions are zero, not finite or do not fit `params`;
        - `loss_fn` does not return a scalar, or L(w) is not finite.

    References:
      Boca, Cross, Holm and Korkmaz, Towards an Even Better Understanding of Sharpness-Aware
      Minimisation, 2023, https://github.com/Kausta/R252_SAM (the
      ratio of the rises at one distance).

    >>> loss_fn = lambda w: jnp.sum(jnp.where(w > 0, 1.0, 4.0) * w**2)
    >>> result = level_set_widths(loss_fn, jnp.zeros(2), 1.0, 8.0, directions=jnp.eye(2))
    >>> [f"{width:.2f}" for width in (result.plus[0], result.minus[0], result.factor)]
    ['1.00', '0.50', '0.50']
    """
    check_positive("rise", rise)
    check_positive("max_distance", max_distance)
    check_count("doublings", doublings)
    check_count("bisections", bisections)
    loss_fn, parameters = loss_of_parameters(scalar_loss(loss_fn), params)
    direction_at, count = choose_directions(
        params, key, directions, num_directions, distribution, normalisation
    )
    loss = jax.jit(loss_fn)(parameters)
    check_loss(loss)
    level = loss + rise
    end = jnp.asarray(max_distance, loss.dtype)
    # Not by doubling the distance, which would stay at zero where the first one underflows.
    grid = end * jnp.asarray(0.5 ** np.arange(doublings, -1, -1), loss.dtype)
    measurable = jnp.isfinite(loss) & jnp.isfinite(level) & (rise > 0)
    measurable &= jnp.isfinite(end) & (end > 0)

    def side(point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        index, sign = point
        direction = direction_at(index)

        # The level lies between low and high, or beyond low as long as high is infinite. Every
        # turn raises one of the two counts, so that the search ends whatever the numbers are.
        def search_on(bracket: tuple[jax.Array, ...]) -> jax.Array:
            _, high, points, halvings = bracket
            return jnp.where(jnp.isfinite(high), halvings < bisections, points <= doublings)

        def search(bracket: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            low, high, points, halvings = bracket
            bracketed = jnp.isfinite(high)
            distance = jnp.where(bracketed, (low + high) / 2, grid[points])
            # Negated, so that NaN counts as above.
            above = ~(loss_fn(add(parameters, direction, sign * distance)) < level)
            return (
                jnp.where(above, low, distance),
                jnp.where(above, distance, high),
                points + ~bracketed,
                halvings + bracketed,
            )

        start = (jnp.zeros_like(end), jnp.full_like(end, jnp.inf), jnp.int32(0), jnp.int32(0))
        low, high, _, _ = jax.lax.while_loop(search_on, search, start)
        censored = ~jnp.isfinite(high) & measurable
        return jnp.where(censored, end, (low + high) / 2), censored

    # The plus side of every direction, then the minus side.
    indices = jnp.tile(jnp.arange(count), 2)
    signs = jnp.repeat(jnp.asarray([1, -1], loss.dtype), count)
    widths, censored = map_rows(side, (indices, signs), mesh)
    widths = jnp.where(measurable, widths, jnp.nan)
    (plus, minus), (plus_censored, minus_censored) = jnp.split(widths, 2), jnp.split(censored, 2)
    any_censored = plus_censored | minus_censored
    bounds = jnp.minimum(plus, minus) / jnp.maximum(plus, minus)
    ratios = jnp.where(any_censored, jnp.nan, bounds)
    if count == 1:
        stderr = unknown(loss)
    else:
        num_kept = jnp.sum(~any_censored).astype(ratios.dtype)
        stderr = jnp.std(ratios, where=~any_censored, ddof=1) / jnp.sqrt(num_kept)
    return LevelSetWidths(
        factor=jnp.mean(ratios, where=~any_censored),
        stderr=stderr,
        lower=jnp.mean(jnp.where(any_censored, 0, ratios)),
        upper=jnp.mean(bounds),
        num_censored=jnp.sum(any_censored, dtype=jnp.int32),
        loss=loss,
        ratios=ratios,
        plus=plus,
        minus=minus,
        plus_censored=plus_censored,
        minus_censored=minus_censored,
    )
