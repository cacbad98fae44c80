"""The training losses by the names that configs give them: from logits to the loss of a batch."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from sam_jax import pytree

# logits [n, C] -> the loss of every example under every label, [n, C], float32 or wider
ClassLosses = Callable[[jax.Array], jax.Array]


def cross_entropies(logits: jax.Array) -> jax.Array:
    r"""Return the cross-entropy of each example under each label, in nats.

    .. math::
      \ell_c = -\log p_c, \qquad p = \mathrm{softmax}(z)

    Args:
      logits: z, [n, C], any float dtype; the softmax runs in float32 or wider.

    Returns:
      [n, C].
    """
    return -jax.nn.log_softmax(pytree.widen(logits))


def offset_cross_entropies(offset: float) -> ClassLosses:
    r"""Return the cross-entropy of two classes with an offset of the margin.

    .. math::
      \ell_c = \log\left(1 + e^{\tau - (z_c - z_{1 - c})}\right)

    With tau = 0 it is the cross-entropy. A margin below tau costs more than log 2.

    Args:
      offset: tau.

    Returns:
      logits, [n, 2] -> [n, 2].

    Example:
      >>> print(offset_cross_entropies(1.0)(jnp.array([[0.0, 1.0]])))
      [[2.126928  0.6931472]]

    Source: tml-epfl/understanding-sam, `--loss=ce_offset`, which overflows where the exponent does;
    here it does not. It takes two classes only, as that code does.
    """

    def losses(logits: jax.Array) -> jax.Array:
        logits = pytree.widen(logits)
        return jax.nn.softplus(offset - (logits - logits[:, ::-1]))

    return losses


def generalised_cross_entropies(q: float) -> ClassLosses:
    r"""Return the generalised cross-entropy, between cross-entropy and the mean absolute error.

    .. math::
      \ell_c = \frac{1 - p_c^q}{q}, \qquad p = \mathrm{softmax}(z)

    For q to 0 it is the cross-entropy, for q = 1 it is 1 - p, which bears wrong labels better and
    is harder to train on.

    Args:
      q: in (0, 1].

    Returns:
      logits, [n, C] -> [n, C].

    Example:
      >>> print(generalised_cross_entropies(0.5)(jnp.zeros((1, 4))))
      [[1. 1. 1. 1.]]

    Source: Zhang and Sabuncu 2018, "Generalized Cross Entropy Loss for Training Deep Neural
    Networks with Noisy Labels", without its truncation; tml-epfl/understanding-sam, `--loss=gce`.
    Here the power is that of the logarithm of p, which small q does not cancel.
    """
    return lambda logits: -jnp.expm1(-q * cross_entropies(logits)) / q


def mean_of_smallest(removed: float) -> Callable[[jax.Array], jax.Array]:
    r"""Return the mean over all but the largest losses of a batch.

    .. math::
      L = \frac{1}{k} \sum_{i \in S} \ell_i, \qquad k = n - \lfloor r n \rfloor

    with S the k examples with the smallest losses. The gradient takes S as fixed.

    Args:
      removed: r, in [0, 1), the share of examples that are left out.

    Returns:
      losses, [n] -> their mean over S.

    Example:
      >>> print(mean_of_smallest(0.5)(jnp.array([3.0, 1.0, 2.0, 9.0])))
      1.5

    Source: tml-epfl/understanding-sam, `--loss=smallest_k_ce`. The batch is the sub-batch of
    m-SAM, as there; where a sub-batch lies on several devices, each leaves out its own share.
    """

    def mean(losses: jax.Array) -> jax.Array:
        examples = losses.shape[0]
        # The product may lie just below the whole number that is meant.
        kept = examples - math.floor(removed * examples + 1e-9)
        return -jnp.mean(jax.lax.top_k(-losses, kept)[0])

    return mean


class Loss(NamedTuple):
    """A training loss: that of every example, and what it makes of the losses of a batch."""

    class_losses: ClassLosses = cross_entropies
    label_smoothing: float = 0.0
    reduce: Callable[[jax.Array], jax.Array] = jnp.mean  # [n] -> scalar

    def of_examples(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        r"""Return the loss of each example, [n], float32 or wider.

        .. math::
          \ell = \sum_c y_c \ell_c, \qquad
          y = (1 - s)\,\mathrm{onehot}(\text{label}) + s / C

        Args:
          logits: z, [n, C].
          labels: [n] integers, or [n, C] shares of the labels, in place of onehot(label).
        """
        losses = self.class_losses(logits)
        if labels.ndim == 2:  # an infinite loss under a label without a share does not count
            target = jnp.sum(jnp.where(labels == 0, 0, labels * losses), axis=1)
        else:
            target = jnp.take_along_axis(losses, labels[:, None], axis=1)[:, 0]
        s = self.label_smoothing
        if not s:  # zero times the mean is NaN where a probability underflows
            return target
        return (1 - s) * target + s * jnp.mean(losses, axis=1)


CROSS_ENTROPY = Loss()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the share of examples whose largest logit is at their label, or its largest share."""
    if labels.ndim == 2:
        labels = jnp.argmax(labels, axis=-1)
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels)


def _offset(options: Mapping[str, Any], smoothing: float) -> Loss:
    return Loss(offset_cross_entropies(options["offset"]), smoothing)


def _generalised(options: Mapping[str, Any], smoothing: float) -> Loss:
    if not 0 < options["q"] <= 1:
        raise ValueError(
            f"loss.generalised_cross_entropy.q must lie in (0, 1], got {options['q']}; "
            'towards 0 it is loss.name = "cross_entropy".'
        )
    return Loss(generalised_cross_entropies(options["q"]), smoothing)


def _smallest(options: Mapping[str, Any], smoothing: float) -> Loss:
    if not 0 <= options["removed"] < 1:
        raise ValueError(
            f"loss.smallest_cross_entropy.removed must lie in [0, 1), got {options['removed']}: "
            "it is the share of the batch's examples that is left out."
        )
    return Loss(cross_entropies, smoothing, mean_of_smallest(options["removed"]))


LOSSES: dict[str, Callable[[Mapping[str, Any], float], Loss]] = {
    "cross_entropy": lambda options, smoothing: Loss(cross_entropies, smoothing),
    "offset_cross_entropy": _offset,
    "generalised_cross_entropy": _generalised,
    "smallest_cross_entropy": _smallest,
}
TWO_CLASSES = ("offset_cross_entropy",)


def make_loss(config: Mapping[str, Any] | FrozenConfigDict, classes: int | None = None) -> Loss:
    """Return the loss of a config.

    Args:
      config: `config.loss`; of the groups of options that of the chosen loss alone is read.
      classes: of the data set; None to leave unchecked whether the loss takes so many.

    Raises:
      ValueError: an option is out of its range, or the loss takes two classes and there are more.
    """
    name, smoothing = config["name"], config["label_smoothing"]
    if not 0 <= smoothing < 1:
        raise ValueError(f"loss.label_smoothing must lie in [0, 1), got {smoothing}.")
    if name in TWO_CLASSES and classes not in (None, 2):
        raise ValueError(
            f'loss.name = "{name}" takes two classes, and the data set has {classes}; choose '
            "another of " + ", ".join(x for x in LOSSES if x not in TWO_CLASSES) + "."
        )
    return LOSSES[name](config.get(name, {}), smoothing)
