"""Random directions: the gradient is not used."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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


def random_on_sphere(
    rho: ScalarOrSchedule, key: Key, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb in a random direction, uniform on the sphere; the gradient is not used.

    .. math::
      \epsilon = \rho \, \frac{z}{\|z\|_2}, \qquad z \sim \mathcal N(0, I)

    Args:
      rho: radius of the sphere, or a schedule of it.
      key: a typed key from `jax.random.key`; it lives in the state. Every update and every
        sub-batch of an update has its own draw.
      mask: as in `ascent`; z is zero on the leaves that are not chosen.

    Returns:
      A transformation that ignores its gradient and returns epsilon.

    Raises:
      ValueError: rho is negative.
      TypeError: key is not a typed key.

    Source: Foret et al. 2021, section 4; the norm is not squared, as in the released code.
    """
    return _random(rho, key, mask, _on_unit_sphere)


def random_gaussian(
    rho: ScalarOrSchedule, key: Key, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb every parameter with Gaussian noise of its own; the gradient is not used.

    .. math::
      \epsilon = \rho \, z, \qquad z \sim \mathcal N(0, I)

    Args:
      rho: standard deviation of every parameter, or a schedule of it.
      key: as in `random_on_sphere`.
      mask: as in `random_on_sphere`.

    Returns:
      A transformation that ignores its gradient and returns epsilon.

    Raises:
      ValueError: rho is negative.
      TypeError: key is not a typed key.
    """
    return _random(rho, key, mask, lambda z: z)


def random_relative(
    rho: ScalarOrSchedule, relative: ScalarOrSchedule, key: Key, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb every parameter with Gaussian noise, absolute and in proportion to it.

    .. math::
      \epsilon_i = \rho \, z_i + \sigma \, w_i \, z'_i, \qquad z_i, z'_i \sim \mathcal N(0, 1)

    Args:
      rho: standard deviation of what is added, or a schedule of it.
      relative: sigma, the standard deviation of the factor 1 + sigma z', or a schedule of it.
      key: as in `random_on_sphere`.
      mask: as in `random_on_sphere`.

    Returns:
      A transformation that ignores its gradient and returns epsilon.

    Raises:
      ValueError: rho or relative is negative.
      TypeError: key is not a typed key.
    """
    checks.check_not_negative("relative", relative)
    absolute = random_gaussian(rho, key, mask)

    def update(
        gradient: Gradients,
        state: RandomState,
        params: Params = None,
        *,
        sub_batch: Scalar = 0,
        **_: Any,
    ) -> tuple[PyTree, RandomState]:
        epsilon: PyTree = absolute.update(gradient, state, params, sub_batch=sub_batch)[0]
        chosen = select(params, params, mask)
        # A number beyond the places of leaves, which large ones fold in.
        factor_key = jax.random.fold_in(draw_key(state, sub_batch), 2**31 - 1)
        z = select(draws.random_like(factor_key, chosen), params, mask)
        share = value_at(relative, state.count)

        def added(e: jax.Array, z: jax.Array, w: jax.Array) -> jax.Array:
            return e + share * z * pytree.widen(w)

        return jax.tree.map(added, epsilon, z, chosen), advance(state)

    return transformation(init_random(key), update)


def _random(
    rho: ScalarOrSchedule, key: Key, mask: Mask, rescale: Callable[[PyTree], PyTree]
) -> optax.GradientTransformationExtraArgs:
    """Perturb along rho * rescale(z) with z standard normal on the chosen leaves."""
    checks.check_not_negative("rho", rho)

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
        z = select(draws.random_like(draw_key(state, sub_batch), chosen), params, mask)
        return pytree.scale(rescale(z), value_at(rho, state.count)), advance(state)

    return transformation(init_random(key), update)


def _on_unit_sphere(z: PyTree) -> PyTree:
    """Return normal numbers scaled to unit norm, whose squares neither vanish nor overflow."""
    return pytree.scale(z, pytree.safe_divide(1.0, jnp.sqrt(pytree.vdot(z, z))))
