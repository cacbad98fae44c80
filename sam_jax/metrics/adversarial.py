"""Adversarial sharpness: how far the loss rises when the weights ascend on each batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam_jax.metrics.checks import check_batches, check_count, check_positive
from sam_jax.metrics.evaluation import full_precision, scalar_loss, standard_error, widen_all
from sam_jax.pytree import add, norm, normalise, safe_divide
from sam_jax.typing import Batch, LossFn, Params, PyTree, Scalar


class AdversarialSharpness(NamedTuple):
    """Losses before and after the ascent; scalars, and arrays of shape [n] for n batches."""

    loss: jax.Array  # mean over the batches
    perturbed_loss: jax.Array  # mean over the batches, each at its own perturbation
    sharpness: jax.Array  # perturbed_loss - loss
    stderr: jax.Array  # standard error of the sharpness over the batches, NaN for one batch
    per_batch_loss: jax.Array  # before the ascent
    per_batch_perturbed_loss: jax.Array  # after it


@full_precision
def adversarial_sharpness(
    loss_fn: LossFn,
    params: Params,
    batches: Batch,
    *,
    rho: Scalar = 0.1,
    steps: int = 1,
    step_size: Scalar | None = None,
) -> AdversarialSharpness:
    """Return the m-sharpness: the mean over batches of max L_i(w + delta_i) - L_i(w).

    The maximum over ||delta|| <= rho (Euclidean norm over all parameters together) is sought
    by projected gradient ascent from delta_0 = 0:

        delta_{k+1} = P(delta_k + step_size * g_k / ||g_k||),    g_k = grad L_i(w + delta_k),

    with P(delta) = delta * min(1, rho / ||delta||). The value of a batch is its largest loss over
    delta_1 ... delta_steps, a lower bound on the maximum that can only grow with `steps`.
    (The code of Andriushchenko and Flammarion takes the last iterate, even where the ascent
    has overshot.) The start is not among the candidates: the default, one step of size rho,
    is thus exactly the ascent step of SAM, delta = rho * g / ||g||, and its sharpness is
    negative where that step descends. Where the gradient is exactly zero, delta stays zero.

    With the defaults this is the quantity of Tables 2 (perturbed loss) and 5 (sharpness) of
    the study of asymmetry, with n = 4 and m = 128 or 5000; see `metrics.PUBLISHED` for the
    conditions under which it was taken.

    Each batch costs `steps` gradients and one more loss. The batches run one after the other,
    so the memory is that of one batch. Jit the call to compile it once for many models.

    Args:
      loss_fn: `loss_fn(params, batch)` -> mean loss of the batch, a scalar.
      params: parameters w. They are widened to float32 if narrower.
      batches: a pytree whose leaves have leading axes [n, m, ...]: n batches of m examples.
      rho: radius of the ball, in the units of the parameters.
      steps: number of ascent steps.
      step_size: length of one ascent step; None for `rho`.

    Returns:
      An `AdversarialSharpness`.

    Raises:
      ValueError: for a negative `rho`, `steps` below one, a `step_size` that is not positive,
        batches without two common leading axes, or a `loss_fn` without a scalar value.

    References:
      Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization,
      2021, https://arxiv.org/abs/2010.01412 (Equation 2 and the m-sharpness of Section 4).
      Andriushchenko and Flammarion, Towards Understanding Sharpness-Aware Minimization, 2022,
      https://arxiv.org/abs/2206.06232.

    >>> loss_fn = lambda w, batch: jnp.mean(batch * w**2)
    >>> batches = jnp.array([[1.0, 1.0], [3.0, 5.0]])
    >>> result = adversarial_sharpness(loss_fn, jnp.array(1.0), batches, rho=0.1)
    >>> print(f"{result.sharpness:.3f} +- {result.stderr:.3f}")  # 2.5 * (1.1**2 - 1)
    0.525 +- 0.315
    """
    check_positive("rho", rho, or_zero=True)
    check_count("steps", steps)
    if step_size is None:
        step_size = rho
    else:
        check_positive("step_size", step_size)
    check_batches(batches)
    loss_fn = scalar_loss(loss_fn)
    params = widen_all(params)

    def measure(batch: Batch) -> tuple[jax.Array, jax.Array]:
        def ascend(delta: PyTree, _: None) -> tuple[PyTree, jax.Array]:
            loss, gradient = jax.value_and_grad(loss_fn)(add(params, delta), batch)
            return project(add(delta, normalise(gradient), step_size), rho), loss

        start = jax.tree.map(jnp.zeros_like, params)
        delta, losses = jax.lax.scan(ascend, start, length=steps)
        last = loss_fn(add(params, delta), batch)
        return losses[0], jnp.max(jnp.append(losses[1:], last))

    before, after = jax.lax.map(measure, batches)
    return AdversarialSharpness(
        loss=jnp.mean(before),
        perturbed_loss=jnp.mean(after),
        sharpness=jnp.mean(after - before),
        stderr=standard_error(after - before),
        per_batch_loss=before,
        per_batch_perturbed_loss=after,
    )


def project(delta: PyTree, rho: Scalar) -> PyTree:
    """Return the point of the ball of radius `rho` around zero that is closest to `delta`."""
    length = norm(delta)
    factor = jnp.where(length > rho, safe_divide(rho, length), 1)
    return jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), delta)
