"""One training step and one compiled run of many: pure functions of the state and the data."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from sam_jax import pytree
from sam_jax.optim import SharpnessAwareTransformation
from sam_jax.runs.randomness import stream
from sam_jax.training.losses import BatchFunctions
from sam_jax.training.observed import Observe, observed_functions, unobserved
from sam_jax.training.perturbation_norms import with_perturbation_norms
from sam_jax.typing import Batch, Key, Params, PyTree

DEVICES = "devices"  # the one mesh axis, over which the batch is split
BATCHES = PartitionSpec(None, DEVICES)  # how the batches of many steps lie: [steps, batch, ...]


class TrainState(NamedTuple):
    """All that a run carries from step to step."""

    step: jax.Array  # int32
    params: Params
    batch_stats: PyTree
    method_state: PyTree
    optimiser_state: PyTree


class StepInputs(NamedTuple):
    """The examples of one step: this device's share."""

    batch: Batch  # (images, labels)
    previous_batch: Batch  # the batch of the step before; in the first step, its own batch
    indices: jax.Array  # int32 [n], the places of the batch in the training set
    # What a model with randomness draws from: a typed key, the same on all devices. m_sam folds
    # the number of the sub-batch in it, so that draws do not depend on the number of devices.
    rngs: Key | None = None


class StepMetrics(NamedTuple):
    """The numbers that one step reports, as float32 scalars."""

    loss: jax.Array
    accuracy: jax.Array
    gradient_norm: jax.Array  # of the method's result, before clipping
    # Of epsilon at the perturbed pass, a mean over sub-batches; 0 in a step without such a pass.
    perturbation_norm: jax.Array
    # Whether loss and gradient are finite, and where steps are skipped all that the step changes.
    # The last step of a call answers for its parameters, too.
    finite: jax.Array  # bool
    skipped: jax.Array  # bool: whether the step left the state as it was


def train_step(
    state: TrainState,
    inputs: StepInputs,
    make_functions: Callable[[PyTree], BatchFunctions],
    method: SharpnessAwareTransformation,
    optimiser: optax.GradientTransformation,
    statistics_from: str = "clean",
    skip_nonfinite: bool = False,
    observe: Observe = unobserved,
) -> tuple[TrainState, StepMetrics]:
    """Take one step of the optimiser along the method's gradient.

    Args:
      state: the state before the step.
      inputs: the batch, and what some methods want besides it.
      make_functions: running statistics -> the functions of (params, batch).
      method: the sharpness-aware transformation, m-SAM over the device axis included.
      optimiser: takes the gradient to an update.
      statistics_from: the pass that the running statistics, the loss and the accuracy come from:
        "clean" at w, "perturbed" at w + epsilon. A method without a clean pass gives the latter.
      skip_nonfinite: whether a step whose loss, gradient or new state is not finite leaves
        parameters, statistics, method and optimiser as they are. It counts as a step all the same.
      observe: told of every quantity of the step, in the order of computation.

    Returns:
      The state after the step, and its metrics.
    """
    observe("images", inputs.batch[0])
    observe("parameters before the step", state.params)
    functions = with_perturbation_norms(make_functions(state.batch_stats), state.params)
    functions = observed_functions(functions, state.params, observe)
    # A method takes what it needs; under jit the rest is never computed.
    result, method_state = method.gradient(
        functions.grad_fn,
        state.params,
        state.method_state,
        losses_fn=functions.losses_fn,
        logits_fn=functions.logits_fn,
        ascent_grad_fn=functions.ascent_grad_fn,
        **inputs._asdict(),
    )
    use_clean = statistics_from == "clean" and result.clean_aux is not None
    outputs: Any = result.clean_aux if use_clean else result.perturbed_aux
    updates, optimiser_state = optimiser.update(
        result.gradient, state.optimiser_state, state.params
    )
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=outputs.batch_stats,
        method_state=method_state,
        optimiser_state=optimiser_state,
    )
    observe("gradient of the method", result.gradient)
    observe("update", updates)
    observe("parameters", new_state.params)
    observe("running statistics", new_state.batch_stats)
    observe("optimiser state", optimiser_state)
    gradient_norm = pytree.norm(result.gradient)
    finite = jnp.isfinite(outputs.loss) & jnp.isfinite(gradient_norm)
    skipped = jnp.zeros_like(finite)
    if skip_nonfinite:
        finite &= _stay_finite(state, new_state)
        skipped = ~finite
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_state, state)
        new_state = kept._replace(step=new_state.step)
    perturbed: Any = result.perturbed_aux
    return new_state, StepMetrics(
        outputs.loss, outputs.accuracy, gradient_norm, perturbed.perturbation_norm, finite, skipped
    )


def with_last_parameters(metrics: StepMetrics, state: TrainState) -> StepMetrics:
    """Let the last step of a call answer for its parameters and running statistics.

    The steps before it are known by the loss that follows. Once a call, since a look at all
    parameters after each step would take two percent of the time of a small net.

    Args:
      metrics: of the call, [steps].
      state: after its last step.
    """
    leaves = filter(pytree.is_parameter, jax.tree.leaves((state.params, state.batch_stats)))
    finite = functools.reduce(jnp.logical_and, [jnp.isfinite(x).all() for x in leaves], True)
    is_last = jnp.arange(metrics.finite.size) == metrics.finite.size - 1
    return metrics._replace(finite=metrics.finite & (finite | ~is_last))


def _stay_finite(old: PyTree, new: PyTree) -> jax.Array:
    """Say whether every number that was finite still is; some memories begin without a number."""
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    good = [
        (jnp.isfinite(after) | ~jnp.isfinite(before)).all()
        for before, after in pairs
        if pytree.is_parameter(after)
    ]
    return functools.reduce(jnp.logical_and, good)


def make_load(
    prepare_images: Callable[[Key, jax.Array], jax.Array],
    mix: Callable[[Key, Batch], Batch] | None,
    key: Key,
) -> Callable[..., Batch]:
    """Return `load(step, share, images, labels)`, which prepares one share of a step's batch.

    Args:
      prepare_images: as in `make_run_steps`.
      mix: likewise.
      key: of the run.
    """
    augmentation_key, mixup_key = stream(key, "augmentation"), stream(key, "mixup")

    def load(step: jax.Array, share: jax.Array, images: jax.Array, labels: jax.Array) -> Batch:
        step_key = jax.random.fold_in(jax.random.fold_in(augmentation_key, step), share)
        batch = prepare_images(step_key, images), labels
        return batch if mix is None else mix(jax.random.fold_in(mixup_key, step), batch)

    return load


def model_key(key: Key, step: jax.Array) -> Key:
    """Return the key that a model with randomness draws from in a step."""
    return jax.random.fold_in(stream(key, "model"), step)


def make_run_steps(
    step: Callable[[TrainState, StepInputs, PyTree], tuple[TrainState, StepMetrics]],
    prepare_images: Callable[[Key, jax.Array], jax.Array],
    mesh: Mesh | AbstractMesh,
    streamed: bool = False,
    mix: Callable[[Key, Batch], Batch] | None = None,
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Compile many steps into one call, data parallel over the devices of the mesh.

    Args:
      step: (state, inputs, traced) -> (state, metrics), with the device axis inside.
      prepare_images: (key, uint8 images) -> float images: augmentation and normalisation.
      mesh: one axis, `DEVICES`.
      streamed: whether a call gets the batches of its steps in place of the whole training set.
      mix: (key of the step, a device's share of the batch) -> the batch to train on, as mixup.

    Returns:
      `run_steps(state, images, labels, order, key, traced)`, which returns the state and the
      metrics of each step, [steps]. It donates `state`. The other arguments:

      - `images` [n, H, W, C] uint8 and `labels` [n]: the whole training set on every device. Where
        `streamed`, they are the examples of `order` themselves, [1 + steps, batch, H, W, C] and
        [1 + steps, batch], and every device has its share of each batch.
      - `order` [1 + steps, batch]: the examples of the step before and of each step.
      - `key`: the key of the run. Each step draws from its streams "augmentation", by device,
        "mixup" and "model".
      - `traced`: a pytree of hyperparameters that may change without a new compilation.
    """
    device_count = mesh.shape[DEVICES]

    def run_on_device(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        order: jax.Array,
        key: Key,
        traced: PyTree,
    ) -> tuple[TrainState, StepMetrics]:
        device = jax.lax.axis_index(DEVICES)
        load = make_load(prepare_images, mix, key)
        shares = order.reshape(len(order), device_count, -1)[:, device]
        rows = shares  # where the examples of this device lie in `images`
        if streamed:
            images, labels = (x.reshape(-1, *x.shape[2:]) for x in (images, labels))
            rows = jnp.arange(shares.size).reshape(shares.shape)

        def one(state: TrainState, examples: PyTree) -> tuple[TrainState, StepMetrics]:
            (_, before), (indices, now) = examples
            batch = load(state.step, device, images[now], labels[now])
            previous_step = jnp.maximum(state.step - 1, 0)
            previous_batch = load(previous_step, device, images[before], labels[before])
            rngs = model_key(key, state.step)
            return step(state, StepInputs(batch, previous_batch, indices, rngs), traced)

        examples = (shares[:-1], rows[:-1]), (shares[1:], rows[1:])
        state, metrics = jax.lax.scan(one, state, examples)
        return state, with_last_parameters(metrics, state)

    examples = BATCHES if streamed else PartitionSpec()
    sharded = jax.shard_map(
        run_on_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), examples, examples, *[PartitionSpec()] * 3),
        out_specs=PartitionSpec(),
        check_vma=False,  # averages over groups of devices are not offered with it
    )
    return jax.jit(sharded, donate_argnums=0)


def epoch_order(key: Key, epoch: int | jax.Array, examples: int, batch_size: int) -> jax.Array:
    """Return the shuffled examples of an epoch as [steps, batch_size]; the remainder rests.

    Args:
      key: the key of the order stream.
      epoch: counted from zero.
      examples: size of the training set.
      batch_size: over all devices.

    Returns:
      int32 indices into the training set.
    """
    steps = examples // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), examples)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("examples", "batch_size"))
def order_after_previous(
    key: Key, epoch: int | jax.Array, examples: int, batch_size: int
) -> jax.Array:
    """Return the order of an epoch after the batch before its first, [1 + steps, batch_size].

    Args:
      key: the key of the run, whose stream "order" is read.
      epoch, examples, batch_size: as in `epoch_order`.

    Returns:
      int32 indices into the training set, for `run_steps`; the very first batch stands before
      itself.
    """
    key = stream(key, "order")
    order = epoch_order(key, epoch, examples, batch_size)
    before = epoch_order(key, jnp.maximum(epoch, 1) - 1, examples, batch_size)[-1:]
    return jnp.concatenate([jnp.where(epoch == 0, order[:1], before), order])
