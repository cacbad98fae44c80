"""Directions in the space of parameters: random ones, the gradient, the way to another model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.draws import check_key, random_like
from sam_jax.known import is_known
from sam_jax.metrics.checks import (
    check_count,
    check_direction,
    check_directions,
    check_distribution,
    check_finite,
    is_zero,
)
from sam_jax.metrics.directions.normalisation import (
    check_normalisation,
    check_weights_give_length,
    normalise_direction,
)
from sam_jax.metrics.evaluation import full_precision, scalar_loss
from sam_jax.metrics.parameters import chosen_parameters, loss_of_parameters
from sam_jax.metrics.placement import with_whole_first_axis
from sam_jax.pytree import normalise, widen
from sam_jax.typing import Key, LossFn, Params, PyTree

# A law's place in this list is part of its random numbers: append, never reorder.
DISTRIBUTIONS = ("gaussian", "uniform", "rademacher")


def random_direction(
    key: Key,
    params: Params,
    index: jax.Array | int,
    distribution: str,
    normalisation: str = "unit",
) -> PyTree:
    """Return direction number `index` of the sequence that `key` and `distribution` name.

    Its random numbers depend on the key, the index and the structure and shapes of `params`, and
    not on their values. So all models of one architecture are measured along the same directions.
    Only the length follows the weights, where the normalisation says so.
    """
    # Without the law's number all laws would turn the same random bits into their directions.
    key = jax.random.fold_in(key, DISTRIBUTIONS.index(distribution))
    key = jax.random.fold_in(key, index)
    if distribution == "rademacher":
        uniform = random_like(key, params, "uniform")
        z = jax.tree.map(lambda x: jnp.where(x < 0.5, -1, 1).astype(x.dtype), uniform)
    else:
        z = random_like(key, params, distribution)
    return normalise_direction(z, params, normalisation)


def random_directions(
    key: Key,
    params: Params,
    num_directions: int,
    distribution: str,
    normalisation: str = "unit",
) -> PyTree:
    """Return independent random directions, of unit norm over all parameters by default.

    With z of the size d of all parameters, each direction is z, scaled as `normalisation` says;
    "unit" gives u = z / ||z||. The law of z:

    * "gaussian": z ~ N(0, I), hence u is uniform on the sphere (isotropic).
    * "rademacher": every entry -1 or 1 with equal chance. All entries of u are 1 / sqrt(d) in
      magnitude, and the curvature u'Hu varies less than for "gaussian".
    * "uniform": z ~ U(0, 1)^d, the law of the study of asymmetry, after He et al. Their code draws
      it for a logistic regression of two parameters. For networks it takes no random direction, but
      the line between two solutions. These directions are all nearly the same one: for large d the
      cosine of u with the vector of ones is sqrt(3) / 2 = 0.866, and the cosine of two such
      directions is 3 / 4.

    Args:
      key: a typed key; every law and every direction draws from a key of its own.
      params: parameters; for "unit" only their structure, shapes and dtypes matter.
      num_directions: how many directions.
      distribution: "gaussian", "uniform" or "rademacher".
      normalisation: "unit", "filter", "layer", "relative" or "adaptive", as in
        `normalise_direction`; all but "unit" take their lengths from the weights.

    Returns:
      A pytree like `params`, in float32 or wider, whose leaves have one more leading axis of
      size `num_directions`.

    Raises:
      ValueError: `key` is not one typed key; the number of directions is below one; the
        distribution or the normalisation is unknown; or the weights would make every direction
        zero.

    References:
      Boca, Cross, Holm and Korkmaz, Towards an Even Better Understanding of Sharpness-Aware
      Minimisation, 2023, https://github.com/Kausta/R252_SAM
      ("uniform").
      He, Huang and Yuan, Asymmetric Valleys: Beyond Sharp and Flat Local Minima, 2019,
      https://github.com/962086838/code-for-Asymmetric-Valley,
      logistic_regression_2params.py ("uniform").

    >>> params = {"kernel": jnp.zeros((200, 300)), "bias": jnp.zeros(300)}
    >>> directions = random_directions(jax.random.key(0), params, 2, "uniform")
    >>> directions["kernel"].shape
    (2, 200, 300)
    >>> cosine = sum(jnp.vdot(u[0], u[1]) for u in jax.tree.leaves(directions))
    >>> print(f"{cosine:.2f}")
    0.75
    """
    check_key(key)
    direction_at, count = choose_directions(
        params, key, None, num_directions, distribution, normalisation
    )
    return jax.lax.map(direction_at, jnp.arange(count))


@full_precision
def gradient_direction(loss_fn: LossFn, params: Params) -> PyTree:
    r"""Return the gradient of the loss, scaled to unit norm: the direction of steepest ascent.

    .. math::
      d = \nabla L(w) / \|\nabla L(w)\|_2

    By the Cauchy-Schwarz inequality no other direction of unit norm has a slope as large. The
    cost is one gradient.

    Args:
      loss_fn: `loss_fn(params)` -> scalar, the loss over the whole set.
      params: parameters w. They are widened to float32 if narrower.

    Returns:
      A pytree like `params`, in float32 or wider. `stack_directions` makes it one of several.

    Raises:
      ValueError: the gradient is exactly zero or not finite (under jit it is not known, and stays
        so), or `loss_fn` does not return a scalar.

    >>> direction = gradient_direction(lambda w: 3 * w[0] + 4 * w[1], jnp.zeros(2))
    >>> [f"{component:.1f}" for component in direction]
    ['0.6', '0.8']
    """
    loss_fn, params = loss_of_parameters(scalar_loss(loss_fn), params)
    gradient = jax.jit(jax.grad(loss_fn))(params)
    check_finite("The gradient of the loss", gradient)
    if is_zero(gradient):
        raise ValueError(
            "The gradient of the loss is zero at these parameters, so it has no direction. Use "
            "random_directions, or parameters beside the stationary point."
        )
    return normalise(gradient)


def direction_towards(params: Params, other: Params, *, unit_norm: bool = False) -> PyTree:
    r"""Return the direction from `params` to the parameters `other`.

    .. math::
      d = w' - w, \qquad w + t \, d = (1 - t) \, w + t \, w'

    As it is, distance 1 along it is the other model, and the distances between 0 and 1 are the
    linear interpolation. With `unit_norm` the distance is Euclidean, as along the random directions
    of unit norm.

    Args:
      params: w, the parameters to start from.
      other: w', the parameters of another model of the same architecture.
      unit_norm: whether to scale the difference to unit norm over all parameters.

    Returns:
      A pytree like `params`, in float32 or wider. `stack_directions` makes it one of several.

    Raises:
      ValueError: the parameters do not fit each other, are not finite, or are equal. (Under jit
        these are not known, and the direction is not finite, or zero.)

    References:
      Goodfellow, Vinyals and Saxe, Qualitatively Characterizing Neural Network Optimization
      Problems, 2015, https://arxiv.org/abs/1412.6544 (the losses between two models).

    >>> towards = direction_towards(jnp.array([1.0, 2.0]), jnp.array([1.0, 6.0]))
    >>> towards.tolist()
    [0.0, 4.0]
    """
    other = check_direction("other", other, params)
    difference = jax.tree.map(
        lambda start, end: widen(end) - start, chosen_parameters(params), other
    )
    check_finite("The difference between other and params", difference)
    if is_zero(difference):
        raise ValueError("other equals params, so there is no direction between them.")
    return normalise(difference) if unit_norm else difference


def stack_directions(*directions: PyTree) -> PyTree:
    r"""Return single directions as one pytree with a leading axis, for `directions=`.

    .. math::
      D_l[i] = d_{i,l}, \qquad i = 0, \dots, k - 1

    for every leaf l. Any pytree like the parameters is a direction: the result of
    `gradient_direction` or `direction_towards`, or an eigenvector of the Hessian.

    Args:
      *directions: k pytrees with the structure and shapes of the parameters.

    Returns:
      One such pytree whose leaves have one more leading axis of size k.

    Raises:
      ValueError: without a direction, or for directions that do not fit each other.

    >>> stack_directions({"w": jnp.zeros(3)}, {"w": jnp.ones(3)})["w"].shape
    (2, 3)
    """
    if not directions:
        raise ValueError("stack_directions needs at least one direction, got none.")
    for number, direction in enumerate(directions):
        check_direction(f"direction {number}", direction, directions[0])
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *directions)


def choose_directions(
    params: Params,
    key: Key | None,
    directions: PyTree | None,
    num_directions: int,
    distribution: str,
    normalisation: str,
) -> tuple[Callable[[jax.Array], PyTree], int]:
    """Return `direction_at(index)` and the number of directions, drawn from `key` or given.

    Random directions are drawn where they are used, never stored.

    Raises:
      ValueError: unless exactly one of `key` and `directions` is given and everything fits.
    """
    if (key is None) == (directions is None):
        raise ValueError(
            "Give either key= (for random directions) or directions= (a pytree like params with "
            f"one more leading axis); got {'neither' if key is None else 'both'}."
        )
    if key is not None:
        params = chosen_parameters(params)
        check_key(key)
        check_count("num_directions", num_directions)
        check_distribution(distribution, DISTRIBUTIONS)
        check_normalisation(normalisation)
        check_weights_give_length(params, normalisation)
        return (
            lambda index: random_direction(key, params, index, distribution, normalisation)
        ), num_directions
    directions, count = check_directions(directions, params)
    _check_each_moves(directions, count)
    directions = with_whole_first_axis(jax.tree.map(jnp.asarray, directions))
    return lambda index: jax.tree.map(lambda leaf: leaf[index], directions), count


def _check_each_moves(directions: PyTree, count: int) -> None:
    if not is_known(directions):
        return
    rows = [np.asarray(leaf).reshape(count, -1) for leaf in jax.tree.leaves(directions)]
    moves = np.any([row.any(axis=1) for row in rows], axis=0)
    finite = np.all([np.isfinite(row).all(axis=1) for row in rows], axis=0)
    for fit, wanted, found in ((moves, "not be zero", "is"), (finite, "be finite", "is not")):
        if not fit.all():
            raise ValueError(
                f"directions must {wanted}, but number {int(np.argmin(fit))} of {count} {found}: "
                "leave it out."
            )
