"""Fast geometric ensembling: models collected along a cyclic learning rate, and their ensemble."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from sam_jax.metrics.checks import check_finite
from sam_jax.paths.checks import check_path, check_settings, check_trained
from sam_jax.paths.plain_run import (
    PrepareImages,
    check_augmentation,
    check_steps_per_epoch,
    claim_folder,
    initial_state,
    make_plain_run,
)
from sam_jax.runs import checkpoints, fields, heartbeat, locks
from sam_jax.runs.fields import Field, like, number, whole
from sam_jax.runs.progress import Progress
from sam_jax.runs.randomness import stream
from sam_jax.training import losses
from sam_jax.training.device_data import RunSteps, replicated
from sam_jax.training.evaluation import Inputs
from sam_jax.training.example_losses import Loss
from sam_jax.training.fit import Round, fit
from sam_jax.training.step import epoch_order
from sam_jax.training.trained import Trained
from sam_jax.typing import Params, PyTree, Scalar


class EnsembleSettings(NamedTuple):
    """How the models are collected; the defaults come from the authors' code."""

    epochs: int = 20  # after the training that the ensemble starts from
    cycle_epochs: int = 4
    highest_learning_rate: float = 0.05
    lowest_learning_rate: float = 1e-4
    batch_size: int = 128  # over all devices
    momentum: float = 0.9
    weight_decay: float = 1e-4  # lambda of lambda / 2 * ||w||^2 in the loss
    label_smoothing: float = 0.0
    augmentation: str = ""  # the name of what `prepare_images` does; empty without one
    seed: int = 0


FIELDS: dict[str, Field] = {  # what the settings may hold
    "epochs": whole(1),
    "cycle_epochs": whole(1),
    "highest_learning_rate": number(0),
    "lowest_learning_rate": number(0),
    "batch_size": whole(1),
    "momentum": number(0, 1, open_high=True),
    "weight_decay": number(0),
    "label_smoothing": number(0, 1, open_high=True),
    "augmentation": like(""),
    "seed": whole(0, 2**32 - 1),
}


class Members(NamedTuple):
    """The models of an ensemble, stacked: every leaf is [n, ...]."""

    params: Params
    batch_stats: PyTree


def cyclic_learning_rate(
    highest: float, lowest: float, cycle_steps: int
) -> Callable[[Any], jax.Array]:
    r"""Return the triangular learning rate of fast geometric ensembling, by step.

    .. math::
      t = \frac{(i \bmod c) + 1}{c}, \qquad
      \eta = \begin{cases} (1 - 2t)\, \eta_1 + 2t\, \eta_2 & t \le 1/2 \\
        (2 - 2t)\, \eta_2 + (2t - 1)\, \eta_1 & t > 1/2 \end{cases}

    Step i = c / 2 - 1, counted from zero, and every c-th step after it have exactly the lowest
    rate. A model is collected after each of these steps.

    Args:
      highest: eta_1, at the end of every cycle.
      lowest: eta_2, in the middle.
      cycle_steps: c, even.

    Returns:
      A schedule for optax.

    Raises:
      ValueError: c is odd or not positive, or the rates are not finite or not ordered.

    >>> schedule = cyclic_learning_rate(0.5, 0.1, cycle_steps=4)
    >>> [round(float(schedule(i)), 6) for i in range(6)]
    [0.3, 0.1, 0.3, 0.5, 0.3, 0.1]

    Source: Garipov et al. 2018, the schedule alpha(i); i counts from one there.
    """
    if not whole(2).holds(cycle_steps) or cycle_steps % 2:
        raise ValueError(f"cycle_steps must be even and at least 2, got {cycle_steps}.")
    for name, rate in (("highest", highest), ("lowest", lowest)):
        fields.check_value(name, rate, number(0))
    if lowest > highest:
        raise ValueError(f"0 <= lowest <= highest must hold, got {lowest} and {highest}.")

    def schedule(step: Scalar | jax.Array) -> jax.Array:
        t = (jnp.asarray(step) % cycle_steps + 1) / cycle_steps
        return lowest + (highest - lowest) * jnp.abs(1 - 2 * t)

    return schedule


def collect_members(
    trained: Trained,
    workdir: pathlib.Path | str,
    settings: EnsembleSettings | None = None,
    prepare_images: PrepareImages | None = None,
    label: str = "ensemble",
) -> Members:
    """Train on with a cyclic learning rate, and collect a model at every minimum of it.

    SGD with momentum, without nesterov, from a momentum of zero. The first model is collected after
    half a cycle, the next ones a cycle apart. Half a cycle is one compiled call. Every member is a
    checkpoint, and a cut training goes on from the last one: on CPU to the same bits.

    Args:
      trained: where to start, for example a checkpoint at 80 % of a training; it is not a member.
      workdir: the folder of the ensemble: config.json and checkpoints/, where checkpoint k is the
        state after member k, counted from one. An ensemble that is done is only read.
      settings: the learning rates, the length of a cycle and the rest; None for the defaults.
      prepare_images: (key, uint8 images) -> the model's inputs, with augmentation; the same
        function is compiled once. None only normalises. `settings.augmentation` names it.
      label: the name of the training in the progress.

    Returns:
      The members in the order of collection, with the running statistics they were trained to.

    Raises:
      ValueError: a setting is out of its range; there is no time for half a cycle, or a half cycle
        is no whole number of steps; the model is not finite, `prepare_images` has no name, or the
        folder belongs to another run.

    Source: Garipov et al. 2018, fast geometric ensembling; timgaripov/dnn-mode-connectivity, which
    reaches the lowest rate one step later than the paper's formula.
    """
    settings = EnsembleSettings() if settings is None else settings
    check_trained("trained", trained)
    check_settings(settings, EnsembleSettings, FIELDS)
    check_path("workdir", workdir)
    check_augmentation(settings.augmentation, prepare_images)
    start = {"params": trained.state.params, "batch_stats": trained.state.batch_stats}
    for name, tree in start.items():
        check_finite(name, tree)
    data, examples = trained.data, len(trained.data.train_labels)
    steps_per_epoch = check_steps_per_epoch(settings.batch_size, settings.epochs, examples)
    half = _half_cycle(settings, steps_per_epoch)
    optimiser, run_steps = _compiled_training(
        trained.program.model,
        trained.program.inputs,
        settings._replace(seed=0),
        2 * half,
        prepare_images,
    )
    key = jax.random.key(settings.seed)
    order = jnp.concatenate(
        [
            epoch_order(stream(key, "order"), epoch, examples, settings.batch_size)
            for epoch in range(settings.epochs)
        ]
    )
    state = initial_state(**start, optimiser=optimiser)
    count = (len(order) // half + 1) // 2  # what follows the last minimum is not needed
    workdir = pathlib.Path(workdir)
    claim_folder(workdir, settings._asdict(), start)

    def calls(index: int) -> list[tuple[RunSteps, tuple[Any, ...]]]:
        half_order = order[index * half : (index + 1) * half]
        images = data.train_images, data.train_labels
        return [(run_steps, (*images, half_order, key, {}))]

    with (
        locks.held(workdir, "training"),
        heartbeat.doing(label),
        checkpoints.open_manager(workdir, keep=count) as manager,
    ):
        state, done = checkpoints.restore_latest(manager, state, replicated())
        first = max(2 * done - 1, 0)  # of the half cycles; a minimum ends every other one
        images_per_epoch = steps_per_epoch * settings.batch_size
        first_epoch = first * half / steps_per_epoch
        progress = Progress(label, settings.epochs, images_per_epoch, first_epoch)

        def collect(half_cycle: Round) -> None:
            if half_cycle.number % 2:
                checkpoints.save(manager, (half_cycle.number + 1) // 2, half_cycle.state)

        state = fit(
            state,
            range(first, 2 * count - 1),
            calls,
            batch_size=settings.batch_size,
            progress=progress,
            hooks=(collect,),
        )
        manager.wait_until_finished()
        states = [
            checkpoints.restore(manager, state, member, replicated())
            for member in range(1, count + 1)
        ]
    progress.finish(f"{count} members")
    members = [Members(state.params, state.batch_stats) for state in states]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def _half_cycle(settings: EnsembleSettings, steps_per_epoch: int) -> int:
    """Return the steps of half a cycle."""
    cycle = settings.cycle_epochs * steps_per_epoch
    if cycle < 2 or cycle % 2 or 2 * settings.epochs < settings.cycle_epochs:
        raise ValueError(
            f"cycle_epochs = {settings.cycle_epochs} makes cycles of {cycle} steps, in epochs = "
            f"{settings.epochs}. A cycle must be an even number of steps, since a model is "
            "collected in its middle, and half of one must fit; an even cycle_epochs always is."
        )
    return cycle // 2


@functools.lru_cache(maxsize=8)
def _compiled_training(
    model: nn.Module,
    inputs: Inputs,
    settings: EnsembleSettings,
    cycle_steps: int,
    prepare_images: PrepareImages | None,
) -> tuple[optax.GradientTransformation, RunSteps]:
    learning_rate = cyclic_learning_rate(
        settings.highest_learning_rate, settings.lowest_learning_rate, cycle_steps
    )
    optimiser = optax.sgd(learning_rate, momentum=settings.momentum)

    def make_functions(
        batch_stats: PyTree, step: jax.Array, traced: PyTree
    ) -> losses.BatchFunctions:
        del step, traced
        return losses.make_functions(
            model,
            batch_stats,
            Loss(label_smoothing=settings.label_smoothing),
            settings.weight_decay,
        )

    return optimiser, make_plain_run(
        make_functions, optimiser, settings.batch_size, inputs, prepare_images
    )
