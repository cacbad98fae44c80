"""Average sharpness: how far the loss rises under random perturbations of the weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.draws import check_key, random_like
from sam_jax.metrics.checks import (
    check_batches,
    check_count,
    check_distribution,
    check_loss,
    check_positive,
)
from sam_jax.metrics.evaluation import (
    full_precision,
    losses_along,
    mean_over_batches,
    scalar_loss,
    standard_error,
)
from sam_jax.metrics.parameters import loss_of_parameters
from sam_jax.metrics.sharpness import balls
from sam_jax.pytree import normalise
from sam_jax.typing import Array, Batch, Float, Key, LossFn, Mask, Params, PyTree, Scalar

DISTRIBUTIONS = ("sphere", "gaussian", "adaptive_gaussian")


class AverageSharpness(NamedTuple):
    """Losses before and after random perturbations; scalars, and one array of shape [draws]."""

    loss: Float[Array, ""]  # mean over the batches
    perturbed_loss: Float[Array, ""]  # mean over the draws and the batches
    sharpness: Float[Array, ""]  # perturbed_loss - loss
    stderr: Float[Array, ""]  # standard error of the sharpness over the draws, NaN for one draw
    per_draw_perturbed_loss: Float[Array, " draws"]  # mean over the batches


@full_precision
def average_sharpness(
    loss_fn: LossFn,
    params: Params,
    batches: Batch,
    *,
    key: Key,
    rho: Scalar = 0.5,
    draws: int = 15,
    distribution: str = "sphere",
    mask: Mask = None,
    mesh: Mesh | None = None,
) -> AverageSharpness:
    """Return the mean over random epsilon of L(w + epsilon) - L(w).

    With z ~ N(0, I) over all d chosen parameters together:

    * "sphere": epsilon = rho * z / ||z||, uniform on the sphere of radius rho.
      For small rho the sharpness is rho^2 tr(H) / (2 d), with the Hessian H of the loss.
    * "gaussian": epsilon = rho * z, so that rho is the standard deviation of every weight and
      ||epsilon|| is about rho * sqrt(d). For small rho the sharpness is rho^2 tr(H) / 2.
    * "adaptive_gaussian": epsilon = rho * |w| * z, weight by weight. So rho is the standard
      deviation relative to every weight, and weights that are zero are fixed. For small rho the
      sharpness is rho^2 / 2 * sum_i w_i^2 H_ii.

    One draw is one perturbation, evaluated on all batches. The perturbations depend on the key
    and on the structure of the parameters only: all models of one architecture get the same.

    Tables 6 (sharpness) and 7 (perturbed loss) of the study of asymmetry are "gaussian". They have
    rho = 0.5 and 1, draws = 15 and one batch of m = 128 or 5000. The study's text describes
    "sphere"; see `metrics.PUBLISHED` for the other conditions. At that size the noise replaces the
    weights: the published values (about 11 and 45) do not describe a minimum.

    The cost is `draws + 1` losses of all batches and no gradient. Points and batches run one after
    the other, so the call needs the memory of one batch.

    Args:
      loss_fn: `loss_fn(params, batch)` -> mean loss of the batch, a scalar.
      params: parameters w. They are widened to float32 if narrower.
      batches: a pytree whose leaves have leading axes [n, m, ...]: n batches of m examples.
      key: a typed key; draw i uses `fold_in(key, i)`.
      rho: norm ("sphere") or standard deviation ("gaussian") of the perturbation, in the units of
        the parameters; standard deviation without units ("adaptive_gaussian").
      draws: number of perturbations.
      distribution: "sphere", "gaussian" or "adaptive_gaussian".
      mask: which leaves are perturbed: booleans with the structure (or a prefix) of params, or a
        function from params to them. The norm of "sphere" runs over the chosen leaves only.
      mesh: devices to share the draws out over, as in `loss_plane`; None for no sharing.

    Returns:
      An `AverageSharpness`.

    Raises:
      ValueError: if one of these holds:
        - `rho` is negative, or `draws` is below one;
        - the distribution is unknown, or `key` is not one typed key;
        - the mask does not fit or chooses nothing;
        - the batches have no two common leading axes;
        - `loss_fn` does not return a scalar, or the loss at `params` is not finite. (Under jit
          the loss is not known, and the sharpness is not finite.)

    References:
      Andriushchenko et al., A Modern Look at the Relationship between Sharpness and
      Generalization, 2023, https://arxiv.org/abs/2302.07011.

    >>> loss_fn = lambda w, batch: jnp.mean(batch) + w @ w  # tr(H) / (2 d) = 1
    >>> result = average_sharpness(
    ...     loss_fn, jnp.zeros(10), jnp.ones((1, 4)), rho=0.5, key=jax.random.key(0))
    >>> print(f"{result.sharpness:.3f} +- {result.stderr:.3f}")
    0.250 +- 0.000
    """
    check_positive("rho", rho, or_zero=True)
    check_count("draws", draws)
    check_distribution(distribution, DISTRIBUTIONS)
    check_key(key)
    batches = check_batches(batches)
    loss_fn, params = loss_of_parameters(scalar_loss(loss_fn), params, mask)
    factors = balls.semi_axes(params, adaptive=distribution == "adaptive_gaussian")

    def perturbation(index: jax.Array) -> PyTree:
        z = random_like(jax.random.fold_in(key, index), params)
        if factors is not None:
            z = jax.tree.map(jnp.multiply, factors, z)
        return normalise(z) if distribution == "sphere" else z

    # The unperturbed loss is one more point, at distance zero.
    losses = losses_along(
        lambda weights: mean_over_batches(loss_fn, weights, batches),
        params,
        perturbation,
        indices=jnp.arange(-1, draws),
        distances=rho * (jnp.arange(-1, draws) >= 0),
        mesh=mesh,
    )
    loss, perturbed = losses[0], losses[1:]
    check_loss(loss)
    return AverageSharpness(
        loss=loss,
        perturbed_loss=jnp.mean(perturbed),
        sharpness=jnp.mean(perturbed - loss),
        stderr=standard_error(perturbed - loss),
        per_draw_perturbed_loss=perturbed,
    )
