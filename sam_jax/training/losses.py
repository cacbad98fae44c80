"""The training loss of one batch, with the other outputs that a training step needs."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax import pytree
from sam_jax.training.example_losses import CROSS_ENTROPY, Loss, accuracy
from sam_jax.training.weight_decay import decayed
from sam_jax.typing import Batch, Gradients, Key, Params, PyTree


class PassOutputs(NamedTuple):
    """The outputs of one forward pass, besides the gradient."""

    loss: jax.Array  # of the batch, without weight decay and other terms
    accuracy: jax.Array  # fraction in [0, 1]
    batch_stats: PyTree  # running statistics of the batch norm layers after the pass
    losses: jax.Array  # [n], the loss of each example
    logits: jax.Array  # [n, C]
    # The norm of epsilon at the pass, where a training step asks for it.
    perturbation_norm: jax.Array | None = None


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    r"""Return the cross-entropy of each example.

    .. math::
      \ell = -\sum_c y_c \log \mathrm{softmax}(z)_c, \qquad
      y = (1 - s)\,\mathrm{onehot}(\text{label}) + s / C

    Args:
      logits: z, [n, C], any float dtype; the softmax runs in float32 or wider.
      labels: [n] integers, or [n, C] shares of the labels in place of onehot(label).
      label_smoothing: s, in [0, 1).

    Returns:
      [n] float32 or wider, in nats.
    """
    return Loss(label_smoothing=label_smoothing).of_examples(logits, labels)


class BatchFunctions(NamedTuple):
    """The functions of (params, (images, labels)) that the methods call, in training mode.

    All take the keyword `rngs`, the typed key that a model with randomness draws from.
    """

    grad_fn: Callable[..., tuple[Gradients, PassOutputs]]  # with the keyword `term`
    losses_fn: Callable[..., jax.Array]  # [n], the loss of each example
    logits_fn: Callable[..., jax.Array]  # [n, C]
    # The gradient that makes epsilon where the model has one of its own; see make_functions.
    ascent_grad_fn: Callable[..., tuple[Gradients, PassOutputs]] | None = None


def make_functions(
    model: nn.Module,
    batch_stats: PyTree,
    loss: Loss = CROSS_ENTROPY,
    weight_decay: float = 0.0,
    weight_decay_on: str = "all",
    share_keys: Key | None = None,
) -> BatchFunctions:
    r"""Return the gradient of the training loss, and what else methods ask for.

    .. math::
      L(w) = \mathrm{reduce}_i \, \ell_i(w) + \frac{\lambda}{2} \|w\|_2^2 + \mathrm{term}(z(w))

    where reduce is the mean for all losses but the smallest cross-entropies.

    Args:
      model: a Flax linen module; it is run in training mode, on batch statistics. One with
        randomness draws from `make_rng("model")`. One whose backward pass is not the derivative of
        the forward pass, as in Shake-Shake, takes the keyword `true_gradient`, which makes it so.
      batch_stats: the running statistics before the pass.
      loss: the loss of each example, and how that of a batch is made of them.
      weight_decay: lambda; zero where weight decay lives in the update.
      weight_decay_on: "all" parameters, biases and batch norm included, or "not_norms"; see
        `WeightDecay`.
      share_keys: typed keys, [shares], where a batch holds several equal shares. Each share is
        normalised on its own and draws from its key, in the place of `rngs`; the loss and the
        running statistics are means over the shares. None: a batch is one share.

    Returns:
      - `grad_fn(params, (images, labels), term=None, rngs=None) -> (gradients, PassOutputs)`, where
        `term` maps the logits z, [n, C], to a scalar that SAF and MESA add, and `rngs` is a typed
        key: equal keys draw alike.
      - `losses_fn` and `logits_fn`.
      - `ascent_grad_fn`, which is grad_fn with `true_gradient=True`, and None where the model has
        no such keyword. So google-research/sam makes epsilon.
    """

    def apply_to_share(
        params: Params, images: jax.Array, rngs: Key | None, **keywords: Any
    ) -> tuple[jax.Array, PyTree]:
        return model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={} if rngs is None else {"model": rngs},
            **keywords,
        )

    def apply(
        params: Params, images: jax.Array, rngs: Key | None, **keywords: Any
    ) -> tuple[jax.Array, PyTree]:
        if share_keys is None:
            return apply_to_share(params, images, rngs, **keywords)
        logits, mutated = jax.vmap(functools.partial(apply_to_share, params, **keywords))(
            images.reshape(len(share_keys), -1, *images.shape[1:]), share_keys
        )
        return logits.reshape(-1, logits.shape[-1]), jax.tree.map(_mean_of_shares, mutated)

    def reduce(losses: jax.Array) -> jax.Array:
        # The mean is inside of the derivative, so that no share has a gradient of its own.
        if share_keys is None:
            return loss.reduce(losses)
        return jnp.mean(jax.vmap(loss.reduce)(losses.reshape(len(share_keys), -1)))

    def loss_fn(
        params: Params,
        batch: Batch,
        term: Callable[[jax.Array], jax.Array] | None,
        rngs: Key | None,
        **keywords: Any,
    ) -> tuple[jax.Array, PassOutputs]:
        images, labels = batch
        logits, mutated = apply(params, images, rngs, **keywords)
        losses = loss.of_examples(logits, labels)
        batch_loss = reduce(losses)
        w = decayed(params, weight_decay_on)
        penalty = 0.5 * weight_decay * pytree.vdot(w, w) if weight_decay else 0.0
        addition = 0.0 if term is None else term(logits)
        outputs = PassOutputs(
            batch_loss, accuracy(logits, labels), mutated.get("batch_stats", {}), losses, logits
        )
        return batch_loss + penalty + addition, outputs

    def grad_fn(
        params: Params,
        batch: Batch,
        term: Callable[[jax.Array], jax.Array] | None = None,
        rngs: Key | None = None,
        **keywords: Any,
    ) -> tuple[Gradients, PassOutputs]:
        return jax.grad(loss_fn, has_aux=True)(params, batch, term, rngs, **keywords)

    def losses_fn(params: Params, batch: Batch, rngs: Key | None = None) -> jax.Array:
        images, labels = batch
        return loss.of_examples(apply(params, images, rngs)[0], labels)

    def logits_fn(params: Params, batch: Batch, rngs: Key | None = None) -> jax.Array:
        return apply(params, batch[0], rngs)[0]

    has_true_gradient = "true_gradient" in inspect.signature(type(model).__call__).parameters
    ascent_grad_fn = functools.partial(grad_fn, true_gradient=True) if has_true_gradient else None
    return BatchFunctions(grad_fn, losses_fn, logits_fn, ascent_grad_fn)


def _mean_of_shares(x: jax.Array) -> jax.Array:
    """Return the mean over the leading axis, accumulated in float32 or wider."""
    return jnp.mean(pytree.widen(x), axis=0).astype(x.dtype)
