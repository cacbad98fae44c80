"""Adversarial sharpness: how far the loss rises when the weights ascend on each batch."""

import numbers
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.draws import check_key
from sam_jax.known import known
from sam_jax.metrics.checks import (
    check_batches,
    check_count,
    check_loss,
    check_positive,
)
from sam_jax.metrics.evaluation import full_precision, scalar_loss, standard_error
from sam_jax.metrics.over_devices import map_rows
from sam_jax.metrics.parameters import loss_of_parameters
from sam_jax.metrics.sharpness import ascents, balls
from sam_jax.typing import Array, Batch, Float, Key, LossFn, Mask, Params, Scalar, ScalarOrSchedule


class AdversarialSharpness(NamedTuple):
    """Losses before and after the ascent; scalars, and arrays of shape [n] for n batches."""

    loss: Float[Array, ""]  # mean over the batches
    perturbed_loss: Float[Array, ""]  # mean over the batches, each at its own perturbation
    sharpness: Float[Array, ""]  # perturbed_loss - loss
    stderr: Float[Array, ""]  # standard error of the sharpness over the batches, NaN for one batch
    per_batch_loss: Float[Array, " batches"]  # before the ascent
    per_batch_perturbed_loss: Float[Array, " batches"]  # after it


@full_precision
def adversarial_sharpness(
    loss_fn: LossFn,
    params: Params,
    batches: Batch,
    *,
    rho: Scalar = 0.1,
    steps: int = 1,
    step_size: ScalarOrSchedule | None = None,
    step_rule: ascents.StepRule = "fixed",
    restarts: int = 0,
    key: Key | None = None,
    mask: Mask = None,
    norm: Literal["l2", "linf"] = "l2",
    adaptive: bool = False,
    metric: Literal["ball", "euclidean"] = "ball",
    mesh: Mesh | None = None,
) -> AdversarialSharpness:
    """Return the m-sharpness: the mean over batches of max L_i(w + delta_i) - L_i(w).

    The maximum is sought over the ball ||delta / c|| <= rho, by projected gradient ascent from
    delta_0 = 0. Here c = 1, or c = |w| if `adaptive`, and the norm is over all chosen parameters
    together:

        delta_{k+1} = P(delta_k + step_size * s(g_k)),    g_k = grad L_i(w + delta_k),

    with s(g) the steepest ascent of unit length in the norm of the ball, and P the projection:

    * "l2", c = 1: s(g) = g / ||g||, P(delta) = delta * min(1, rho / ||delta||).
    * "l2" and adaptive: s(g) = c^2 g / ||c g||, P(delta) = delta * min(1, rho / ||delta / c||),
      which is the line above in the coordinates delta / c. With the "euclidean" metric the step has
      the same length along g, and P is the nearest point of the ellipsoid. Both metrics stand still
      at the same points, and the maxima are among these points; "ball" needs fewer steps. (The code
      of Andriushchenko et al. steps along c g and projects onto the nearest point of the ellipsoid,
      which does not stand still at a maximum.)
    * "linf": s(g) = c sign(g), and P clamps every weight to rho * c.

    The value of a batch is its largest loss over delta_1 ... delta_steps of all starts. It is a
    lower bound on the maximum, which can only grow with `steps` and `restarts`. It is NaN where one
    of these losses is NaN. (The code of Andriushchenko and Flammarion takes the last iterate, even
    where the ascent has overshot. Among restarts it takes the largest error, not the largest loss.)

    The start is not among the candidates. So the default, one step of size rho, is exactly the
    ascent step of SAM, delta = rho * g / ||g||; the sharpness is negative where that step descends.
    Where the gradient is exactly zero, delta stays zero.

    `step_rule="adaptive"` is the rule of APGD (Croce and Hein 2020). Steps begin long and keep some
    of their momentum. Where they make no progress, they halve and go on from the best point:

        delta_{k+1} = P(delta_k + 3/4 (z - delta_k) + 1/4 (delta_k - delta_{k-1})),

    with z the next point of the ascent above, and no momentum in the first step. See
    `ascents.adaptive_steps` for the checkpoints. The start is then among the candidates, so no
    sharpness is negative. No step size has to be chosen. On six small nets trained on the digits,
    with 20 gradients, it finds more than fixed steps of three lengths. By how much (mean and
    standard error over the nets, in percent):

    | ball, its radius, mean rise | steps of rho | of rho / 4 | `halved_by_quarters(rho)` |
    |---|---|---|---|
    | "linf", 0.003, 0.23 | 0.15 +- 0.05 | 4.5 +- 1.2 | 1.6 +- 0.5 |
    | "linf", 0.01, 8.6 | 0.15 +- 0.07 | 3.3 +- 1.3 | 2.3 +- 0.9 |
    | "l2", 0.2, 0.35 | 0.6 +- 0.2 | 6.8 +- 1.8 | 3.4 +- 1.4 |
    | "l2", 1.0, 35 | -1.0 +- 1.0 | 0.1 +- 1.1 | -0.5 +- 1.0 |

    In the last ball the loss has many hills, and chance decides which hill an ascent climbs.

    With the defaults this is the quantity of Tables 2 (perturbed loss) and 5 (sharpness) of
    the study of asymmetry, with n = 4 and m = 128 or 5000; `metrics.PUBLISHED` has the conditions
    of its measurement.

    The m of the m-sharpness is the size of the batches, whatever the number of examples:
    `split_batches` cuts the same N examples into [N / m, m, ...] for any m.

    Each batch costs `(1 + restarts) * steps` gradients and `1 + restarts` more losses, by either
    rule. Starts and batches run one after the other, so the call needs the memory of one batch. It
    also needs one copy of the parameters for fixed steps, or four for adaptive ones. Jit the call
    to compile it once for many models; rho, step size and key may be traced.

    Args:
      loss_fn: `loss_fn(params, batch)` -> mean loss of the batch, a scalar.
      params: parameters w. They are widened to float32 if narrower.
      batches: a pytree whose leaves have leading axes [n, m, ...]: n batches of m examples.
      rho: radius of the ball, in the units of the parameters; without units if `adaptive`.
      steps: number of ascent steps.
      step_size: length of one ascent step in the units of rho; None for `rho`. Or a function from
        the number of the step, 0 ... steps - 1, to its length, such as `halved_by_quarters`. In the
        adaptive rule it is the length of the first steps, a number; None for `2 * rho`.
      step_rule: "fixed" for steps of `step_size`, "adaptive" for the rule of APGD.
      restarts: number of further ascents of each batch, from random points of the ball. If they
        raise the result little over `restarts=0`, the first ascent was enough.
      key: a typed key for the restarts: start j of batch i uses `fold_in(fold_in(key, i), j)`.
      mask: which leaves are perturbed: booleans with the structure (or a prefix) of params, or a
        function from params to them. All norms run over the chosen leaves only.
      norm: "l2" for the Euclidean norm or "linf" for the largest entry.
      adaptive: whether the ball scales with |w|. Weights that are zero are then fixed. The
        maximum does not change when a rescaling of the weights leaves the network the same.
      metric: of the steps and projections in an adaptive "l2" ball, "ball" or "euclidean"; the
        others do not depend on it.
      mesh: devices to share the batches out over, as in `loss_plane`; None for no sharing.

    Returns:
      An `AdversarialSharpness`.

    Raises:
      ValueError: if one of these holds:
        - `rho` or `restarts` is negative, or `steps` is below one;
        - `step_size` is not positive (as a function: at every step), or is a function in the
          adaptive rule;
        - there are restarts, but not one typed key;
        - the step rule, the norm or the metric is unknown;
        - the mask does not fit or chooses nothing;
        - the batches have no two common leading axes;
        - `loss_fn` does not return a scalar, or no loss at `params` is finite. (Under jit the
          losses are not known, and the sharpness is not finite.)

    References:
      Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization,
      2021, https://arxiv.org/abs/2010.01412 (Equation 2 and the m-sharpness of Section 4).
      Andriushchenko and Flammarion, Towards Understanding Sharpness-Aware Minimization, 2022,
      https://arxiv.org/abs/2206.06232.
      Andriushchenko et al., A Modern Look at the Relationship between Sharpness and
      Generalization, 2023, https://arxiv.org/abs/2302.07011 (adaptive balls, both norms, APGD).
      Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
      Parameter-free Attacks, 2020, https://arxiv.org/abs/2003.01690 (Algorithm 1: the adaptive
      rule).

    >>> loss_fn = lambda w, batch: jnp.mean(batch * w**2)
    >>> batches = jnp.array([[1.0, 1.0], [3.0, 5.0]])
    >>> result = adversarial_sharpness(loss_fn, jnp.array(1.0), batches, rho=0.1)
    >>> print(f"{result.sharpness:.3f} +- {result.stderr:.3f}")  # 2.5 * (1.1**2 - 1)
    0.525 +- 0.315
    """
    check_positive("rho", rho, or_zero=True)
    check_count("steps", steps)
    ascents.check_step_rule(step_rule, step_size)
    if step_size is None:
        step_size = rho if step_rule == "fixed" else 2 * rho
    elif callable(step_size):
        _check_schedule(step_size, steps)
    else:
        check_positive("step_size", step_size)
    _check_restarts(restarts, key)
    balls.check_ball(norm, metric)
    batches = check_batches(batches)
    loss_fn, params = loss_of_parameters(scalar_loss(loss_fn), params, mask)
    ball = balls.Ball(rho, norm, balls.semi_axes(params, adaptive=adaptive), metric)

    rules = {"fixed": ascents.fixed_steps, "adaptive": ascents.adaptive_steps}
    climb = rules[step_rule](loss_fn, params, ball, steps, step_size)
    first_candidate = 1 if step_rule == "fixed" else 0

    # Made outside of the loops, in which zeros do not take the sharding of a known array.
    zero = jax.tree.map(jnp.zeros_like, params)

    def measure(numbered: tuple[jax.Array, Batch]) -> tuple[jax.Array, jax.Array]:
        index, batch = numbered

        def climb_from(j: jax.Array) -> jax.Array:
            assert key is not None  # restarts need one, and without them there is no call
            point = balls.random_point(
                ball, jax.random.fold_in(jax.random.fold_in(key, index), j), params
            )
            start = jax.tree.map(lambda z, x: jnp.where(j == 0, z, x).astype(z.dtype), zero, point)
            return climb(start, batch)

        if restarts:
            losses = jax.lax.map(climb_from, jnp.arange(1 + restarts))
        else:
            losses = climb(zero, batch)[None]
        return losses[0, 0], jnp.max(losses[:, first_candidate:])

    before, after = map_rows(measure, (jnp.arange(_number(batches)), batches), mesh)
    check_loss(before)
    return AdversarialSharpness(
        loss=jnp.mean(before),
        perturbed_loss=jnp.mean(after),
        sharpness=jnp.mean(after - before),
        stderr=standard_error(after - before),
        per_batch_loss=before,
        per_batch_perturbed_loss=after,
    )


def halved_by_quarters(step_size: Scalar, steps: int) -> Callable[[jax.Array], jax.Array]:
    """Return the schedule step_size * {1, 1/2, 1/4, 1/8} over the four quarters of an ascent.

    Step k has the length `step_size` while k / steps <= 1/4, then half of it up to 1/2, a quarter
    up to 3/4, and an eighth at the end. A step on the border belongs to the quarter before it.

    Args:
      step_size: length of the first steps.
      steps: number of steps of the whole ascent.

    Returns:
      A function from the number of the step, 0 ... steps - 1, to its length.

    Raises:
      ValueError: for `steps` below one or a `step_size` that is not positive.

    Source: tml-epfl/understanding-sam, `step_size_schedule` of its sharpness evaluation.

    >>> schedule = halved_by_quarters(0.8, steps=8)
    >>> print(jnp.stack([schedule(k) for k in range(8)]))
    [0.8 0.8 0.8 0.4 0.4 0.2 0.2 0.1]
    """
    check_positive("step_size", step_size)
    check_count("steps", steps)
    return lambda k: step_size * 0.5 ** jnp.maximum((4 * jnp.asarray(k) - 1) // steps, 0)


def _check_restarts(restarts: int, key: Key | None) -> None:
    if isinstance(restarts, bool) or not isinstance(restarts, numbers.Integral) or restarts < 0:
        raise ValueError(f"restarts must be an integer of at least 0, got {restarts!r}.")
    if restarts:
        check_key(key)


def _check_schedule(step_size: Callable[[jax.Array], jax.Array], steps: int) -> None:
    # Mapped as in the ascent, because a schedule may take scalars only.
    lengths = known(jax.lax.map(step_size, jnp.arange(steps)))
    if lengths is not None:
        for k, length in enumerate(lengths.tolist()):
            check_positive(f"step_size({k})", length)


def _number(batches: Batch) -> int:
    return jnp.shape(jax.tree.leaves(batches)[0])[0]
