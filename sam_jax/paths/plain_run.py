"""Plain training outside a config: what curves and ensembles are trained with."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import optax

from sam_jax import optim
from sam_jax.runs import records, workdirs
from sam_jax.training.device_data import RunSteps, device_mesh, everywhere
from sam_jax.training.evaluation import Inputs
from sam_jax.training.losses import BatchFunctions
from sam_jax.training.methods import no_perturbation
from sam_jax.training.step import (
    DEVICES,
    StepInputs,
    StepMetrics,
    TrainState,
    make_run_steps,
    train_step,
)
from sam_jax.typing import Key, Params, PyTree

# (key, uint8 images) -> the model's inputs. A function is compiled for once, by its identity.
PrepareImages = Callable[[Key, jax.Array], jax.Array]


def check_steps_per_epoch(batch_size: int, epochs: int, examples: int) -> int:
    """Return the steps of an epoch; the batch must fit the devices and the training set.

    Args:
      batch_size: over all devices.
      epochs: of the whole training.
      examples: size of the training set.

    Raises:
      ValueError: the batch does not fit, or there is no epoch.
    """
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices or batch_size > examples or epochs < 1:
        raise ValueError(
            f"epochs must be positive, and batch_size a multiple of {devices} (the devices) up to "
            f"{examples} (the training set); got epochs = {epochs}, batch_size = {batch_size}."
        )
    return examples // batch_size


def check_augmentation(augmentation: str, prepare_images: PrepareImages | None) -> None:
    """Raise a ValueError unless images are prepared by a function with a name, or by none.

    A folder knows its run by the name: a function leaves nothing that could be compared later.
    """
    if prepare_images is not None and not callable(prepare_images):
        raise ValueError(
            "prepare_images must be a function (key, uint8 images) -> the model's inputs, or None, "
            f"got {prepare_images!r}."
        )
    if bool(augmentation) != (prepare_images is not None):
        given = "none was given" if prepare_images is None else "one was given"
        raise ValueError(
            "settings.augmentation must name what prepare_images does, and be empty without one; "
            f"got {augmentation!r}, and of prepare_images {given}."
        )


def claim_folder(
    workdir: pathlib.Path, settings: records.Record, models: dict[str, PyTree]
) -> None:
    """Write the training that a folder belongs to in its config.json, or check that it is the same.

    Args:
      workdir: the folder of the run, made where it does not exist.
      settings: all settings that change the result of the training.
      models: name -> the arrays of a model that the training starts from.

    Raises:
      ValueError: the folder holds another run; the message names the differences.
    """
    checksums = {f"{name}_checksum": workdirs.checksum(model) for name, model in models.items()}
    wanted = ml_collections.ConfigDict(records.as_read(settings | checksums))
    advice = "Choose another workdir, or delete the folder to train again."
    refusal = "{workdir} holds another training; {differing}. " + advice
    workdirs.claim(workdir, wanted, refusal=refusal)


def initial_state(
    params: Params, batch_stats: PyTree, optimiser: optax.GradientTransformation
) -> TrainState:
    """Return the state before the first step; it shares no memory with the arguments.

    `run_steps` takes the memory of its state over, and a trained model is still needed after it.
    """
    params, batch_stats = jax.tree.map(jnp.copy, (params, batch_stats))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        method_state=no_perturbation().init(params),
        optimiser_state=optimiser.init(params),
    )
    return everywhere(state)


def make_plain_run(
    make_functions: Callable[[PyTree, jax.Array, PyTree], BatchFunctions],
    optimiser: optax.GradientTransformation,
    batch_size: int,
    inputs: Inputs,
    prepare_images: PrepareImages | None,
) -> RunSteps:
    """Compile many steps along the plain gradient into one call, data parallel.

    Args:
      make_functions: (running statistics, step, traced) -> the functions of (params, batch).
      optimiser: takes the gradient to an update.
      batch_size: over all devices.
      inputs: from uint8 images to the model's.
      prepare_images: in the place of `inputs` where images are augmented; None only normalises.

    Returns:
      `run_steps(state, images, labels, order, key, traced)` like that of `make_run_steps`, but
      `order`, [steps, batch_size], has no row for the step before.
    """
    method = optim.m_sam(no_perturbation(), batch_size // jax.device_count(), axis_name=DEVICES)

    def step(
        state: TrainState, step_inputs: StepInputs, traced: PyTree
    ) -> tuple[TrainState, StepMetrics]:
        def functions_of(batch_stats: PyTree) -> BatchFunctions:
            return make_functions(batch_stats, state.step, traced)

        return train_step(state, step_inputs, functions_of, method, optimiser)

    prepare = prepare_images or (lambda key, images: inputs(images))
    run_after_previous = make_run_steps(step, prepare, device_mesh())

    def run_steps(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        order: jax.Array,
        key: Key,
        traced: PyTree,
    ) -> tuple[TrainState, StepMetrics]:
        # The plain gradient does not look at the batch before.
        order = jnp.concatenate([order[:1], order])
        return run_after_previous(state, images, labels, order, key, traced)

    return run_steps
