"""From a config to a program and its data; nothing else in this room reads a whole config."""

import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import FrozenConfigDict

from sam_jax import data, models
from sam_jax.mistakes import checking
from sam_jax.runs import heartbeat
from sam_jax.runs.fields import check_value, number
from sam_jax.training import config_fields, example_losses, fine_tune, schedules
from sam_jax.training.device_data import DeviceData, on_devices
from sam_jax.training.evaluation import Inputs
from sam_jax.training.placement import placement_of
from sam_jax.training.program import (
    Program,
    ProgramSpec,
    compile_program,
    make_method,
    make_run,
)

# One thread after the other: what one loads and builds, the others then find.
_BUILDING = threading.Lock()
TRACED = ("rho", "eta")  # of the group `method`: they may change without a new compilation


@checking()
def check(config: ml_collections.ConfigDict) -> None:
    """Raise a ValueError that names the first field of the config that cannot be run."""
    config_fields.check(config)
    method, average = config.method, config.weight_average
    models.create(config.model.name, 2, **model_arguments(config))  # which checks its attributes
    until = number(method.from_share, 1, open_low=True)
    check_value("method.until_share", method.until_share, until)
    start = number(0, config.epochs, open_high=True)
    check_value("weight_average.ema_start_epochs", average.ema_start_epochs, start)
    example_losses.make_loss(_loss_of(config))
    schedules.check(config.optimiser, config.epochs)
    fine_tune.check(config.fine_tune)
    run = make_run(
        _frozen(config.optimiser),
        config.epochs,
        steps_per_epoch=1000,  # many, so that a share of an epoch is some steps
        examples=1,
        classes=1,
    )
    make_method(
        _method_of(config),
        _frozen(average),
        config.batch_size,
        placement_of(config),
        run,
        traced_hyperparameters(config),
        jax.random.key(0),
    )


@checking()
def data_and_program(
    config: ml_collections.ConfigDict,
) -> tuple[data.Source, DeviceData, Program]:
    """Return the data set of a config, and its compiled functions.

    Raises:
      ValueError, FileNotFoundError: the set cannot be read, or batch, augmentation, loss or model
        do not fit it.
    """
    with _BUILDING:
        source, data_set = load_data(config)
        return source, data_set, make_program(config, source, len(data_set.train_labels))


def load_data(config: ml_collections.ConfigDict) -> tuple[data.Source, DeviceData]:
    """Return the data set of a config, on the devices unless streamed; loaded once a process."""
    c = config.data
    noise = (c.label_noise, c.label_noise_kind, c.label_noise_seed) if c.label_noise else None
    with heartbeat.doing(f"reading the data set {c.name}"):
        return _load_data(
            c.name,
            data_dir=c.data_dir,
            synthetic_examples=c.synthetic_examples,
            train_examples=c.train_examples,
            validation_examples=c.validation_examples,
            train_split=c.train_split,
            image_size=c.image_size,
            streaming=c.streaming,
            label_noise=noise,
        )


@functools.lru_cache(maxsize=2)
def _load_data(
    name: str,
    *,
    data_dir: str,
    synthetic_examples: int,
    train_examples: int,
    validation_examples: int,
    train_split: str,
    image_size: int,
    streaming: str,
    label_noise: tuple[float, str, int] | None,
) -> tuple[data.Source, DeviceData]:
    (source, train, test), validation = data.load_with_validation(
        name,
        data_dir or None,
        synthetic_examples,
        train_examples=train_examples,
        validation_examples=validation_examples,
        train_split=train_split,
        image_size=image_size,
        streaming=streaming,
    )
    if label_noise is None:
        return source, on_devices(train, test, validation)
    noise = data.label_noise(source, len(train.labels), *label_noise)
    noisy, pairs = data.with_label_noise(train, noise)
    return source, on_devices(noisy, test, validation, pairs)


def traced_hyperparameters(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Return the hyperparameters that may change without a new compilation."""
    return {name: float(config.method[name]) for name in TRACED}


def make_program(config: ml_collections.ConfigDict, source: data.Source, examples: int) -> Program:
    """Return the compiled functions of a config; configs that differ in seed or rho share them.

    Args:
      config: the whole config.
      source: the data set's description.
      examples: size of the training set.
    """
    return compile_program(program_spec(config, source, examples))


def program_spec(
    config: ml_collections.ConfigDict, source: data.Source, examples: int
) -> ProgramSpec:
    """Return all that the compiled functions of a config depend on.

    Args:
      config: the whole config.
      source: the data set's description.
      examples: size of the training set.
    """
    return ProgramSpec(
        model=models.create(config.model.name, source.num_classes, **model_arguments(config)),
        inputs=Inputs(source.mean, source.std),
        image_shape=source.image_shape,
        classes=source.num_classes,
        examples=examples,
        augmentation=augmentation_of(config, source),
        epochs=config.epochs,
        batch_size=config.batch_size,
        method=_method_of(config),
        optimiser=_frozen(config.optimiser),
        weight_average=_frozen(config.weight_average),
        loss=_loss_of(config),
        mixup=config.data.mixup,
        skip_nonfinite=config.on_nonfinite == "skip",
        matmul_precision=config.matmul_precision,
        evaluation_batch_size=config.evaluation.batch_size,
        top_k=tuple(config.evaluation.top_k),
        placement=placement_of(config),
    )


def augmentation_of(config: ml_collections.ConfigDict, source: data.Source) -> data.Augmentation:
    """Return the augmentation of a config: the source's own where it is None."""
    c = config.data
    return data.augmentation_of(
        source,
        c.augmentation,
        c.pad,
        c.cutout_size,
        randaugment_layers=c.randaugment_layers,
        randaugment_magnitude=c.randaugment_magnitude,
    )


def _method_of(config: ml_collections.ConfigDict) -> FrozenConfigDict:
    """Return the chosen method with its own options, without the options of other methods."""
    c = config.method
    shared = ("norm_order", "m", "synchronise", "strategy", "statistics_from")
    names = ("name", *shared, "from_share", "until_share", c.name)
    return _frozen(c, *(name for name in names if name in c))


def _loss_of(config: ml_collections.ConfigDict) -> FrozenConfigDict:
    """Return the chosen loss with its own options, without those of other losses."""
    c = config.loss
    return _frozen(c, *(x for x in ("name", "label_smoothing", c.name) if x in c))


def model_arguments(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return the attributes that a config gives its model, besides the number of classes."""
    arguments = {name: _hashable(v) for name, v in config.model.items() if name != "name"}
    return arguments | {"dtype": jnp.dtype(config.model.dtype)}


def _frozen(group: ml_collections.ConfigDict, *names: str) -> FrozenConfigDict:
    """Return fields of a group, all without names; equal for a config and for one read from JSON.

    As FrozenConfigDict itself makes them, these differ: in locks, and in lists for tuples.
    """

    def frozen(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: frozen(inner) for name, inner in value.items()}
        return _hashable(value)

    fields = frozen(group.to_dict())
    return FrozenConfigDict({name: fields[name] for name in names or fields})


def _hashable(value: Any) -> Any:
    """Return a value of a config with tuples for lists, which models need as attributes."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
