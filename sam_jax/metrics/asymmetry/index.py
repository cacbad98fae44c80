"""The asymmetry index: how odd the loss is around a minimum, in bounds whatever the rises."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.metrics.asymmetry.factor import count_not_positive, rises_on_both_sides
from sam_jax.metrics.checks import check_positive
from sam_jax.metrics.directions.random import choose_directions
from sam_jax.metrics.evaluation import full_precision, scalar_loss, standard_error
from sam_jax.metrics.parameters import loss_of_parameters
from sam_jax.pytree import safe_divide
from sam_jax.typing import Array, Float, Int, Key, LossFn, Params, PyTree, Scalar


class AsymmetryIndex(NamedTuple):
    """Both sides of k directions compared; scalars, and arrays of shape [k]."""

    index: Float[Array, ""]  # 1 - mean |signed|, in [0, 1]
    stderr: Float[
        Array, ""
    ]  # standard error of the index over the directions, NaN for one direction
    signed_mean: Float[Array, ""]  # mean of signed, in [-1, 1]
    signed_stderr: Float[Array, ""]  # its standard error, NaN for one direction
    loss: Float[Array, ""]  # at the parameters themselves
    signed: Float[
        Array, " directions"
    ]  # (plus - minus) / (|plus| + |minus|), zero where both rises are zero
    odd: Float[Array, " directions"]  # (plus - minus) / 2
    even: Float[Array, " directions"]  # (plus + minus) / 2
    plus: Float[Array, " directions"]  # L(w + distance * u) - L(w)
    minus: Float[Array, " directions"]  # L(w - distance * u) - L(w)
    num_not_positive: Int[Array, ""]  # directions on which a rise is not positive; int32


@full_precision
def asymmetry_index(
    loss_fn: LossFn,
    params: Params,
    distance: Scalar,
    *,
    key: Key | None = None,
    num_directions: int = 30,
    distribution: str = "gaussian",
    normalisation: str = "unit",
    directions: PyTree | None = None,
    mesh: Mesh | None = None,
) -> AsymmetryIndex:
    """Return 1 - mean over directions u of |l+ - l-| / (|l+| + |l-|).

    Here l+ = L(w + distance * u) - L(w) and l- = L(w - distance * u) - L(w). The index is one
    where both sides rise alike, and zero where one side rises alone, or the other falls. It is
    also one where both rises are lost in the rounding of the loss: `num_not_positive` counts
    these directions. It stays in [0, 1] away from a minimum too, where the ratios of
    `asymmetry_factor` leave their bounds. Where both rises are positive and r = min / max is that
    ratio, |signed| = (1 - r) / (1 + r).

    The two parts of the loss along u, with gradient g, Hessian H and third derivatives T at w:

    * odd = (l+ - l-) / 2 = distance g'u + distance^3 T[u, u, u] / 6 + ...
    * even = (l+ + l-) / 2 = distance^2 u'Hu / 2 + ...

    The sign of `signed` tells which side is steeper, and changes with the sign of the direction.
    Under a law that is symmetric about zero ("gaussian", "rademacher") the expected `signed_mean`
    is zero whatever the loss. Its distance from zero then only shows the spread of the draws. Under
    "uniform", or along directions with a meaning (`gradient_direction`, `direction_towards`, a
    difference of checkpoints), it says to which side the valley is flat.

    A loss that is not finite makes NaN of `signed` of its direction, and so of `index`,
    `signed_mean` and their standard errors. Its rise, `odd` and `even` are infinite or NaN.

    The cost is two losses a direction and one more, as for `asymmetry_factor`; the points run one
    after the other. Jit the call to compile it once for many models.

    Args:
      loss_fn: `loss_fn(params)` -> scalar, the loss over the whole set.
      params: parameters w. They are widened to float32 if narrower.
      distance: how far to go on each side, in units of the length of a direction. For
        directions relative to the weights (all but "unit") 0.1 to 1 is usual.
      key: a typed key for random directions, as in `random_directions`.
      num_directions: number k of random directions; not used with `directions`.
      distribution: law of the random directions, "gaussian", "uniform" or "rademacher"; not
        used with `directions`.
      normalisation: length of the random directions, "unit", "filter", "layer", "relative" or
        "adaptive" as in `normalise_direction`; not used with `directions`.
      directions: directions to use instead, as they are: a pytree like `params` with one more
        leading axis of size k, such as `stack_directions` makes.
      mesh: devices to share the points out over, as in `loss_plane`; None for no sharing.

    Returns:
      An `AsymmetryIndex`.

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
      Minimisation, 2023, https://github.com/Kausta/R252_SAM (the
      ratio that this index bounds).

    >>> loss_fn = lambda w: jnp.sum(jnp.where(w > 0, 1.0, 3.0) * w**2)
    >>> result = asymmetry_index(loss_fn, jnp.zeros(2), 2.0, directions=jnp.eye(2))
    >>> float(result.index), result.odd.tolist(), result.even.tolist()
    (0.5, [-4.0, -4.0], [8.0, 8.0])
    """
    check_positive("distance", distance)
    loss_fn, parameters = loss_of_parameters(scalar_loss(loss_fn), params)
    direction_at, count = choose_directions(
        params, key, directions, num_directions, distribution, normalisation
    )
    loss, plus, minus = rises_on_both_sides(
        loss_fn, parameters, direction_at, count, distance, mesh=mesh
    )
    signed = safe_divide(plus - minus, jnp.abs(plus) + jnp.abs(minus))
    return AsymmetryIndex(
        index=1 - jnp.mean(jnp.abs(signed)),
        stderr=standard_error(jnp.abs(signed)),
        signed_mean=jnp.mean(signed),
        signed_stderr=standard_error(signed),
        loss=loss,
        signed=signed,
        odd=(plus - minus) / 2,
        even=(plus + minus) / 2,
        plus=plus,
        minus=minus,
        num_not_positive=count_not_positive(plus, minus),
    )
