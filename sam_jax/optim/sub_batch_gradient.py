"""The gradient of m-SAM where its batch lies: on one device, or on each device of an axis."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import pytree
from sam_jax.known import known
from sam_jax.optim import combining, devices, sub_batch_runs
from sam_jax.optim.sub_batch_runs import One, RulesOf, Strategy
from sam_jax.optim.transformation import (
    GRADIENT_FUNCTIONS,
    PARAMETER_FUNCTIONS,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Batch, Params, PyTree


class Settings(NamedTuple):
    """The settings of every step, from the arguments of m_sam."""

    inner: SharpnessAwareTransformation
    m: int
    strategy: Strategy
    combine: PyTree


class Common(NamedTuple):
    """What all sub-batches of a step share."""

    grad_fn: Callable[..., tuple[PyTree, Any]]
    params: Params
    state: PyTree
    rngs: PyTree  # typed keys, to be folded with the index of the sub-batch
    shared: PyTree
    extra_args: dict[str, Any]


class Split(NamedTuple):
    """The arguments that are cut into sub-batches."""

    parts: dict[str, Batch]  # the batch and what lies beside it
    weights: jax.Array | None  # of examples or of sub-batches


class Work(NamedTuple):
    """The share of one device."""

    one: One
    rules_of: RulesOf
    count: int  # sub-batches
    weights: jax.Array | None  # [count]
    is_one: bool  # whether all devices share one sub-batch


def gradient(
    settings: Settings, common: Common, split: Split, axis_name: devices.AxisName | None = None
) -> tuple[SharpnessAwareGradient, PyTree]:
    """Return the gradient over all devices of the axis, and the state.

    Auxiliary outputs that are concatenated hold the examples of this device.
    """
    work = _work(settings, common, split, axis_name)
    result, rules, new_state = sub_batch_runs.run(
        settings.strategy,
        work.one,
        split.parts,
        weights=work.weights,
        count=work.count,
        state=common.state,
        rules_of=work.rules_of,
    )
    weight = None if work.weights is None else jnp.sum(work.weights)

    def over_devices(rule: combining.Rule, x: jax.Array) -> jax.Array:
        return combining.finish(rule, combining.over_devices(rule, x, axis_name, weight))

    if work.is_one:  # grad_fn has averaged it, for every pass
        mean = jax.tree.map(combining.finish, rules.gradient, result.gradient)
        mean = devices.agreed(mean, axis_name)
    else:
        mean = jax.tree.map(over_devices, rules.gradient, result.gradient)
    outputs = jax.tree.map(over_devices, rules[1:3], result[1:3])
    return SharpnessAwareGradient(mean, *outputs), devices.agreed(new_state, axis_name)


def rules(
    settings: Settings, common: Common, split: Split, axis_name: devices.AxisName | None = None
) -> SharpnessAwareGradient:
    """Return the rules by which `gradient` combines, a leaf each, without computing anything."""
    work = _work(settings, common, split, axis_name)
    part = _resized(split.parts, work.count, 1)
    shapes, _ = jax.eval_shape(work.one, jnp.zeros((), jnp.int32), part)
    return work.rules_of(shapes)


def one_sub_batch(
    settings: Settings, common: Common, parts: dict[str, Batch]
) -> tuple[SharpnessAwareGradient, PyTree]:
    """Return the result of the inner method for all examples, on one device or many."""
    one = _function_of_parts(settings.inner, common, common.params, common.rngs, set())
    return one(jnp.zeros((), jnp.int32), parts)


def batch_size(batch: Batch) -> int:
    """Return the number of examples; raise where there is no batch."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "m_sam needs batch, a pytree of arrays that share their leading (example) axis: call "
            "tx.update(grads, state, params, grad_fn=grad_fn, batch=batch); the shapes given are "
            f"{shapes}."
        )
    if shapes[0][0] == 0:
        raise ValueError(
            f"m_sam needs at least one example, and batch is empty: the shapes given are {shapes}. "
            "Leave out the step, or drop the incomplete rest of the data."
        )
    return shapes[0][0]


def _work(
    settings: Settings, common: Common, split: Split, axis_name: devices.AxisName | None
) -> Work:
    """Return the share of this device, with all checks made."""
    inner, m = settings.inner, settings.m
    examples = batch_size(split.parts["batch"])
    device_count = devices.axis_size(axis_name)
    count, group = _split(m, examples, axis_name)
    _check_memory(inner.memory, count * device_count // group)
    if inner.splits_batch and group > 1:
        raise ValueError(
            "This method divides its sub-batch, which has to lie on one device, but m = "
            f"{m} is spread over {group} devices. Choose m up to the shard of a device, "
            f"{m // group} examples."
        )
    weights = _sub_batch_weights(split.weights, examples, count, group)
    weight = None if weights is None else weights[0]

    def averaged(grad_fn: Callable[..., tuple[PyTree, Any]]) -> Callable[..., tuple[PyTree, Any]]:
        return devices.averaged_over_groups(grad_fn, group, axis_name, weight)

    functions = {
        name: averaged(common.extra_args[name])
        for name in GRADIENT_FUNCTIONS
        if common.extra_args.get(name) is not None
    }
    common = common._replace(
        grad_fn=averaged(common.grad_fn), extra_args=common.extra_args | functions
    )
    is_one = axis_name is not None and group == device_count
    params = common.params if is_one else devices.vary_over(common.params, axis_name)
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    # The devices of a group hold different examples of one sub-batch, which draw differently.
    rngs = _folded(common.rngs, device % group) if group > 1 else common.rngs
    seen: set[int] = set()
    one = _function_of_parts(inner, common, params, rngs, seen, first=device // group * count)

    def rules_of(result: SharpnessAwareGradient) -> SharpnessAwareGradient:
        def larger() -> SharpnessAwareGradient:
            parts = _resized(split.parts, count, 2)
            return jax.eval_shape(one, jnp.zeros((), jnp.int32), parts)[0]

        return combining.rules_for(result, settings.combine, frozenset(seen), larger)

    return Work(one, rules_of, count, weights, is_one)


def _function_of_parts(
    inner: SharpnessAwareTransformation,
    common: Common,
    params: Params,
    rngs: PyTree,
    seen: set[int],
    first: jax.Array | int = 0,
) -> One:
    """Return the function that computes the sub-batch `first + index` from its parts.

    It notes in `seen` how many examples its functions are called with.
    """

    def one(index: jax.Array, parts: PyTree) -> tuple[SharpnessAwareGradient, PyTree]:
        sub_batch = first + index
        keywords = {} if common.shared is None else {"shared": common.shared}
        if rngs is not None:
            keywords["rngs"] = _folded(rngs, sub_batch)

        def of_sub_batch(function: Callable[..., Any]) -> Callable[..., Any]:
            # Called with params alone, it takes the sub-batch.
            def with_default(params: Params, batch: Batch = parts["batch"], **others: Any) -> Any:
                seen.update(len(x) for x in jax.tree.leaves(batch) if jnp.ndim(x))
                return function(params, batch, **keywords, **others)

            return with_default

        functions = {
            name: of_sub_batch(common.extra_args[name])
            for name in (*PARAMETER_FUNCTIONS, *GRADIENT_FUNCTIONS)
            if common.extra_args.get(name) is not None
        }
        result, new_state = inner.gradient(
            of_sub_batch(common.grad_fn),
            params,
            common.state,
            sub_batch=sub_batch,
            **(common.extra_args | functions | parts),
        )
        return result._replace(epsilon=None), new_state  # several sub-batches have several

    return one


def _folded(rngs: PyTree, number: jax.Array | int) -> PyTree:
    """Fold a number in every typed key."""
    return jax.tree.map(
        lambda key: jax.random.fold_in(key, number) if pytree.is_key(key) else key, rngs
    )


def _resized(parts: PyTree, count: int, factor: int) -> PyTree:
    """Return the shapes of a sub-batch, or of one that is `factor` times as large."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((factor * (len(x) // count), *x.shape[1:]), x.dtype), parts
    )


def _split(m: int, examples: int, axis_name: devices.AxisName | None) -> tuple[int, int]:
    """Return the sub-batches of this device and the devices that share one sub-batch."""
    if examples % m == 0:
        return examples // m, 1
    device_count = devices.axis_size(axis_name)
    group, remainder = divmod(m, examples)
    if remainder == 0 and group > 1 and device_count % group == 0:
        return 1, group
    place = "the batch" if axis_name is None else f"the shard of each of the {device_count} devices"
    raise ValueError(
        f"m = {m} does not divide {place}, {examples} examples. Choose m among the divisors of "
        f"{examples}"
        + ("." if device_count == 1 else f", or {examples} times a divisor of {device_count}.")
    )


def _check_memory(memory: str, sub_batches: int) -> None:
    """Raise where each of several sub-batches would have to take the one step of a memory."""
    if memory and sub_batches > 1:
        raise ValueError(
            f"This method keeps {memory} from step to step, which is one for the whole batch, but "
            f"m makes {sub_batches} sub-batches, and each would need its own. Choose m equal to "
            "the whole batch, or a method without memory."
        )


def _sub_batch_weights(
    weights: jax.Array | None, examples: int, count: int, group: int
) -> jax.Array | None:
    """Return the weight of each of the device's sub-batches, [count], float32 or wider."""
    if weights is None:
        return None
    numbers = known(weights)
    if numbers is not None and not (_is_real(numbers) and np.all(numbers >= 0)):
        raise ValueError(
            "weights must be numbers, zero or positive, and 0 leaves an example out; got "
            f"{weights}."
        )
    weights = pytree.widen(jnp.asarray(weights))
    if weights.shape == (examples,):
        return jnp.sum(weights.reshape(count, -1), axis=1)
    if weights.shape == (count,) and group == 1:
        return weights
    raise ValueError(
        f"weights must have one number for each of the {examples} examples, or for each of the "
        f"{count} sub-batches where none is spread over devices, got the shape {weights.shape}."
    )


def _is_real(x: np.ndarray) -> bool:
    return any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
