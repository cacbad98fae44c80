"""Losses and accuracies along random directions as long as the filters, kept in files."""

import functools
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import metrics, plotting
from sam_jax.measuring.along_directions import RELATIVE, directions_key
from sam_jax.measuring.batch_norm_policy import policy_of
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take, with_stderr
from sam_jax.measuring.kept_files import folder_of
from sam_jax.measuring.landscapes import measure_line
from sam_jax.measuring.measured import needs_test_set
from sam_jax.metrics.landscape.grids import BATCH_NORM_POLICIES
from sam_jax.runs.distributed import from_first
from sam_jax.runs.fields import odd, one_of, positive, whole
from sam_jax.runs.records import Record, as_read
from sam_jax.typing import Key, Params, PyTree

LOSSES = {"train_loss": "Training loss", "test_loss": "Test loss"}


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield the settings of the lines and what measures along them.

    The folder that the record names holds `line_0.jsonl`, ..., for `landscapes.read_line`, and a
    picture of their mean, `losses.png`. The level sets use the same directions.

    Raises:
      ValueError: the number of points is even; the run has no folder, or the model no test set or
        no such batch norm.
    """
    measured, settings, _, _ = subject
    c = settings.loss_line
    if c.points < 3 or c.points % 2 == 0:
        raise ValueError(
            f"instruments.loss_line.points must be odd and at least 3, so that the model is one of "
            f"them; got {c.points}."
        )
    about = {**RELATIVE, **c.to_dict()}
    folder = folder_of(subject, "loss_line", about)
    needs_test_set(measured, "loss_line")
    measured.network.check(c.batch_norm)
    batch_norm = policy_of(c.batch_norm, c.batch_norm_batch_size)
    distances = np.linspace(-c.limit, c.limit, c.points)

    def take() -> Record:
        key, params = directions_key(settings), measured.params
        lines = [
            measure_line(
                measured,
                _direction(c.num_directions)(key, params, number),
                distances,
                folder / f"line_{number}.jsonl",
                batch_norm=batch_norm,
                batch_size=settings.batch_size,
                label=f"line {number + 1} of {c.num_directions}",
            )
            for number in range(c.num_directions)
        ]
        from_first(lambda: _draw(folder, lines))
        found = {"folder": str(folder.relative_to(folder.parents[1]))}
        for name in LOSSES:
            losses = np.array([line.values[name] for line in lines])
            rises = (losses[:, 0] + losses[:, -1]) / 2 - losses[:, c.points // 2]
            found |= with_stderr(f"mean_{name}_rise", jnp.asarray(rises))
        return as_read(found)

    yield about, take


def _draw(folder: pathlib.Path, lines: list[metrics.LossLine]) -> None:
    figure, panels = plotting.small_multiples(len(LOSSES), len(LOSSES))
    for axes, (name, title) in zip(panels, LOSSES.items(), strict=True):
        plotting.landscape_lines(
            axes,
            {title: lines},
            quantity=name,
            x_label="Distance in norms of the filters",
            value_label=title,
        )
    plotting.save(figure, folder / "losses")


@functools.lru_cache(maxsize=4)
def _direction(num_directions: int) -> Callable[[Key, Params, int], PyTree]:
    def draw(key: Key, params: Params, number: jax.Array) -> PyTree:
        directions = metrics.random_directions(key, params, num_directions, *RELATIVE.values())
        return jax.tree.map(lambda leaf: leaf[number], directions)

    return jax.jit(draw)


INSTRUMENT = Instrument(
    name="loss_line",
    title="Loss lines",
    plan=plan,
    settings={
        "num_directions": 5,
        "limit": 1.0,
        "points": 21,
        "batch_norm": "running",
        "batch_norm_batch_size": 128,
    },
    ranges={
        "num_directions": whole(1),
        "limit": positive(),
        "points": odd(3),
        "batch_norm": one_of(BATCH_NORM_POLICIES),
        "batch_norm_batch_size": whole(1),
    },
    smoke={"num_directions": 2, "points": 3},
    identity=("distribution", "normalisation", "limit", "batch_norm"),
    columns=(
        Column("mean_train_loss_rise", "rise at the ends", "Loss lines: rise", unit="nats"),
        Column("mean_test_loss_rise", "test rise", unit="nats"),
    ),
    by_default=False,
)
