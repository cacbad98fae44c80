"""Uniform noise on every weight: the gradient is not used."""

from typing import Any

import jax
import optax

from sam_jax import draws, pytree
from sam_jax.optim import checks
from sam_jax.optim.perturbations.common import (
    Mask,
    RandomState,
    advance,
    draw_key,
    init_random,
    select,
    transformation,
    value_at,
)
from sam_jax.typing import Gradients, Key, Params, PyTree, Scalar, ScalarOrSchedule


def uniform_noise(
    radius: ScalarOrSchedule, key: Key, adaptive: bool = False, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb every weight by uniform noise of its own; the gradient is not used.

    .. math::
      \epsilon = a u, \qquad u_i \sim U(-1, 1), \qquad \text{or, adaptive,} \qquad
      \epsilon_f = a \, \|w_f\|_2 \, \frac{u_f}{\|u_f\|_2} \quad \text{for every filter } f

    A filter is all weights that lead to one output: an entry of a kernel's last axis. In leaves
    with fewer than two axes every weight is one, so that epsilon = +-a |w| there.

    Args:
      radius: a, or a schedule of it.
      key: a typed key; it lives in the state. Every update and every sub-batch of an update has its
        own draw.
      adaptive: whether the noise of a filter has a length of a times the filter's.
      mask: as in `ascent`; the leaves that are not chosen get no noise.

    Returns:
      A transformation that ignores its gradient and returns epsilon.

    Raises:
      ValueError: radius is negative.
      TypeError: key is not a typed key.

    Source: Wen et al. 2018; the adaptive noise as its released code computes it.
    """
    checks.check_not_negative("radius", radius)

    def update(
        gradient: Gradients,
        state: RandomState,
        params: Params = None,
        *,
        sub_batch: Scalar = 0,
        **_: Any,
    ) -> tuple[PyTree, RandomState]:
        del gradient
        chosen = select(params, params, mask)
        draw = draws.random_like(draw_key(state, sub_batch), chosen, "uniform")
        noise = jax.tree.map(lambda u: 2 * u - 1, draw)
        if adaptive:
            noise = jax.tree.map(_with_filter_norms_of, noise, chosen)
        noise = select(noise, params, mask)  # an array of booleans chooses entries
        return pytree.scale(noise, value_at(radius, state.count)), advance(state)

    return transformation(init_random(key), update)


def _with_filter_norms_of(noise: jax.Array, w: jax.Array) -> jax.Array:
    """Scale each filter of the noise to the norm of the same filter of the weights."""
    axes = tuple(range(w.ndim - 1)) if w.ndim > 1 else ()
    return noise * pytree.safe_divide(1.0, pytree.norms(noise, axes)) * pytree.norms(w, axes)
