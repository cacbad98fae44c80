"""Functions for trainers that hand on no grad_fn."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import optax

from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Gradients, Params, PyTree


@runtime_checkable
class _TrainState(Protocol):
    """What `apply_gradients` uses of a train state."""

    @property
    def tx(self) -> Any:
        """The optax transformation."""
        ...

    def replace(self, **fields: Any) -> Any:
        """Return the state with other fields."""
        ...


TrainState = TypeVar("TrainState", bound=_TrainState)


def value_and_grad(
    method: SharpnessAwareTransformation,
    value_and_grad_fn: Callable[..., tuple[Any, Gradients]],
) -> Callable[..., tuple[tuple[Any, Gradients], PyTree]]:
    r"""Give what `jax.value_and_grad` gives, with the sharpness-aware gradient.

    .. math::
      \big(L(w), \nabla L(w)\big) \;\to\; \big(L(w), G(w)\big)

    with G the gradient of the method. The optimiser then needs no `grad_fn`, and no trainer or
    optax wrapper has to hand one on: the method stands before it, not in its chain.

    Args:
      method: such as `sam(0.05)`, or `m_sam` of it.
      value_and_grad_fn: params -> (value, gradient), such as `jax.value_and_grad(loss_fn)`; of
        (params, batch) for `m_sam`. The value may be any pytree: with `has_aux=True` it is
        (loss, auxiliary outputs).

    Returns:
      A function (params, state, **extra) -> ((value, gradient), state). The state begins as
      `method.init(params)`; the extra arguments are the arguments of the method's `update`, `batch`
      for `m_sam` and so on, without `grad_fn`. The value is taken at the parameters. A method that
      makes no pass there, such as average SAM, takes it at the perturbed ones. `m_sam` averages it
      over the sub-batches.

    Raises:
      ValueError: method is a chain or a transformation that is not from sam_jax.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_jax
      >>> method, optimiser = sam_jax.sam(rho=0.05), optax.sgd(0.1)
      >>> loss_fn = lambda w: jnp.sum(w**4)
      >>> value_and_grad = sam_jax.value_and_grad(method, jax.value_and_grad(loss_fn))
      >>> params = jnp.array([1.0, -0.5])
      >>> state, optimiser_state = method.init(params), optimiser.init(params)
      >>> (loss, gradient), state = value_and_grad(params, state)
      >>> updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
      >>> print(loss, gradient)
      1.0625 [ 4.6253943 -0.518837 ]
    """
    if not isinstance(method, SharpnessAwareTransformation):
        raise ValueError(
            "value_and_grad takes a sharpness-aware transformation such as sam_jax.sam(0.05), got "
            f"{type(method).__name__}. What follows it in a chain is the optimiser: give that the "
            "gradient which value_and_grad returns."
        )

    def aux_grad_fn(*arguments: Any, **keywords: Any) -> tuple[Gradients, Any]:
        value, gradient = value_and_grad_fn(*arguments, **keywords)
        return gradient, value

    def sharpness_aware(
        params: Params, state: PyTree, **extra_args: Any
    ) -> tuple[tuple[Any, Gradients], PyTree]:
        result, state = method.gradient(aux_grad_fn, params, state, **extra_args)
        value = result.perturbed_aux if result.clean_aux is None else result.clean_aux
        return (value, result.gradient), state

    return sharpness_aware


def apply_gradients(state: TrainState, grads: Gradients, **extra_args: Any) -> TrainState:
    """Call a train state's `apply_gradients` so that its chain gets `grad_fn`.

    Flax's `TrainState.apply_gradients` calls `tx.update(grads, opt_state, params)` and has no place
    for further arguments of a method in the chain.

    Args:
      state: a `flax.training.train_state.TrainState` or a subclass; anything with a field `tx`, a
        method `replace` and a method `apply_gradients(grads=...)` that calls `tx.update`.
      grads: the clean gradient.
      **extra_args: for `tx.update`: `grad_fn: params -> gradients`, and `batch`, `value` and the
        like where the chain reads them.

    Returns:
      The result of the state's own `apply_gradients`. Replace other fields, such as batch
      statistics, afterwards: `.replace(batch_stats=...)`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_jax
      >>> from flax.training.train_state import TrainState
      >>> grad_fn = jax.grad(lambda params: jnp.sum(params["w"] ** 4))
      >>> tx = optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.1))
      >>> params = {"w": jnp.array([1.0, -0.5])}
      >>> state = TrainState.create(apply_fn=None, params=params, tx=tx)
      >>> state = sam_jax.apply_gradients(state, grad_fn(state.params), grad_fn=grad_fn)
      >>> print(state.step, state.params["w"])
      1 [ 0.53746057 -0.4481163 ]
    """
    tx = state.tx
    bound = optax.GradientTransformation(tx.init, functools.partial(tx.update, **extra_args))
    # The state keeps its own tx: a closure over this step's arrays must not outlive it.
    return state.replace(tx=bound).apply_gradients(grads=grads).replace(tx=tx)


def nnx_value_and_grad(
    loss_fn: Callable[..., Any],
    model: Any,
    *batch: PyTree,
    wrt: Any = None,
    has_aux: bool = False,
) -> tuple[Any, Gradients, Callable[..., Gradients]]:
    """Make the clean pass of a Flax NNX model, and the `grad_fn` of the passes after it.

    The clean pass is `nnx.value_and_grad`: it changes the model, so that running statistics and the
    counts of the random streams advance once a step. Every later pass runs on a copy of the model
    as it was *before*: dropout draws the same mask again, and changes of the copy are dropped.
    `nnx.grad` inside a `grad_fn` would draw a second mask, and return `Param` objects where
    `nnx.Optimizer` has pure arrays.

    Args:
      loss_fn: (model, *batch) -> loss, or (loss, auxiliary outputs) with `has_aux`.
      model: an `nnx.Module`.
      *batch: the further arguments of `loss_fn`.
      wrt: the filter of the parameters, the same as the optimiser's; None is `nnx.Param`.
      has_aux: as in `nnx.value_and_grad`.

    Returns:
      The value, with `has_aux` (loss, auxiliary outputs); the clean gradient; and
      `grad_fn(params, *batch)`. By default grad_fn takes the batch of the clean pass. Its gradients
      have the structure of its `params`, with `Param` objects or without.

    Example:
      >>> import jax.numpy as jnp, optax, sam_jax
      >>> from flax import nnx
      >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
      >>> tx = optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.1))
      >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
      >>> @nnx.jit
      ... def step(model, optimizer, x):
      ...     loss_fn = lambda model, x: jnp.mean((model(x) - 1) ** 2)
      ...     loss, grads, grad_fn = sam_jax.nnx_value_and_grad(loss_fn, model, x)
      ...     optimizer.update(model, grads, grad_fn=grad_fn)
      ...     return loss
      >>> losses = [float(step(model, optimizer, jnp.ones((4, 1)))) for _ in range(20)]
      >>> print(losses[-1] < losses[0] / 10)
      True
    """
    from flax import nnx  # the library itself needs no Flax

    wrt = nnx.Param if wrt is None else wrt
    graph, _, rest = nnx.split(model, wrt, ...)
    as_pure = nnx.as_pure if hasattr(nnx, "as_pure") else nnx.pure  # its name in older Flax
    rest = as_pure(rest)  # arrays, which the clean pass cannot change
    passes = nnx.value_and_grad(loss_fn, argnums=nnx.DiffState(0, wrt), has_aux=has_aux)
    value, gradients = passes(model, *batch)

    def grad_fn(params: Params, *other_batch: PyTree, **keywords: Any) -> Gradients:
        def loss(params: Params) -> Any:
            copy = nnx.merge(graph, params, rest, copy=True)
            return loss_fn(copy, *(other_batch or batch), **keywords)

        gradients = jax.grad(loss, has_aux=has_aux)(params)
        return gradients[0] if has_aux else gradients

    return value, gradients, grad_fn
