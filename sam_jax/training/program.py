"""The compiled functions of a training, and all that they depend on."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import FrozenConfigDict

from sam_jax import data, optim
from sam_jax.runs.machine import examples_per_perturbation
from sam_jax.runs.randomness import stream
from sam_jax.training import example_losses, losses, methods
from sam_jax.training.compiled_evaluation import compile_evaluation, compile_noisy_evaluation
from sam_jax.training.device_data import RunSteps, replicated
from sam_jax.training.evaluation import Evaluation, Inputs, NoisyEvaluation
from sam_jax.training.mixup import make_mix
from sam_jax.training.observed import Observe, unobserved
from sam_jax.training.optimiser import make_optimiser
from sam_jax.training.placement import Placement
from sam_jax.training.recalibration import recalibrated_batch_stats
from sam_jax.training.schedules import lowest_learning_rate, make_schedule
from sam_jax.training.sharded_steps import make_sharded_run_steps
from sam_jax.training.step import (
    DEVICES,
    StepInputs,
    StepMetrics,
    TrainState,
    make_run_steps,
    train_step,
)
from sam_jax.training.weight_decay import weight_decay_of
from sam_jax.typing import Key, Params, PyTree, Scalar


@dataclasses.dataclass(frozen=True)
class ProgramSpec:
    """All that a compiled program depends on: trainings with the same spec share their programs.

    The seed, rho and eta are no part of it. Groups of the config are frozen, so that a spec can be
    a key.
    """

    model: nn.Module
    inputs: Inputs
    image_shape: tuple[int, int, int]
    classes: int
    examples: int  # of the training set
    augmentation: data.Augmentation
    epochs: int
    batch_size: int  # over all devices
    method: FrozenConfigDict  # without rho and eta, and with the options of the chosen method alone
    optimiser: FrozenConfigDict
    weight_average: FrozenConfigDict
    loss: FrozenConfigDict  # with the options of the chosen loss alone
    mixup: float  # alpha; 0 for none
    skip_nonfinite: bool  # whether steps with numbers that are not finite change nothing
    matmul_precision: str  # of training
    evaluation_batch_size: int
    top_k: tuple[int, ...]  # of further accuracies
    placement: Placement

    @property
    def steps_per_epoch(self) -> int:
        """The whole batches of an epoch."""
        return self.examples // self.batch_size

    @property
    def total_steps(self) -> int:
        """The steps of the whole training."""
        return self.epochs * self.steps_per_epoch


class Program(NamedTuple):
    """The compiled functions of a spec, the same for every seed and every rho."""

    model: nn.Module
    inputs: Inputs
    top_k: tuple[int, ...]  # of the further accuracies of `evaluate`
    steps_per_epoch: int
    placement: Placement
    init: Callable[[Key], TrainState]
    start: Callable[[Key, Params, PyTree], TrainState]  # of given parameters and statistics
    run_steps: RunSteps
    run_streamed_steps: RunSteps
    # (observe, streamed) -> one of the two, which tells of every quantity of its steps.
    observed_steps: Callable[[Observe, bool], RunSteps]
    evaluate: Callable[[Params, PyTree, jax.Array, jax.Array], Evaluation]
    # The same with pairs of given and true labels.
    evaluate_noisy: Callable[[Params, PyTree, jax.Array, jax.Array], NoisyEvaluation]
    evaluated_state: Callable[[TrainState, jax.Array], TrainState]
    prepare_images: Callable[[Key, jax.Array], jax.Array]  # augmentation, without mixup
    # (step, traced) -> the learning rate and the radius rho of a step.
    step_sizes: Callable[[int, Mapping[str, Scalar]], dict[str, jax.Array]]


@functools.lru_cache(maxsize=64)
def compile_program(spec: ProgramSpec) -> Program:
    """Return the compiled functions of a spec; the same spec gives the same functions.

    Args:
      spec: the settings that they depend on.

    Raises:
      ValueError: the batch is larger than the training set, the augmentation, the loss or the model
        does not fit, or there are fewer classes than a top-k accuracy needs.
    """
    model, inputs, augmentation = spec.model, spec.inputs, spec.augmentation
    if not spec.steps_per_epoch:
        raise ValueError(
            f"batch_size = {spec.batch_size} is larger than the training set, {spec.examples}."
        )
    if max(spec.top_k, default=0) > spec.classes:
        raise ValueError(
            f"evaluation.top_k must be at most the {spec.classes} classes, got {spec.top_k}."
        )
    placement = spec.placement
    run = make_run(
        spec.optimiser,
        spec.epochs,
        spec.steps_per_epoch,
        spec.examples,
        spec.classes,
        axis_name=DEVICES if placement.form == "shard_map" else None,
    )
    loss = example_losses.make_loss(spec.loss, spec.classes)
    weight_decay = weight_decay_of(spec.optimiser)
    m = _examples_together(spec.method, spec.batch_size, placement)
    # Under jit one perturbation of the whole batch is one call for all of its shares.
    joins_shares = placement.form == "jit" and placement.share_count > 1 and m == spec.batch_size
    method_of = functools.partial(
        make_method, spec.method, spec.weight_average, spec.batch_size, placement, run
    )

    def fresh(key: Key, params: Params, batch_stats: PyTree) -> TrainState:
        # No state depends on rho or eta.
        method, optimiser = method_of({"rho": 1.0, "eta": 1.0}, stream(key, "perturbation"))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            method_state=method.init(params),
            optimiser_state=optimiser.init(params),
        )

    def created(key: Key) -> TrainState:
        variables = _jit_init(model, spec.image_shape)(stream(key, "parameters"))
        return fresh(key, variables["params"], variables.get("batch_stats", {}))

    def step(
        state: TrainState,
        inputs: StepInputs,
        traced: Mapping[str, Scalar],
        observe: Observe = unobserved,
    ) -> tuple[TrainState, StepMetrics]:
        # The key given here is not read: init has put the key of the run in the state.
        method, optimiser = method_of(traced, jax.random.key(0))

        def make_functions(batch_stats: PyTree) -> losses.BatchFunctions:
            return losses.make_functions(
                model, batch_stats, loss, weight_decay.in_loss, weight_decay.on, share_keys
            )

        share_keys = None
        if joins_shares:  # which draw as the devices of shard_map do, where m_sam folds so
            rngs = inputs.rngs
            assert rngs is not None  # run_steps always gives one
            share_keys = jax.vmap(
                lambda share: jax.random.fold_in(jax.random.fold_in(rngs, share), 0)
            )(jnp.arange(placement.share_count))
            inputs = inputs._replace(rngs=None)

        with jax.default_matmul_precision(spec.matmul_precision):
            return train_step(
                state,
                inputs,
                make_functions,
                method,
                optimiser,
                spec.method.statistics_from,
                spec.skip_nonfinite,
                observe,
            )

    def evaluated_state(state: TrainState, images: jax.Array) -> TrainState:
        """Return the state with the weights that are evaluated: averaged ones if there are."""
        if spec.weight_average.name == "none":
            return state
        params = optim.averaged_params(state.optimiser_state, state.params)
        if not jax.tree.leaves(state.batch_stats):
            return state._replace(params=params)
        batch_stats = data.mean_over_blocks(
            lambda images, _: recalibrated_batch_stats(
                full_precision(model), params, state.batch_stats, images, inputs, spec.batch_size
            ),
            (images, None),
            spec.batch_size,
            replicated(),
        )
        return state._replace(params=params, batch_stats=batch_stats)

    def prepared_by(augmentation: data.Augmentation) -> Callable[[Key, jax.Array], jax.Array]:
        def prepare_images(key: Key, images: jax.Array) -> jax.Array:
            if augmentation.names:
                images = data.augment(key, images, **augmentation._asdict())
            return inputs(images)

        return prepare_images

    prepare_images = prepare_unmixed = prepared_by(augmentation)
    mix = None
    if spec.mixup:  # cutout follows it
        names = tuple(name for name in augmentation.names if name != "cutout")
        cutout_size = augmentation.cutout_size if names != augmentation.names else 0
        prepare_unmixed = prepared_by(augmentation._replace(names=names))
        mix = make_mix(spec.mixup, spec.classes, cutout_size, DEVICES)

    # An augmentation or a model that does not fit the images is an error here, before anything is
    # written or compiled.
    batch = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.uint8)
    jax.eval_shape(prepare_images, jax.random.key(0), batch)
    jax.eval_shape(_jit_init(model, spec.image_shape), jax.random.key(0))

    def compiled(streamed: bool, step: Callable[..., Any] = step) -> RunSteps:
        if placement.form == "shard_map":
            return make_run_steps(step, prepare_unmixed, placement.mesh, streamed, mix)
        return make_sharded_run_steps(step, prepare_unmixed, placement, streamed, mix)

    return Program(
        model=model,
        inputs=inputs,
        top_k=spec.top_k,
        steps_per_epoch=spec.steps_per_epoch,
        placement=placement,
        init=placement.laid_out(created),
        start=placement.laid_out(fresh),
        run_steps=compiled(streamed=False),
        run_streamed_steps=compiled(streamed=True),
        observed_steps=lambda observe, streamed: compiled(
            streamed, functools.partial(step, observe=observe)
        ),
        evaluate=compile_evaluation(
            full_precision(model), inputs, spec.evaluation_batch_size, spec.top_k, placement
        ),
        evaluate_noisy=compile_noisy_evaluation(
            full_precision(model), inputs, spec.evaluation_batch_size, placement
        ),
        evaluated_state=evaluated_state,
        prepare_images=prepare_images,
        step_sizes=jax.jit(
            lambda step, traced: {
                "learning_rate": jnp.float32(run.learning_rate(step)),
                "rho": methods.radius(spec.method, traced["rho"], run, step),
            }
        ),
    )


def make_run(
    optimiser: FrozenConfigDict,
    epochs: int,
    steps_per_epoch: int,
    examples: int,
    classes: int,
    *,
    axis_name: str | None = DEVICES,
) -> methods.Run:
    """Return the facts about a run that a method may need.

    Args:
      optimiser: the group `optimiser` of the config.
      epochs: of the whole training.
      steps_per_epoch: the whole batches of an epoch.
      examples: size of the training set.
      classes: number of classes.
      axis_name: of the devices, where a step sees one share of the batch; None where it sees all.
    """
    total_steps = epochs * steps_per_epoch
    learning_rate = make_schedule(optimiser, steps_per_epoch, total_steps)
    return methods.Run(
        learning_rate=learning_rate,
        lowest_learning_rate=lowest_learning_rate(optimiser),
        highest_learning_rate=optimiser.learning_rate,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        optimiser=make_optimiser(optimiser, learning_rate),
        examples=examples,
        classes=classes,
        axis_name=axis_name,
    )


def make_method(
    method: FrozenConfigDict,
    weight_average: FrozenConfigDict,
    batch_size: int,
    placement: Placement,
    run: methods.Run,
    traced: Mapping[str, Scalar],
    key: Key,
) -> tuple[optim.SharpnessAwareTransformation, optax.GradientTransformation]:
    """Return a method over sub-batches of m examples and over the devices, and its optimiser.

    Args:
      method: the group `method` of the config; rho and eta are not read.
      weight_average: the group `weight_average` of the config.
      batch_size: examples of a step, over all devices.
      placement: where they lie.
      run: the run that the method is part of.
      traced: "rho" and "eta", concrete or traced.
      key: for the methods that draw at random.

    Returns:
      A transformation over the axis `DEVICES`, or under jit over the axes of the batch, and the
      optimiser that takes its gradient, with the average of its weights.

    Raises:
      ValueError: the method keeps a memory, and m makes several sub-batches; or m does not divide
        the batch.
    """
    inner, optimiser = methods.make_method(method, traced, key, run)
    share = batch_size // placement.share_count
    m = _examples_together(method, batch_size, placement)
    if inner.memory and m < batch_size:
        raise ValueError(
            f"{method.name} keeps {inner.memory} from step to step, which is one for the whole "
            f"batch, but perturbations would be shared by m = {m} of its {batch_size} examples: "
            "set method.m to batch_size, or choose a method without memory."
        )
    if inner.splits_batch and m > share:
        raise ValueError(
            f"{method.name} divides its sub-batch, which has to lie on one device, but m = {m} is "
            f"spread over devices of {share} examples each: choose method.m up to {share}."
        )
    if placement.form == "shard_map":
        _check_shares(m, share, placement.share_count)
        over_devices = optim.m_sam(inner, m, method.strategy, axis_name=DEVICES)
    else:
        over_devices = optim.m_sam(
            inner, m, method.strategy, batch_axes=placement.batch_axes, mesh=placement.mesh
        )
    return over_devices, optax.chain(optimiser, *_average_links(weight_average, run))


def _check_shares(m: int, share: int, shares: int) -> None:
    """Raise a ValueError unless m divides the share of a device, or is that of several devices."""
    if share % m and (m % share or shares % (m // share)):
        several = "" if shares == 1 else f", or {share} times a divisor of {shares}"
        raise ValueError(
            f"method.m = {m} does not divide the {share} examples of a batch on a device: choose a "
            f"divisor of {share}{several}."
        )


def _examples_together(method: FrozenConfigDict, batch_size: int, placement: Placement) -> int:
    """Return the examples that m_sam is to take together.

    The plain gradient is the same for any number of whole shares; under jit a call for all of them
    needs no gathered parameters.
    """
    m = examples_per_perturbation(method, batch_size, placement.share_count)
    is_free = method.name == "none" and m * placement.share_count >= batch_size
    return batch_size if is_free and placement.form == "jit" else m


def full_precision(model: nn.Module) -> nn.Module:
    """Return the model computing in float32, to be measured however it was trained.

    Its norms take the variance in two passes, which a large mean does not drown.
    """
    return model.clone(dtype=jnp.dtype("float32"), use_fast_variance=False)


def _average_links(c: FrozenConfigDict, run: methods.Run) -> list[optax.GradientTransformation]:
    if c.name == "ema":
        start = round(c.ema_start_epochs * run.steps_per_epoch)
        return [optim.weight_ema(c.decay, warm_up=c.ema_warm_up, start=start)]
    if c.name == "swa":
        every = max(1, round(c.every_epochs * run.steps_per_epoch))
        return [optim.swa(round(c.start * run.total_steps), every)]
    return []


@functools.lru_cache(maxsize=8)
def _jit_init(model: nn.Module, image_shape: tuple[int, ...]) -> Callable[[Key], PyTree]:
    return jax.jit(lambda key: model.init(key, jnp.zeros((1, *image_shape)), train=False))
