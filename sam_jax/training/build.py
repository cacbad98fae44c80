"""From a config to compiled functions; the only module that reads the config's strings."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam_jax import data, models, optim
from sam_jax.runs import workdirs
from sam_jax.runs.randomness import stream
from sam_jax.training import losses, methods
from sam_jax.training.evaluation import Evaluation, Inputs, evaluate_set, make_logits_fn
from sam_jax.training.optimiser import make_optimiser
from sam_jax.training.recalibration import recalibrated_batch_stats
from sam_jax.training.step import (
    BATCHES,
    DEVICES,
    StepInputs,
    StepMetrics,
    TrainState,
    make_run_steps,
    train_step,
)
from sam_jax.typing import Key, Params, PyTree, Scalar


class Program(NamedTuple):
    """The compiled functions of a config, the same for every seed and every rho."""

    model: nn.Module
    inputs: Inputs
    steps_per_epoch: int
    init: Callable[[Key], TrainState]
    run_steps: Callable[..., tuple[TrainState, StepMetrics]]
    run_streamed_steps: Callable[..., tuple[TrainState, StepMetrics]]
    evaluate: Callable[[Params, PyTree, jax.Array, jax.Array], Evaluation]
    evaluated_state: Callable[[TrainState, jax.Array], TrainState]
    prepare_images: Callable[[Key, jax.Array], jax.Array]  # augmentation and normalisation


class DeviceData(NamedTuple):
    """A data set on the devices, as uint8 images and int32 labels.

    Of a set that is streamed these are `data.StreamedColumn`, which only look like arrays.
    """

    train_images: jax.Array
    train_labels: jax.Array
    test_images: jax.Array
    test_labels: jax.Array


def check(config: ml_collections.ConfigDict) -> None:
    """Raise a ValueError that names the first field of the config that cannot be run."""
    method, optimiser = config.method, config.optimiser
    _check_choice("method.name", method.name, tuple(methods.METHODS))
    _check_choice("method.statistics_from", method.statistics_from, ("clean", "perturbed"))
    _check_choice("optimiser.weight_decay_in", optimiser.weight_decay_in, ("update", "loss"))
    _check_choice("data.streaming", config.data.streaming, data.STREAMING)
    _check_choice("weight_average.name", config.weight_average.name, ("none", "swa", "ema"))
    _check_positive("epochs", config.epochs)
    _check_positive("batch_size", config.batch_size)
    _check_positive("evaluation.batch_size", config.evaluation.batch_size)
    devices = jax.device_count()
    if config.batch_size % devices:
        raise ValueError(
            f"batch_size = {config.batch_size} cannot be split over {devices} devices; choose a "
            f"multiple of {devices}."
        )
    run = make_run(config, steps_per_epoch=1, examples=1, classes=1)
    make_method(config, numbers(config), jax.random.key(0), run)


def load_data(config: ml_collections.ConfigDict) -> tuple[data.Source, DeviceData]:
    """Return the data set of a config, on the devices unless streamed; loaded once a process."""
    c = config.data
    return _load_data(c.name, c.data_dir, c.synthetic_examples, c.train_examples, c.streaming)


@functools.lru_cache(maxsize=2)
def _load_data(
    name: str, data_dir: str, synthetic_examples: int, train_examples: int, streaming: str
) -> tuple[data.Source, DeviceData]:
    source, train, test = data.load(
        name,
        data_dir or None,
        synthetic_examples,
        train_examples=train_examples,
        streaming=streaming,
    )
    arrays: Any = (train.images, train.labels, test.images, test.labels)
    if isinstance(train, data.StreamedSplit):
        return source, DeviceData(*arrays)
    return source, DeviceData(*jax.device_put(arrays, replicated()))


def training_calls(
    config: ml_collections.ConfigDict, program: Program, data_set: DeviceData, order: jax.Array
) -> Iterator[tuple[Callable[..., tuple[TrainState, StepMetrics]], tuple[jax.Array, ...]]]:
    """Yield the compiled calls of an epoch: the function, and its images, labels and order.

    Args:
      config: the whole config; `steps_per_call` says how many steps a call makes.
      program: its compiled functions.
      data_set: the data set.
      order: as from `order_after_previous`.
    """
    images, labels = data_set.train_images, data_set.train_labels
    if isinstance(images, data.StreamedColumn):
        sharding = NamedSharding(replicated().mesh, BATCHES)
        blocks = data.training_blocks(images.split, order, config.steps_per_call, sharding)
        yield from ((program.run_streamed_steps, block) for block in blocks)
        return
    steps = config.steps_per_call or program.steps_per_epoch
    for start in range(0, program.steps_per_epoch, steps):
        yield program.run_steps, (images, labels, order[start : start + 1 + steps])


def replicated() -> NamedSharding:
    """Return the sharding of the state and the data, which lie whole on every device.

    A first, a later and a resumed call of `run_steps` share one compilation because their states
    lie alike.
    """
    return NamedSharding(Mesh(np.array(jax.devices()), (DEVICES,)), PartitionSpec())


def numbers(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Return the hyperparameters that may change without compiling anew."""
    return {"rho": float(config.method.rho), "eta": float(config.method.eta)}


def make_method(
    config: ml_collections.ConfigDict, numbers: Mapping[str, Scalar], key: Key, run: methods.Run
) -> tuple[optim.SharpnessAwareTransformation, optax.GradientTransformation]:
    """Return the method of a config, over sub-batches of m examples and over the devices.

    Args:
      config: the whole config; `method` says what, `batch_size` is split over the devices.
      numbers: as from `numbers`, concrete or traced.
      key: for the methods that draw at random.
      run: the run that the method is part of.

    Returns:
      A transformation over the axis `DEVICES`, and the optimiser that takes its gradient.
    """
    inner, optimiser = methods.make_method(config.method, numbers, key, run)
    c = config.method
    per_device = config.batch_size // jax.device_count()
    method = optim.m_sam(inner, c.m or per_device, c.strategy, axis_name=DEVICES)
    return method, optax.chain(optimiser, *_average_links(config, run))


def _average_links(
    config: ml_collections.ConfigDict, run: methods.Run
) -> list[optax.GradientTransformation]:
    c = config.weight_average
    if c.name == "ema":
        return [optim.weight_ema(c.decay)]
    if c.name == "swa":
        every = max(1, round(c.every_epochs * run.total_steps / config.epochs))
        return [optim.swa(round(c.start * run.total_steps), every)]
    return []


def make_program(config: ml_collections.ConfigDict, source: data.Source, examples: int) -> Program:
    """Return the compiled functions of a config; configs that differ in seed or rho share them.

    Args:
      config: the whole config.
      source: the data set's description.
      examples: size of the training set.
    """
    static = workdirs.plain(config)
    for name in ("seed", "instruments", "checkpoint"):
        static.pop(name, None)
    for name in numbers(config):
        static["method"][name] = 1.0  # a place holder, the same for all configs
    return _make_program(json.dumps(static, sort_keys=True), source, examples)


@functools.lru_cache(maxsize=64)
def _make_program(static: str, source: data.Source, examples: int) -> Program:
    config = ml_collections.ConfigDict(json.loads(static))
    model = models.create(config.model.name, source.num_classes, **_model_arguments(config))
    inputs = Inputs(source.mean, source.std)
    sharding = replicated()
    steps_per_epoch = examples // config.batch_size
    if not steps_per_epoch:
        raise ValueError(
            f"batch_size = {config.batch_size} is larger than the training set, {examples}."
        )
    run = make_run(config, steps_per_epoch, examples, source.num_classes)
    in_loss = config.optimiser.weight_decay_in == "loss"
    weight_decay = config.optimiser.weight_decay if in_loss else 0.0
    precision = config.matmul_precision
    augmentation = augmentation_of(config, source)

    def init(key: Key) -> TrainState:
        variables = _jit_init(model, source.image_shape)(stream(key, "parameters"))
        method, optimiser = make_method(config, numbers(config), stream(key, "perturbation"), run)
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            method_state=method.init(variables["params"]),
            optimiser_state=optimiser.init(variables["params"]),
        )
        return jax.device_put(state, sharding)

    def step(
        state: TrainState, inputs: StepInputs, traced: dict[str, Scalar]
    ) -> tuple[TrainState, StepMetrics]:
        # The key given here is not read: init has put that of the run in the state.
        method, optimiser = make_method(config, traced, jax.random.key(0), run)

        def make_functions(batch_stats: PyTree) -> losses.BatchFunctions:
            return losses.make_functions(
                model, batch_stats, config.loss.label_smoothing, weight_decay
            )

        with jax.default_matmul_precision(precision):
            return train_step(
                state, inputs, make_functions, method, optimiser, config.method.statistics_from
            )

    def evaluated_state(state: TrainState, images: jax.Array) -> TrainState:
        """Return the state with the weights that are evaluated: averaged ones if there are."""
        if config.weight_average.name == "none":
            return state
        params = optim.averaged_params(state.optimiser_state, state.params)
        if not jax.tree.leaves(state.batch_stats):
            return state._replace(params=params)
        batch_stats = data.mean_over_blocks(
            lambda images, _: recalibrated_batch_stats(
                full_precision(model), params, state.batch_stats, images, inputs, config.batch_size
            ),
            (images, None),
            config.batch_size,
            replicated(),
        )
        return state._replace(params=params, batch_stats=batch_stats)

    def prepare_images(key: Key, images: jax.Array) -> jax.Array:
        if augmentation.names:
            images = data.augment(key, images, **augmentation._asdict())
        return inputs(images)

    # An augmentation that does not fit the images is an error here, not within the compilation.
    batch = jax.ShapeDtypeStruct((1, *source.image_shape), jnp.uint8)
    jax.eval_shape(prepare_images, jax.random.key(0), batch)

    return Program(
        model=model,
        inputs=inputs,
        steps_per_epoch=steps_per_epoch,
        init=init,
        run_steps=make_run_steps(step, prepare_images, sharding.mesh),
        run_streamed_steps=make_run_steps(step, prepare_images, sharding.mesh, streamed=True),
        evaluate=_jit_evaluate(full_precision(model), inputs, config.evaluation.batch_size),
        evaluated_state=evaluated_state,
        prepare_images=prepare_images,
    )


def augmentation_of(config: ml_collections.ConfigDict, source: data.Source) -> data.Augmentation:
    """Return the augmentation of a config: the source's own where it is None."""
    c = config.data
    return data.augmentation_of(source, c.augmentation, c.pad, c.cutout_size)


def full_precision(model: nn.Module) -> nn.Module:
    """Return the model computing in float32, to be measured however it was trained.

    Its norms take the variance in two passes, which a large mean does not drown.
    """
    return model.clone(dtype=jnp.dtype("float32"), use_fast_variance=False)


@functools.lru_cache(maxsize=8)
def _jit_init(model: nn.Module, image_shape: tuple[int, ...]) -> Callable[[Key], PyTree]:
    return jax.jit(lambda key: model.init(key, jnp.zeros((1, *image_shape)), train=False))


@functools.lru_cache(maxsize=8)
def _jit_evaluate(
    model: nn.Module, inputs: Inputs, batch_size: int
) -> Callable[[Params, PyTree, jax.Array, jax.Array], Evaluation]:
    logits_fn = make_logits_fn(model, inputs)

    @jax.jit
    @jax.default_matmul_precision("highest")
    def evaluate(
        params: Params, batch_stats: PyTree, images: jax.Array, labels: jax.Array
    ) -> Evaluation:
        return evaluate_set(
            functools.partial(logits_fn, params, batch_stats), images, labels, batch_size
        )

    def evaluate_blocks(
        params: Params, batch_stats: PyTree, images: jax.Array, labels: jax.Array
    ) -> Evaluation:
        return data.mean_over_blocks(
            functools.partial(evaluate, params, batch_stats),
            (images, labels),
            batch_size,
            replicated(),
        )

    return evaluate_blocks


def make_run(
    config: ml_collections.ConfigDict, steps_per_epoch: int, examples: int, classes: int
) -> methods.Run:
    """Return what a method may need to know of the run of a config."""
    c = config.optimiser
    total_steps = config.epochs * steps_per_epoch
    warmup_steps = round(c.warmup_epochs * steps_per_epoch)
    if warmup_steps:
        learning_rate = optax.warmup_cosine_decay_schedule(
            0.0, c.learning_rate, warmup_steps, total_steps
        )
    else:
        learning_rate = optax.cosine_decay_schedule(c.learning_rate, total_steps)
    weight_decay = c.weight_decay if c.weight_decay_in == "update" else 0.0
    return methods.Run(
        learning_rate=learning_rate,
        highest_learning_rate=c.learning_rate,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        optimiser=make_optimiser(learning_rate, c.momentum, c.nesterov, c.clip_norm, weight_decay),
        examples=examples,
        classes=classes,
        axis_name=DEVICES,
    )


def _model_arguments(config: ml_collections.ConfigDict) -> dict[str, Any]:
    arguments = {name: _hashable(v) for name, v in config.model.items() if name != "name"}
    return arguments | {"dtype": jnp.dtype(config.model.dtype)}


def _hashable(value: Any) -> Any:
    """Return a value of a config with tuples for lists, which models need as attributes."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")
