"""Entropy-SGD."""

from typing import Any

import jax
import jax.numpy as jnp

from sam_jax import draws, pytree, shardings
from sam_jax.optim import checks
from sam_jax.optim.passes import mean_over_passes, run_rounds
from sam_jax.optim.perturbations import RandomState
from sam_jax.optim.perturbations.common import advance, draw_key, init_random, value_at
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Batch, Key, Params, PyTree, Scalar, ScalarOrSchedule


def entropy_sgd(
    gamma: ScalarOrSchedule,
    key: Key,
    steps: int = 8,
    step_size: Scalar = 0.1,
    noise: Scalar = 1e-4,
    alpha: Scalar = 0.25,
    *,
    split_batch: bool = True,
) -> SharpnessAwareTransformation:
    r"""Entropy-SGD: the gradient of the local entropy, by an inner loop of Langevin steps.

    .. math::
      x_0 = \mu_0 = w, \qquad
      x_{i+1} = x_i - \eta' \big(\nabla L(x_i) - \gamma (w - x_i)\big) +
        \sqrt{\eta'} \, \varepsilon \, \xi_i, \quad \xi_i \sim \mathcal N(0, I), \qquad
      \mu_{i+1} = (1 - \alpha) \mu_i + \alpha x_{i+1}

    .. math::
      G(w) = \gamma \, (w - \mu_K)

    The result is a gradient of the local entropy at the scale gamma^-1/2, not of the loss. It is
    smaller than the loss's gradient by about gamma * step_size * steps, and wants a larger learning
    rate. The released code descends along w - mu, without gamma, at learning rates of 0.1 to 1:
    here these are 1 / gamma times as large. L of inner step i is the loss of the examples i, i + K,
    i + 2 K and so on. So no step sees the examples of another, and the cost is one gradient of the
    batch. The clean gradient that update receives is not used, and under jit never computed.

    Args:
      gamma: the scope, the pull back to w, or a schedule of it. The paper lets it grow, for
        CIFAR-10 as 0.03 * 1.001**t over updates t; 0 gives a zero gradient.
      key: a typed key; it is kept in the state.
      steps: K, Langevin steps in one update, a divisor of the batch. The paper takes 20, on a batch
        of its own each: here `steps=20` and a batch 20 times as large.
      step_size: eta', of the Langevin steps.
      noise: epsilon, the thermal noise. The released code's noise is larger by a factor sqrt(2).
      alpha: the weight of the newest point in the mean; 0.25 in the released code.
      split_batch: True as above, which is the published algorithm. False makes every inner step on
        the gradient of the whole step, `grad_fn(params)`, for K gradients. That is the local
        entropy of this batch's loss alone; with the training set in one batch, of the training
        loss.

    Returns:
      One link of an `optax.chain`, before the optimiser. Its update needs
      `grad_fn: (params, batch) -> gradients`, whose loss is the mean over the batch it gets, and
      `batch`, a pytree of arrays that share their leading axis. Without `split_batch` it is used
      as `sam` is. The pure function's output `perturbed_aux` is the mean over the inner steps.

    Raises:
      ValueError: a number is negative; alpha is above 1; steps is not a positive int or does not
        divide the batch; or grad_fn or a batch to split is missing.
      TypeError: key is not a typed key.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w, batch: jnp.mean(batch * w**2 / 2))
      >>> tx = sam_jax.entropy_sgd(
      ...     gamma=0.5, key=jax.random.key(0), steps=200, noise=0.0, step_size=0.1
      ... )
      >>> params, batch = jnp.array(3.0), jnp.ones(400)
      >>> gradient, _ = tx.update(
      ...     grad_fn(params, batch), tx.init(params), params, grad_fn=grad_fn, batch=batch
      ... )
      >>> print(gradient.round(3))  # x settles where x = 0.5 * (3 - x): at 1, two away from w
      1.0

    Source: Chaudhari et al. 2017, "Entropy-SGD: Biasing Gradient Descent Into Wide Valleys",
    algorithm 1; ucla-vision/entropy-sgd. That code adds momentum and weight decay to the inner
    steps. Its Python version never advances t, so gamma stays at its first value.
    """
    numbers = {"gamma": gamma, "step_size": step_size, "noise": noise, "alpha": alpha}
    for name, value in numbers.items():
        checks.check_not_negative(name, value)
    checks.check_fraction("alpha", alpha)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive int, got {steps!r}.")

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: RandomState,
        *,
        clean: Any = None,
        batch: Batch = None,
        sub_batch: Scalar = 0,
        **_: Any,
    ) -> tuple[SharpnessAwareGradient, RandomState]:
        scope = value_at(gamma, state.count)
        update_key = draw_key(state, sub_batch)
        parts = (_split(batch, steps),) if split_batch else ()

        def langevin_step(
            carry: tuple[PyTree, PyTree], inputs: tuple
        ) -> tuple[tuple[PyTree, PyTree], PyTree]:
            # Both are kept as distances from w, which small steps do not round away.
            x, mean = carry
            index, *part = inputs
            g, aux = grad_fn(pytree.add(params, x), *part)
            xi = draws.random_like(jax.random.fold_in(update_key, index), params)
            new = jax.tree.map(
                lambda x, g, xi: (
                    x - step_size * (pytree.widen(g) + scope * x) + step_size**0.5 * noise * xi
                ),
                x,
                g,
                xi,
            )
            # Coefficients in float64 do not widen the carry of a scan.
            x = jax.tree.map(lambda new, x: new.astype(x.dtype), new, x)
            mean = jax.tree.map(lambda m, x: (m + alpha * (x - m)).astype(m.dtype), mean, x)
            return (x, mean), aux

        start = pytree.zeros_like(params)
        inputs = jnp.arange(steps), *parts
        (_, mean), aux = run_rounds(langevin_step, (start, start), inputs)
        result = jax.tree.map(lambda m, w: (-scope * m).astype(w.dtype), mean, params)
        clean_aux = None if clean is None else clean[1]
        return SharpnessAwareGradient(result, clean_aux, mean_over_passes(aux)), advance(state)

    return SharpnessAwareTransformation(init_random(key), gradient, splits_batch=split_batch)


def _split(batch: Batch, steps: int) -> Batch:
    """Cut a batch into one part a step: example i goes to part i modulo the number of steps.

    Where devices share the batch, each then has a share of every part.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes or shapes[0][0] % steps:
        raise ValueError(
            f"entropy_sgd cuts batch into {steps} equal parts, one an inner step: give update a "
            "batch, a pytree of arrays that share their leading (example) axis, and choose steps "
            f"among the divisors of its size; the shapes given are {shapes}. With "
            "split_batch=False every inner step takes grad_fn(params), without a batch."
        )
    return jax.tree.map(lambda x: shardings.dealt_out(jnp.asarray(x), steps), batch)
