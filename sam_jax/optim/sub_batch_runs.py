"""Run a function for every sub-batch: all at once, by a scan, or outside jit by a loop."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from sam_jax.known import is_compiling
from sam_jax.optim import combining
from sam_jax.shardings import zeros_of
from sam_jax.typing import Batch, PyTree

Strategy = Literal["vmap", "scan"]
# (index, parts) -> (result, state)
One = Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]
RulesOf = Callable[[PyTree], PyTree]  # a result, or its shapes -> a combining.Rule a leaf


def run(
    strategy: Strategy,
    one: One,
    parts: Batch,
    *,
    weights: jax.Array | None,
    count: int,
    state: PyTree,
    rules_of: RulesOf,
) -> tuple[PyTree, PyTree, PyTree]:
    """Return the combined result, its sums float32 or wider, the rules, and the new state.

    Args:
      strategy: "vmap" or "scan"; outside jit the latter is a loop, which compiles nothing.
      one: computes one sub-batch.
      parts: arrays with the examples of all sub-batches in their leading axis.
      weights: one for each sub-batch, [count], or None.
      count: the number of sub-batches.
      state: before the step.
      rules_of: says how results are combined.
    """
    if count == 1:
        result, new_state = one(jnp.zeros((), jnp.int32), parts)
        rules = rules_of(result)
        stacked = jax.tree.map(lambda x: x[None], result)
        return _over_sub_batches(rules, stacked, None), rules, new_state
    sub_batches = jax.tree.map(
        lambda x: x.reshape((count, x.shape[0] // count) + x.shape[1:]), parts
    )
    if strategy == "vmap":
        return _vmap(one, sub_batches, weights, count, rules_of)
    run_one_by_one = _scan if is_compiling() else _loop
    return run_one_by_one(one, sub_batches, weights, count, state, rules_of)


def first(sub_batches: Batch) -> Batch:
    """Return the first of the sub-batches that lie along a new leading axis."""
    return jax.tree.map(lambda x: x[0], sub_batches)


def _vmap(
    one: One, sub_batches: Batch, weights: jax.Array | None, count: int, rules_of: RulesOf
) -> tuple[PyTree, PyTree, PyTree]:
    """Run all sub-batches at once; the state is that after any of them."""
    results, states = jax.vmap(one)(jnp.arange(count), sub_batches)
    rules = rules_of(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), results))
    return _over_sub_batches(rules, results, weights), rules, first(states)


def _scan(
    one: One,
    sub_batches: Batch,
    weights: jax.Array | None,
    count: int,
    state: PyTree,
    rules_of: RulesOf,
) -> tuple[PyTree, PyTree, PyTree]:
    """Run one sub-batch after the other; the state is that after the last."""
    shapes, _ = jax.eval_shape(one, jnp.zeros((), jnp.int32), first(sub_batches))
    rules, structure = jax.tree.flatten(rules_of(shapes))

    def step(carry: tuple[list, PyTree], inputs: tuple) -> tuple[tuple[list, PyTree], list]:
        totals, _ = carry
        index, sub_batch, weight = inputs
        result, new_state = one(index, sub_batch)
        totals, others = _taken_up(rules, totals, result, weight)
        return (totals, new_state), others

    zeros = [_zeros(r, x) for r, x in zip(rules, jax.tree.leaves(shapes), strict=True) if r.adds]
    inputs = (jnp.arange(count), sub_batches, weights)
    (totals, new_state), others = jax.lax.scan(step, (zeros, state), inputs)
    result = _combined(rules, totals, others, weights, count)
    return structure.unflatten(result), structure.unflatten(rules), new_state


def _loop(
    one: One,
    sub_batches: Batch,
    weights: jax.Array | None,
    count: int,
    state: PyTree,
    rules_of: RulesOf,
) -> tuple[PyTree, PyTree, PyTree]:
    """Run the scan as a loop in Python: outside jit a scan would compile in every step."""
    totals, all_others, rules, structure = None, [], [], None
    for index in range(count):
        sub_batch = jax.tree.map(lambda x, index=index: x[index], sub_batches)
        result, state = one(jnp.int32(index), sub_batch)
        if structure is None:
            rules, structure = jax.tree.flatten(rules_of(result))
        weight = None if weights is None else weights[index]
        totals, others = _taken_up(rules, totals, result, weight)
        all_others.append(others)
    assert structure is not None and totals is not None  # there is at least one sub-batch
    stacked = [jnp.stack(leaves) for leaves in zip(*all_others, strict=True)]
    result = _combined(rules, totals, stacked, weights, count)
    return structure.unflatten(result), structure.unflatten(rules), state


def _taken_up(
    rules: list[combining.Rule], totals: list | None, result: PyTree, weight: jax.Array | None
) -> tuple[list, list]:
    """Add one result to the totals; return them and the leaves that are not added up."""
    leaves = list(zip(rules, jax.tree.leaves(result), strict=True))
    added = [combining.added(rule, x, weight) for rule, x in leaves if rule.adds]
    totals = added if totals is None else [t + a for t, a in zip(totals, added, strict=True)]
    return totals, [x for rule, x in leaves if not rule.adds]


def _combined(
    rules: list[combining.Rule],
    totals: list,
    others: list,
    weights: jax.Array | None,
    count: int,
) -> list:
    """Return the combined leaves, in the order of the rules."""
    next_total, next_other = iter(totals).__next__, iter(others).__next__
    return [
        combining.divided(rule, next_total(), weights, count)
        if rule.adds
        else combining.over_sub_batches(rule, next_other(), weights)
        for rule in rules
    ]


def _over_sub_batches(rules: PyTree, stacked: PyTree, weights: jax.Array | None) -> PyTree:
    return jax.tree.map(
        lambda rule, x: combining.over_sub_batches(rule, x, weights), rules, stacked
    )


def _zeros(rule: combining.Rule, shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Return the total before the first sub-batch, which lies as the results do."""
    wide = jax.eval_shape(lambda x: combining.added(rule, x, None), shape)
    return zeros_of(shape, wide.dtype)
