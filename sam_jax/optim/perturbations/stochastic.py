"""Ascent along a random part of the gradient."""

from typing import Any, Literal

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

Granularity = Literal["parameter", "tensor"]


def stochastic_ascent(
    rho: ScalarOrSchedule,
    beta: ScalarOrSchedule,
    key: Key,
    mask: Mask = None,
    granularity: Granularity = "parameter",
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the gradient, each parameter with probability beta.

    .. math::
      \epsilon_i = \frac{b_i}{\beta} \, \rho \, \frac{g_i}{\|g\|_2}, \qquad
      b_i \sim \mathrm{Bernoulli}(\beta)

    The norm runs over the whole gradient, so that the mean of epsilon is the epsilon of `ascent`.

    Args:
      rho: radius of the ball, or a schedule of it.
      beta: the probability, in (0, 1], or a schedule of it; the number 1 draws nothing.
      key: a typed key from `jax.random.key`; it lives in the state. Every update and every
        sub-batch of an update has its own draw.
      mask: as in `ascent`.
      granularity: "parameter" draws a b for every scalar, "tensor" one b a leaf.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho is negative, beta is not in (0, 1], or the granularity is unknown.
      TypeError: key is not a typed key.

    Source: Du et al. 2022 (ESAM), stochastic weight perturbation.
    """
    checks.check_not_negative("rho", rho)
    _check_probability(beta)
    checks.check_choice("granularity", granularity, tuple(_DRAW))
    keeps_all = isinstance(beta, int | float) and beta == 1

    def update(
        gradient: Gradients,
        state: RandomState,
        params: Params = None,
        *,
        sub_batch: Scalar = 0,
        **_: Any,
    ) -> tuple[PyTree, RandomState]:
        direction = pytree.normalise(select(gradient, params, mask))
        epsilon = pytree.scale(direction, value_at(rho, state.count))
        if not keeps_all:
            numbers = _DRAW[granularity](draw_key(state, sub_batch), epsilon)
            epsilon = _keep(epsilon, numbers, value_at(beta, state.count))
        return epsilon, advance(state)

    return transformation(init_random(key), update)


def _keep(epsilon: PyTree, numbers: PyTree, beta: Scalar) -> PyTree:
    """Keep epsilon, scaled by 1 / beta, where the uniform number is below beta."""
    return jax.tree.map(lambda e, u: jnp.where(u < beta, e / beta, 0), epsilon, numbers)


def _uniform_a_parameter(key: Key, tree: PyTree) -> PyTree:
    return draws.random_like(key, tree, "uniform")


def _uniform_a_tensor(key: Key, tree: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(jax.random.uniform(key, (len(leaves),)))


_DRAW = {"parameter": _uniform_a_parameter, "tensor": _uniform_a_tensor}


def _check_probability(beta: Any) -> None:
    number = checks.known_number("beta", beta)
    if number is not None and not 0 < number <= 1:
        raise ValueError(f"beta must lie in (0, 1], got {beta}: the part that is perturbed.")
