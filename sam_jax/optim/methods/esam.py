"""ESAM: perturb a part of the parameters, descend on a part of the batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sam_jax import pytree, shardings
from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Granularity, Mask
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Batch, Gradients, Key, Params, PyTree, ScalarOrSchedule


def esam(
    rho: ScalarOrSchedule = 0.05,
    beta: ScalarOrSchedule = 0.6,
    gamma: float = 0.5,
    key: Key | None = None,
    mask: Mask = None,
    granularity: Granularity = "parameter",
    *,
    losses_from: Callable[[Any], jax.Array] | None = None,
) -> SharpnessAwareTransformation:
    r"""Efficient SAM: a random part of the perturbation, the sharpest part of the batch.

    .. math::
      G(w) = \nabla L_{B^+}(w + \epsilon), \qquad
      \epsilon_i = \frac{b_i}{\beta} \, \rho \, \frac{g_i}{\|g\|_2}, \quad
      b_i \sim \mathrm{Bernoulli}(\beta), \quad g = \nabla L_B(w)

    with B+ the gamma |B| examples of the batch B whose loss rises most, l(w + epsilon) - l(w); of
    equal rises the first in the batch go first. For beta = gamma = 1 this is SAM. Where there is no
    perturbation (rho = 0, a zero gradient) there is nothing to choose by, and G is g.

    The cost in gradients is 1 for g, gamma for G, and for gamma < 1 a third for the losses at
    w + epsilon. The pass that gives g also gives the losses at w: `losses_from` takes them from
    there. `losses_fn` computes them, and whether XLA then shares the pass under jit depends on the
    network: it does for plain layers, but not through the BatchNorm of Flax on CPU, which costs
    another third. beta saves nothing under jit: the gradient at w is computed in one piece. The
    draw for every weight takes time too, where a net is small and dense about half a gradient's.

    Args:
      rho: radius of the ball, or an optax schedule of it; the paper uses 0.05 to 0.2, as for SAM.
      beta: probability that a parameter is perturbed, in (0, 1], or a schedule of it; the paper's
        runs use 0.5 and 0.6.
      gamma: part of the batch that is descended on, in (0, 1], rounded to whole examples, at least
        one; the paper's runs use 0.5.
      key: a typed key, kept in the state; None for `jax.random.key(0)`.
      mask: which leaves are perturbed, as in `sam`.
      granularity: "parameter" draws for every scalar, as the paper; "tensor" for every leaf, as
        the released code. That code also takes the norm over the drawn leaves alone, so its epsilon
        is longer than the formula's; here the norm is over all leaves.
      losses_from: takes the losses, [n], from the auxiliary outputs of `grad_fn`, which the pure
        function `gradient` hands on. Without it, or without such outputs (in update), `losses_fn`
        is called at w too.

    Returns:
      One link of an `optax.chain`, before the optimiser. With gamma = 1 it is used as `sam` is;
      with gamma < 1 its update needs `grad_fn: (params, batch) -> gradients`, whose loss is the
      mean over the batch it gets, `losses_fn: (params, batch) -> [n]`, the loss of every example,
      and `batch`, a pytree of arrays [n, ...]. Inside `m_sam` the choice is among each sub-batch.

    Raises:
      ValueError: rho is negative; beta or gamma is not in (0, 1]; the granularity is unknown; or
        grad_fn, losses_fn or batch is missing or does not fit.
      TypeError: key is not a typed key.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> losses_fn = lambda w, batch: (batch @ w - 1.0) ** 2
      >>> grad_fn = jax.grad(lambda w, batch: jnp.mean(losses_fn(w, batch)))
      >>> batch = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx = sam_jax.esam(rho=0.1, beta=1.0, gamma=0.5)
      >>> w = jnp.array([0.5, 0.5])
      >>> gradient, _ = tx.update(
      ...     grad_fn(w, batch), tx.init(w), w, grad_fn=grad_fn, losses_fn=losses_fn, batch=batch
      ... )
      >>> print(gradient)  # of the second example, whose loss rises most
      [0.       4.707629]

    Source: Du et al. 2022, "Efficient Sharpness-aware Minimization for Improved Training of Neural
    Networks", algorithm 1; dydjw9/Efficient_SAM for the values and the granularity "tensor". That
    code keeps the examples that rise more than the k-th largest rise, hence k - 1 of them; here k
    stay, as in the paper.
    """
    _check_gamma(gamma)
    key = jax.random.key(0) if key is None else key
    perturbation = perturbations.stochastic_ascent(rho, beta, key, mask, granularity)
    if gamma == 1:
        return sharpness_aware(perturbation)

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: PyTree,
        *,
        clean: tuple[Gradients, Any] | None = None,
        batch: Batch = None,
        losses_fn: Callable[..., jax.Array] | None = None,
        ascent_grad_fn: AuxiliaryGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        examples = _check_data(batch, losses_fn)
        assert losses_fn is not None  # as checked
        clean = _gradient_on(grad_fn, params, batch) if clean is None else clean
        clean_gradient, clean_aux = clean
        ascent_gradient = clean_gradient
        if ascent_grad_fn is not None:
            ascent_gradient, _ = _gradient_on(ascent_grad_fn, params, batch)
        epsilon, state = perturbation.update(ascent_gradient, state, params, **extra_args)
        perturbed = pytree.add(params, epsilon)
        if losses_from is not None and clean_aux is not None:
            losses = losses_from(clean_aux)
        else:
            losses = losses_fn(params, batch)
        rises = losses_fn(perturbed, batch) - losses
        _check_rises(rises, examples)
        chosen = _largest(rises, max(1, round(gamma * examples)))
        sharpest = jax.tree.map(lambda x: shardings.taken(jnp.asarray(x), chosen), batch)
        new_gradient, perturbed_aux = _gradient_on(grad_fn, perturbed, sharpest)
        moves = jnp.any(pytree.stack(jax.tree.map(lambda e: jnp.any(e != 0), epsilon)))
        new_gradient = jax.tree.map(
            lambda new, g: jnp.where(moves, new, g.astype(new.dtype)), new_gradient, clean_gradient
        )
        return SharpnessAwareGradient(new_gradient, clean_aux, perturbed_aux, epsilon), state

    return SharpnessAwareTransformation(perturbation.init, gradient, splits_batch=True)


def _gradient_on(grad_fn: AuxiliaryGradFn, params: Params, batch: Batch) -> tuple[Gradients, Any]:
    try:
        return grad_fn(params, batch)
    except TypeError as error:
        if "positional argument" not in str(error):
            raise
        raise ValueError(
            "esam with gamma < 1 takes the gradient on a part of the batch and needs grad_fn: "
            f"(params, batch) -> gradients; calling it so raised: {error}."
        ) from error


def _largest(rises: jax.Array, count: int) -> jax.Array:
    """Return the places of the `count` largest, in the order of the batch."""
    _, places = jax.lax.top_k(shardings.gathered(rises), count)
    return jnp.sort(places)


def _check_gamma(gamma: Any) -> None:
    if not isinstance(gamma, int | float):
        raise ValueError(
            f"gamma must be a number, because it sets an array's size, got {gamma!r}; in "
            "optax.inject_hyperparams name it in static_args."
        )
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must lie in (0, 1], got {gamma}: the part descended on.")


def _check_data(batch: Batch, losses_fn: Any) -> int:
    """Return the number of examples; raise where what gamma < 1 needs is missing."""
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if losses_fn is None or len(sizes) != 1 or () in sizes:
        raise ValueError(
            "esam with gamma < 1 chooses among the examples of the batch and needs batch, a pytree "
            "of arrays that share their leading (example) axis, and losses_fn: call "
            "tx.update(grads, state, params, grad_fn=grad_fn, losses_fn=losses_fn, batch=batch) "
            "with grad_fn: (params, batch) -> gradients and losses_fn: (params, batch) -> [n]."
        )
    return sizes.pop()[0]


def _check_rises(rises: jax.Array, examples: int) -> None:
    if rises.shape != (examples,):
        raise ValueError(
            f"losses_fn must return one loss for each of the {examples} examples of the batch, but "
            f"returned the shape {rises.shape}."
        )
