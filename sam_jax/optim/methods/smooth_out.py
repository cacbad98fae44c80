"""SmoothOut."""

from typing import Any

import jax
import jax.numpy as jnp

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.passes import mean_over_passes, run_rounds
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Key, Params, PyTree, Scalar, ScalarOrSchedule


def smooth_out(
    radius: ScalarOrSchedule,
    key: Key,
    copies: int = 1,
    adaptive: bool = False,
    mask: Mask = None,
) -> SharpnessAwareTransformation:
    r"""SmoothOut: the mean gradient over copies of the parameters with uniform noise.

    .. math::
      G(w) = \frac{1}{k} \sum_{j=1}^k \nabla L(w + \epsilon_j), \qquad
      \epsilon_j = a u_j, \quad u_{ji} \sim U(-1, 1)

    or, adaptive, with noise as long as a times the filter that it is added to:
    epsilon_f = a ||w_f|| u_f / ||u_f||. The cost is k gradients, one by default, and k draws for
    every weight: the clean gradient that update receives is not used, and under jit never computed.

    Args:
      radius: a, or a schedule of it. Without `adaptive` it is in the units of the weights.
      key: a typed key, `jax.random.key(seed)`; it is kept in the state.
      copies: k. One copy is the paper's stochastic SmoothOut, an unbiased estimate of more.
      adaptive: whether the noise follows the norms of the filters, an entry of a kernel's last
        axis each (AdaSmoothOut); in leaves with fewer than two axes every weight is a filter.
      mask: as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: radius is negative, copies is not a positive int, or grad_fn is missing.
      TypeError: key is not a typed key.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(jnp.abs(w)))  # a kink at zero
      >>> tx = sam_jax.smooth_out(radius=0.5, key=jax.random.key(0), copies=1000)
      >>> params = jnp.array([0.25, 1.0])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient.round(1))  # the kink, smoothed over a width of one, has slope w / 0.5
      [0.5 1. ]

    Source: Wen et al. 2018, "SmoothOut: Smoothing Out Sharp Minima to Improve Generalization in
    Deep Learning"; wenwei202/smoothout, which by default leaves batch norm without noise: for that
    give the mask of all other layers, `leaves_where(lambda path, leaf: "BatchNorm" not in path)`.
    """
    if not isinstance(copies, int) or copies < 1:
        raise ValueError(f"copies must be a positive int, got {copies!r}.")
    single = sharpness_aware(
        perturbations.uniform_noise(radius, key, adaptive, mask), needs_clean_gradient=False
    )
    if copies == 1:
        return single

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: PyTree,
        *,
        clean: Any = None,
        sub_batch: Scalar = 0,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        def copy(_: PyTree, index: jax.Array) -> tuple[PyTree, tuple[PyTree, PyTree]]:
            result, new_state = single.gradient(
                grad_fn, params, state, sub_batch=sub_batch * copies + index, **extra_args
            )
            return new_state, (result.gradient, result.perturbed_aux)

        new_state, (gradients, aux) = run_rounds(copy, state, jnp.arange(copies))
        result = SharpnessAwareGradient(
            mean_over_passes(gradients), None if clean is None else clean[1], mean_over_passes(aux)
        )
        return result, new_state

    return SharpnessAwareTransformation(single.init, gradient)
