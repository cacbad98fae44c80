"""How long a direction is: its scale, as a whole or tensor by tensor, relative to the weights."""

import jax
import jax.numpy as jnp

from sam_jax.metrics.checks import check_direction, is_zero
from sam_jax.metrics.parameters import chosen_parameters
from sam_jax.pytree import (
    in_safe_range,
    norm,
    normalise,
    norms,
    power_of_two,
    safe_divide,
    scale,
    widen,
)
from sam_jax.typing import Params, PyTree

NORMALISATIONS = ("unit", "filter", "layer", "relative", "adaptive")


def normalise_direction(
    direction: PyTree, params: Params, normalisation: str = "unit", *, filter_axis: int = -1
) -> PyTree:
    """Return `direction`, called z here, scaled to unit norm or relative to the weights w.

    * "unit": z / ||z||, with the norm over all parameters together. A distance is Euclidean.
    * "relative": ||w|| z / ||z||. Distance 1 moves the weights by their whole norm. Moves with
      one common factor of all weights.
    * "layer": z_l ||w_l|| / ||z_l|| for every leaf l. Moves with one factor a leaf.
    * "filter": z_f ||w_f|| / ||z_f|| for every output filter or neuron f, which is one slice of a
      leaf along `filter_axis`. Leaves of one axis or none (biases, BatchNorm) get zero. Moves with
      one factor a filter, which BatchNorm undoes behind a convolution.
    * "adaptive": |w| * z / ||z||, weight by weight. Moves with one factor a weight, so also with
      the rescaling of a neuron of a ReLU network (c inwards, 1 / c outwards). Its norm is about
      ||w|| / sqrt(d) for d weights, less than the norm of the other relative ones.

    "Moves with" means: where the factor leaves the loss as it is, the losses along the direction
    stay as they are too. Losses along a direction of unit norm do not.

    Args:
      direction: a pytree like `params`.
      params: parameters w; of no effect for "unit".
      normalisation: "unit", "relative", "layer", "filter" or "adaptive".
      filter_axis: the axis of the outputs: the last one in Flax, Haiku and Keras, and 0 in
        Equinox and PyTorch. Only for "filter".

    Returns:
      A pytree like `params`, in float32 or wider. A part of norm zero stays zero.

    Raises:
      ValueError: the normalisation is unknown; the direction does not fit `params`; or a leaf of at
        least two axes does not have `filter_axis` ("filter").

    References:
      Li et al., Visualizing the Loss Landscape of Neural Nets, 2018,
      https://arxiv.org/abs/1712.09913 ("filter"; biases and BatchNorm as in its code).
      Kwon et al., ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of
      Deep Neural Networks, 2021, https://arxiv.org/abs/2102.11600 (the scaling of "adaptive").

    >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.array([7.0, 7.0])}
    >>> direction = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    >>> scaled = normalise_direction(direction, params, "filter")
    >>> jnp.linalg.norm(scaled["kernel"], axis=0).round(3).tolist(), scaled["bias"].tolist()
    ([5.0, 2.0], [0.0, 0.0])
    """
    check_normalisation(normalisation)
    direction, params = check_direction("direction", direction, params), chosen_parameters(params)
    if normalisation == "unit":
        return normalise(direction)
    direction = jax.tree.map(widen, direction)
    if normalisation == "relative":
        direction, _ = in_safe_range(direction)
        return scale(direction, safe_divide(norm(params), norm(direction)))
    if normalisation == "adaptive":
        shortened = normalise(direction)
        return jax.tree.map(lambda z, w: jnp.abs(w) * z, shortened, params)

    def like_weights(z: jax.Array, w: jax.Array) -> jax.Array:
        if normalisation == "layer":
            return _with_norms_of(w, z, tuple(range(w.ndim)))
        if w.ndim <= 1:
            return jnp.zeros_like(z)
        if filter_axis not in range(-w.ndim, w.ndim):
            raise ValueError(
                "filter_axis must be an axis of every leaf of params with at least two; got "
                f"{filter_axis!r} for a leaf of shape {w.shape}."
            )
        inputs = tuple(axis for axis in range(w.ndim) if axis != filter_axis % w.ndim)
        return _with_norms_of(w, z, inputs)

    return jax.tree.map(like_weights, direction, params)


def check_normalisation(normalisation: str) -> None:
    """Raise a ValueError that lists the known normalisations unless this is one of them."""
    if normalisation not in NORMALISATIONS:
        raise ValueError(
            f"normalisation must be one of {list(NORMALISATIONS)}, got {normalisation!r}."
        )


def check_weights_give_length(params: Params, normalisation: str) -> None:
    """Raise a ValueError where all directions relative to these weights would be zero.

    Weights that are traced by jit are not known yet and pass.
    """
    if normalisation == "unit":
        return
    leaves = jax.tree.leaves(params)
    if normalisation == "filter":
        leaves = [leaf for leaf in leaves if jnp.ndim(leaf) > 1]
        if not leaves:
            raise ValueError(
                'normalisation "filter" needs a leaf of at least two axes, because those of one '
                'axis or none stay fixed: params has none. Use "layer", "adaptive" or "relative".'
            )
    if is_zero(leaves):
        raise ValueError(
            f"normalisation {normalisation!r} is relative to the weights, and all of them are "
            'zero. Give the parameters of a model, or use "unit".'
        )


def _with_norms_of(w: jax.Array, z: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return `z`, scaled to the norms of `w` along some axes."""
    z = z * power_of_two(jnp.max(jnp.abs(z), axis=axes, keepdims=True, initial=0))
    return z * safe_divide(norms(w, axes), norms(z, axes))
