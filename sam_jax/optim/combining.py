"""How to combine the auxiliary outputs of sub-batches for the batch: by kind, or as asked."""

import dataclasses
from collections.abc import Callable, Set
from typing import Any

import jax
import jax.numpy as jnp

from sam_jax import pytree
from sam_jax.optim import devices
from sam_jax.optim.transformation import SharpnessAwareGradient
from sam_jax.typing import PyTree

WORDS = ("auto", "mean", "sum", "min", "max", "last", "concatenate")


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one leaf is combined, and the dtype of what comes out."""

    word: str
    dtype: Any

    @property
    def adds(self) -> bool:
        """Whether a sum over sub-batches is all that is needed."""
        return self.word in ("mean", "sum")


def check_combine(combine: PyTree) -> None:
    """Raise unless `combine` is None or a pytree of words."""
    unknown = [word for word in jax.tree.leaves(combine) if word not in WORDS]
    if unknown:
        raise ValueError(
            f"combine holds the words {', '.join(WORDS)}, one for a leaf or a branch of the "
            f"auxiliary output, got {unknown[0]!r}."
        )


def rules_for(
    result: SharpnessAwareGradient,
    combine: PyTree,
    sizes: Set[int],
    larger: Callable[[], SharpnessAwareGradient],
) -> SharpnessAwareGradient:
    """Return how each leaf of a sub-batch's result is combined, a Rule a leaf.

    Args:
      result: the result of one sub-batch, arrays or their shapes.
      combine: a prefix of the auxiliary outputs with words, or None for "auto" everywhere.
      sizes: how many examples grad_fn was called with.
      larger: the shapes of the result for a sub-batch twice as large.
    """
    outputs = _arrays((result.clean_aux, result.perturbed_aux))
    words = tuple(_broadcast(combine, output) for output in outputs)

    def may_be_per_example(word: str, x: Any) -> bool:
        return word == "auto" and x.ndim > 0 and x.shape[0] in sizes

    if any(jax.tree.leaves(jax.tree.map(may_be_per_example, words, outputs))):
        words = jax.tree.map(
            lambda word, x, y: "concatenate" if word == "auto" and _grows(x, y) else word,
            words,
            outputs,
            _larger_outputs(larger),
        )
    gradient_rules = jax.tree.map(lambda g: Rule("mean", g.dtype), result.gradient)
    return SharpnessAwareGradient(gradient_rules, *jax.tree.map(_rule, words, outputs))


def over_sub_batches(rule: Rule, stacked: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Combine one leaf of the results of all sub-batches, [count, ...]; sums stay wide."""
    if rule.word == "mean" and weights is None:
        return jnp.mean(pytree.widen(stacked), axis=0)
    if rule.word == "mean" and weights is not None:
        total = jnp.sum(jax.vmap(weighted)(stacked, weights), axis=0)
        return pytree.safe_divide(total, jnp.sum(weights))
    if rule.word == "sum":
        return jnp.sum(stacked.astype(_sum_dtype(stacked.dtype)), axis=0)
    if rule.word in _EXTREMES:
        return _EXTREMES[rule.word][0](stacked, axis=0)
    if rule.word == "last":
        return stacked[-1]
    return stacked.reshape((stacked.shape[0] * stacked.shape[1], *stacked.shape[2:]))


def over_devices(
    rule: Rule, x: jax.Array, axis_name: devices.AxisName | None, weight: jax.Array | None
) -> jax.Array:
    """Combine one leaf over the devices; a concatenated leaf stays where it is."""
    if axis_name is None or rule.word == "concatenate":
        return x
    if rule.word == "mean":
        return devices.weighted_mean(x, axis_name, weight)
    if rule.word == "sum":
        return jax.lax.psum(x, axis_name)
    if rule.word == "last":
        return devices.of_last_device(x, axis_name)
    as_number = x.astype(jnp.int32) if x.dtype == bool else x
    return _EXTREMES[rule.word][1](as_number, axis_name)


def finish(rule: Rule, x: jax.Array) -> jax.Array:
    """Return a combined leaf in its dtype."""
    return x if pytree.is_key(x) else x.astype(rule.dtype)


def added(rule: Rule, x: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Return the term of one sub-batch in a sum over sub-batches."""
    if rule.word == "sum":
        return x.astype(_sum_dtype(x.dtype))
    return pytree.widen(x) if weight is None else weighted(x, weight)


def divided(rule: Rule, total: jax.Array, weights: jax.Array | None, count: int) -> jax.Array:
    """Return the mean or the sum over sub-batches from the sum of their terms."""
    if rule.word == "sum":
        return total
    return total / count if weights is None else pytree.safe_divide(total, jnp.sum(weights))


def weighted(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return weight * x; a weight of zero gives zero, whatever x is."""
    return jnp.where(weight == 0, 0, weight * pytree.widen(x))


_EXTREMES = {"min": (jnp.min, jax.lax.pmin), "max": (jnp.max, jax.lax.pmax)}


def _sum_dtype(dtype: jnp.dtype) -> jnp.dtype:
    is_inexact = jnp.issubdtype(dtype, jnp.inexact)
    return jnp.promote_types(dtype, jnp.float32 if is_inexact else jnp.int32)


def _rule(word: str, x: Any) -> Rule:
    """Return the rule of a word, or for "auto" what suits the kind of the leaf."""
    is_inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    if word == "auto":
        word = "mean" if is_inexact else "last"
    if pytree.is_key(x) and word not in ("last", "concatenate"):
        raise ValueError(
            f'combine asks for the {word} of typed keys, which take "last" or "concatenate" only.'
        )
    if word == "concatenate" and x.ndim == 0:
        raise ValueError(
            "combine asks to concatenate a scalar; it takes outputs with one entry an example, or "
            "any other leading axis."
        )
    if is_inexact or word not in ("mean", "sum"):
        return Rule(word, x.dtype)
    return Rule(word, jnp.dtype(jnp.float32) if word == "mean" else _sum_dtype(x.dtype))


def _broadcast(combine: PyTree, output: PyTree) -> PyTree:
    """Return the words for all leaves of an auxiliary output."""
    if combine is None or output is None:
        return jax.tree.map(lambda _: "auto", output)
    try:
        return jax.tree.broadcast(combine, output)
    except ValueError as error:
        raise ValueError(
            "combine must hold words in the structure of the auxiliary output of grad_fn, or of a "
            f"prefix of it; the output is {jax.tree.structure(output)}: {error}"
        ) from error


def _grows(x: Any, larger: Any) -> bool:
    return x.ndim > 0 and larger.shape[0] != x.shape[0]


def _larger_outputs(larger: Callable[[], SharpnessAwareGradient]) -> tuple[PyTree, PyTree]:
    try:
        grown = larger()
    except Exception as error:
        raise ValueError(
            "An auxiliary output of grad_fn has as many entries in its leading axis as grad_fn "
            "gets examples. Whether it is one entry an example would show with a larger "
            "sub-batch, but grad_fn takes none. Say it to m_sam: combine is a pytree of words in "
            'the structure of the output or a prefix of it, such as {"logits": "concatenate", '
            '"loss": "mean"}.'
        ) from error
    return _arrays((grown.clean_aux, grown.perturbed_aux))


def _arrays(outputs: PyTree) -> PyTree:
    """Return outputs, or their shapes, with arrays for the numbers that are left without jit."""
    return jax.tree.map(lambda x: x if hasattr(x, "dtype") else jnp.asarray(x), outputs)
