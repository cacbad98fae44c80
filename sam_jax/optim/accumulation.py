"""The gradient of a batch too large for memory: accumulated over sub-batches, at one point."""

from collections.abc import Callable
from typing import Any

from sam_jax.optim.sub_batches import m_sam
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Batch, Params, PyTree


def accumulated(
    grad_fn: Callable[..., Any], m: int, *, has_aux: bool = False, **options: Any
) -> Callable[..., Any]:
    r"""Let a gradient run over sub-batches of m examples, one after the other, and give the mean.

    .. math::
      \nabla L_B(w) = \frac{1}{|B| / m} \sum_{U \subset B, \, |U| = m} \nabla L_U(w)

    It takes the memory of one sub-batch, besides the batch and one gradient. Given to a method as
    its grad_fn, every pass of the method is accumulated: `sam` then makes one perturbation of the
    gradient of the whole batch, and descends along the gradient of the whole batch there. That is
    n-SAM. `m_sam(sam(rho), m, "scan")` in contrast has a perturbation for each sub-batch.

    Args:
      grad_fn: (params, batch) -> gradients of the mean loss of the batch that it gets, such as
        `jax.grad(loss_fn)`.
      m: examples in a sub-batch; it divides the batch.
      has_aux: whether grad_fn returns (gradients, auxiliary outputs).
      **options: `axis_name`, `combine`, `batch_axes` and `mesh`, as in `m_sam`.

    Returns:
      A function (params, batch, **extra) -> what grad_fn returns; auxiliary outputs are combined as
      in `m_sam`. It takes `weights`, `rngs` and `shared` as extra arguments, as the update of
      `m_sam` does.

    Raises:
      ValueError: batch is missing, or m does not divide it.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w, batch: jnp.mean((batch @ w - 1.0) ** 2))
      >>> batch, w = jnp.arange(8.0).reshape(8, 1), jnp.array([0.5])
      >>> grad_fn_by_twos = sam_jax.accumulated(grad_fn, m=2)
      >>> tx = sam_jax.sam(rho=0.1)
      >>> gradient, _ = tx.update(
      ...     grad_fn_by_twos(w, batch),
      ...     tx.init(w),
      ...     w,
      ...     grad_fn=lambda w: grad_fn_by_twos(w, batch),
      ... )
      >>> print(gradient, grad_fn(w + 0.1, batch))  # one ascent and one descent, of all examples
      [14.] [14.]
    """
    by_parts = m_sam(_PLAIN, m, "scan", **options)

    def with_aux(*arguments: Any, **keywords: Any) -> tuple[PyTree, Any]:
        found = grad_fn(*arguments, **keywords)
        return found if has_aux else (found, None)

    def over_sub_batches(params: Params, batch: Batch = None, **extra_args: Any) -> Any:
        result, _ = by_parts.gradient(with_aux, params, (), batch=batch, **extra_args)
        return (result.gradient, result.clean_aux) if has_aux else result.gradient

    return over_sub_batches


def _plain_gradient(
    grad_fn: AuxiliaryGradFn, params: Params, state: tuple[()], **_: Any
) -> tuple[SharpnessAwareGradient, tuple[()]]:
    gradient, aux = grad_fn(params)
    return SharpnessAwareGradient(gradient, aux, None), state


# The method that perturbs nothing.
_PLAIN = SharpnessAwareTransformation(lambda params: (), _plain_gradient)
