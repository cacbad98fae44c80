"""Mode connectivity: train a curve of low loss between two trained models."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sam_jax.metrics.checks import check_finite
from sam_jax.metrics.paths import curves
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
from sam_jax.runs.fields import Field, like, number, one_of, whole
from sam_jax.runs.metrics_log import MetricsLog
from sam_jax.runs.progress import Progress
from sam_jax.runs.randomness import stream
from sam_jax.training import losses
from sam_jax.training.device_data import RunSteps, everywhere, replicated
from sam_jax.training.evaluation import Inputs
from sam_jax.training.example_losses import Loss
from sam_jax.training.fit import Later, Round, fit, saving, warn_not_finite
from sam_jax.training.step import epoch_order
from sam_jax.training.trained import Trained
from sam_jax.typing import Batch, Params, PyTree, Scalar


class CurveSettings(NamedTuple):
    """How a curve is trained; the defaults come from the authors' code."""

    kind: str = "chain"  # or "bezier"
    bends: int = 1  # control points between the ends
    epochs: int = 200
    batch_size: int = 128  # over all devices
    learning_rate: float = 0.01  # at its highest
    momentum: float = 0.9
    weight_decay: float = 1e-4  # lambda of lambda / 2 * ||w(t)||^2 in the loss
    label_smoothing: float = 0.0
    augmentation: str = ""  # the name of what `prepare_images` does; empty without one
    seed: int = 0
    checkpoint_every_epochs: int = 10  # 0: only at the end


FIELDS: dict[str, Field] = {  # what the settings may hold
    "kind": one_of(curves.KINDS),
    "bends": whole(1),
    "epochs": whole(1),
    "batch_size": whole(1),
    "learning_rate": number(0),
    "momentum": number(0, 1, open_high=True),
    "weight_decay": number(0),
    "label_smoothing": number(0, 1, open_high=True),
    "augmentation": like(""),
    "seed": whole(0, 2**32 - 1),
    "checkpoint_every_epochs": whole(0),
}


def curve_learning_rate(
    highest: float, epochs: int, steps_per_epoch: int
) -> Callable[[Any], jax.Array]:
    r"""Return the learning rate of curve training by step.

    .. math::
      \eta(p) = \eta_0 \cdot \begin{cases}
        1 & p \le 0.5 \\ 1 - 0.99 \, (p - 0.5) / 0.4 & 0.5 < p \le 0.9 \\ 0.01 & p > 0.9
      \end{cases}

    where p is the epoch, counted from one, as a share of all epochs: step i is taken with
    p = (floor(i / steps_per_epoch) + 1) / epochs.

    Args:
      highest: eta_0.
      epochs: of the whole training.
      steps_per_epoch: steps of one epoch, which all have one rate.

    Returns:
      A schedule for optax.

    >>> schedule = curve_learning_rate(2.0, epochs=10, steps_per_epoch=3)
    >>> [round(float(schedule(step)), 4) for step in (0, 14, 15, 20, 26, 27)]
    [2.0, 2.0, 1.505, 1.01, 0.02, 0.02]

    Raises:
      ValueError: eta_0 is negative or not finite, or there is no epoch or no step.

    Source: learning_rate_schedule of train.py in timgaripov/dnn-mode-connectivity.
    """
    fields.check_value("highest", highest, number(0))
    fields.check_value("epochs", epochs, whole(1))
    fields.check_value("steps_per_epoch", steps_per_epoch, whole(1))

    def schedule(step: Scalar | jax.Array) -> jax.Array:
        share = (jnp.asarray(step) // steps_per_epoch + 1) / epochs
        return highest * jnp.interp(share, jnp.array([0.5, 0.9]), jnp.array([1, 0.01]))

    return schedule


def on_curve(
    functions: losses.BatchFunctions, start: Params, end: Params, t: Scalar, kind: str
) -> losses.BatchFunctions:
    """Return functions of a model's parameters as functions of the bends of a curve.

    Args:
      functions: of (params, batch); `grad_fn` returns a gradient and auxiliary outputs.
      start: the end at t = 0. It is no argument of the functions that are returned, so that
        nothing can move it.
      end: the end at t = 1, likewise.
      t: the position on the curve where the functions are evaluated.
      kind: "chain" or "bezier".

    Returns:
      The same functions of (bends, batch), at w(t); the gradient is with respect to the bends.
    """

    def at(bends: PyTree) -> Params:
        return curves.curve_point(curves.join_controls(start, bends, end), t, kind)

    def grad_fn(bends: PyTree, *batch: Batch, **keywords: Any) -> tuple[PyTree, Any]:
        gradient, outputs = functions.grad_fn(at(bends), *batch, **keywords)
        return curves.bend_gradients(gradient, t, bends, kind), outputs

    return losses.BatchFunctions(
        grad_fn,
        lambda bends, batch, **keywords: functions.losses_fn(at(bends), batch, **keywords),
        lambda bends, batch, **keywords: functions.logits_fn(at(bends), batch, **keywords),
    )


def find_curve(
    start: Trained,
    end: Trained,
    workdir: pathlib.Path | str,
    settings: CurveSettings | None = None,
    prepare_images: PrepareImages | None = None,
    label: str = "curve",
) -> PyTree:
    r"""Train the bends of a curve between two models; the ends stay as they are.

    .. math::
      \min_{w_1 \dots w_{K-1}} \; E_{t \sim U(0, 1)}
        \Big[ \ell(w(t)) + \frac{\lambda}{2} \|w(t)\|_2^2 \Big]

    One t a batch, SGD with momentum and without nesterov, batch norm on batch statistics, and the
    schedule of `curve_learning_rate`. An epoch is one compiled call.

    Args:
      start: the model at t = 0, from `load_trained`.
      end: the model at t = 1, of the same architecture and trained on the same set.
      workdir: the folder of the curve: config.json, metrics.jsonl, tensorboard/ and checkpoints/.
        A training that was cut goes on from there, and one that is done is only read.
      settings: lambda, K and the rest; None for the defaults.
      prepare_images: (key, uint8 images) -> the model's inputs, with augmentation; the same
        function is compiled once. None only normalises. `settings.augmentation` names it.
      label: the name of the training in the progress.

    Returns:
      The control points, leaves [K + 1, ...]; the first and the last row are the two models.

    Raises:
      ValueError: a setting is out of its range; the models do not fit each other, are the same or
        are not finite; the batch does not fit the devices or the set; `prepare_images` has no name;
        or the folder belongs to another curve.

    Source: Garipov et al. 2018, Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs,
      equation 2; timgaripov/dnn-mode-connectivity.
    """
    settings = CurveSettings() if settings is None else settings
    check_settings(settings, CurveSettings, FIELDS)
    check_path("workdir", workdir)
    check_augmentation(settings.augmentation, prepare_images)
    _check_ends(start, end)
    examples = len(start.data.train_labels)
    steps_per_epoch = check_steps_per_epoch(settings.batch_size, settings.epochs, examples)
    ends = {"start": start.state.params, "end": end.state.params}
    controls = curves.initial_controls(ends["start"], ends["end"], settings.bends)
    curves.check_curve(0.0, settings.bends + 2, settings.kind)
    optimiser, run_steps = _compiled_training(
        start.program.model,
        start.program.inputs,
        settings._replace(seed=0, checkpoint_every_epochs=0),
        steps_per_epoch,
        prepare_images,
    )
    key = jax.random.key(settings.seed)
    traced = everywhere(ends | {"key": stream(key, "curve")})
    state = initial_state(curves.bends_of(controls), start.state.batch_stats, optimiser)
    workdir = pathlib.Path(workdir)
    changing = settings._asdict()
    del changing["checkpoint_every_epochs"]  # it changes nothing of the curve
    claim_folder(workdir, changing, ends)
    data = start.data

    def calls(epoch: int) -> list[tuple[RunSteps, tuple[Any, ...]]]:
        order = epoch_order(stream(key, "order"), epoch, examples, settings.batch_size)
        images = data.train_images, data.train_labels
        return [(run_steps, (*images, order, key, traced))]

    with (
        locks.held(workdir, "training"),
        heartbeat.doing(label),
        checkpoints.open_manager(workdir, keep=1) as manager,
    ):
        state, first_epoch = checkpoints.restore_latest(manager, state, replicated())
        log = MetricsLog(workdir, first_epoch)

        def record(epoch: Round) -> Later:
            def write() -> None:
                means = dict(zip(("batch_loss", "batch_accuracy"), epoch.means(), strict=True))
                log.write({"epoch": epoch.number, **means})

            return write

        def pause(done: Round) -> None:
            log.close()
            if done.number not in (0, *checkpoints.epochs_of(manager)):
                checkpoints.save(manager, done.number, done.state)
                manager.wait_until_finished()
            progress.finish(f"stopped after epoch {done.number}/{settings.epochs}; it is saved")

        images_per_epoch = steps_per_epoch * settings.batch_size
        progress = Progress(label, settings.epochs, images_per_epoch, first_epoch)
        state = fit(
            state,
            range(first_epoch, settings.epochs),
            calls,
            batch_size=settings.batch_size,
            progress=progress,
            hooks=(warn_not_finite, record),
            save=saving(manager),
            save_every=settings.checkpoint_every_epochs,
            pause=pause,
        )
        log.close()
    progress.finish(f"trained for {settings.epochs} epochs")
    return curves.join_controls(traced["start"], state.params, traced["end"])


@functools.lru_cache(maxsize=8)
def _compiled_training(
    model: nn.Module,
    inputs: Inputs,
    settings: CurveSettings,
    steps_per_epoch: int,
    prepare_images: PrepareImages | None,
) -> tuple[optax.GradientTransformation, RunSteps]:
    learning_rate = curve_learning_rate(settings.learning_rate, settings.epochs, steps_per_epoch)
    optimiser = optax.sgd(learning_rate, momentum=settings.momentum)

    def make_functions(
        batch_stats: PyTree, step: jax.Array, traced: dict[str, PyTree]
    ) -> losses.BatchFunctions:
        functions = losses.make_functions(
            model,
            batch_stats,
            Loss(label_smoothing=settings.label_smoothing),
            settings.weight_decay,
        )
        t = jax.random.uniform(jax.random.fold_in(traced["key"], step))
        return on_curve(functions, traced["start"], traced["end"], t, settings.kind)

    return optimiser, make_plain_run(
        make_functions, optimiser, settings.batch_size, inputs, prepare_images
    )


def _check_ends(start: Trained, end: Trained) -> None:
    ends = {"start": start, "end": end}
    for name, model in ends.items():
        check_trained(name, model)
    if start.program.model != end.program.model or start.source != end.source:
        raise ValueError(
            "The two ends of a curve must be of one architecture and trained on one set; got "
            f"{start.program.model} on {start.source.name} and {end.program.model} on "
            f"{end.source.name}."
        )
    for name, model in ends.items():
        check_finite(name, model.state.params)
    pairs = zip(*(jax.tree.leaves(m.state.params) for m in (start, end)), strict=True)
    if all(np.array_equal(w, v) for w, v in pairs):
        raise ValueError(
            "The two ends of a curve are the same weights, at distance 0, and nothing lies between "
            "them. Give two models, for example of two seeds."
        )
