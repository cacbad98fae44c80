"""The learning rate by step: each schedule against its formula, with and without a warm-up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_problems import tiny_config

from sam_jax.training import build, schedules

STEPS = 40  # of an epoch; five epochs, one of them warm-up where there is one
RATE = 0.3


def rates_of(**fields):
    changes = {f"optimiser__{name}": value for name, value in fields.items()}
    c = tiny_config(optimiser__learning_rate=RATE, **changes).optimiser
    schedule = schedules.make_schedule(c, STEPS, 5 * STEPS)
    return np.asarray(jax.vmap(schedule)(jnp.arange(5 * STEPS)), np.float64)


def piecewise(t, first=0):
    share = (t + first) / (5 * STEPS)
    return np.where(share < 0.5, 1, np.where(share < 0.75, 0.1, 0.01))


# (step after the warm-up, steps after it) -> share of the highest rate
FORMULAS = {
    "cosine": lambda t, total: (1 + np.cos(np.pi * t / total)) / 2,
    "exponential": lambda t, total: np.exp(np.log(0.012) * t / total),
    "linear": lambda t, total: 1 - t / total,
    "piecewise": lambda t, total: piecewise(t, 5 * STEPS - total),
    "constant": lambda t, total: np.ones(len(t)),
}


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.0])
@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_a_schedule_is_its_formula(schedule, warmup_epochs):
    found = rates_of(schedule=schedule, warmup_epochs=warmup_epochs)
    warmup = round(warmup_epochs * STEPS)
    after = FORMULAS[schedule](np.arange(5 * STEPS - warmup), 5 * STEPS - warmup)
    wanted = RATE * np.concatenate([np.arange(warmup) / max(warmup, 1), after])
    # float32 with powers and cosines of a few units of rounding
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-7)
    assert np.isfinite(found).all()  # also the exponential one at step 0 without warm-up


def test_the_ends_and_the_pieces_are_the_configs():
    assert rates_of(schedule="linear", linear__end=0.5)[-1] == pytest.approx(
        RATE * (1 - 0.5 * 199 / 200), rel=1e-6
    )
    assert rates_of(schedule="exponential", exponential__end=0.25)[100] == pytest.approx(RATE / 2)
    pieces = {"piecewise__boundaries": (0.3,), "piecewise__factors": (0.0,)}
    found = rates_of(schedule="piecewise", **pieces)
    assert (found[:60] == np.float32(RATE)).all() and not found[60:].any()
    none = {"piecewise__boundaries": (), "piecewise__factors": ()}
    assert (rates_of(schedule="piecewise", **none) == np.float32(RATE)).all()


def test_the_lowest_rate_is_where_gsam_has_its_smallest_radius():
    def lowest(**fields):
        changes = {f"optimiser__{name}": value for name, value in fields.items()}
        config = tiny_config(optimiser__learning_rate=RATE, **changes)
        return schedules.lowest_learning_rate(config.optimiser)

    assert lowest() == lowest(schedule="constant") == lowest(schedule="linear") == 0
    assert lowest(schedule="linear", linear__end=0.01) == pytest.approx(0.01 * RATE)
    assert lowest(schedule="exponential") == pytest.approx(0.012 * RATE)
    assert lowest(schedule="piecewise") == pytest.approx(0.01 * RATE)
    none = {"piecewise__boundaries": (), "piecewise__factors": ()}
    assert lowest(schedule="piecewise", **none) == 0


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_gsam_takes_every_schedule(schedule):
    build.check(tiny_config(method__name="gsam", optimiser__schedule=schedule))


def test_a_warm_up_without_a_step_after_it_is_refused():
    c = tiny_config(optimiser__warmup_epochs=0.9).optimiser
    with pytest.raises(ValueError, match="optimiser.warmup_epochs = 0.9 makes 2 of the 2 steps"):
        schedules.make_schedule(c, 2, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "cosin"}, "optimiser.schedule must be one of .*'cosin'.*mean 'cosine'"),
        (
            {"learning_rate": -0.1},
            "optimiser.learning_rate must be .*, got -0.1",
        ),
        ({"learning_rate": float("inf")}, "optimiser.learning_rate"),
        (
            {"warmup_epochs": -1.0},
            "optimiser.warmup_epochs must be .*, got -1.0",
        ),
        ({"warmup_epochs": 2.0}, r"optimiser.warmup_epochs must be a number in \[0, 2\), got 2.0"),
        (
            {"exponential__end": 0.0},
            r"optimiser.exponential.end must be a number in \(0, 1\], got 0.0",
        ),
        ({"linear__end": 1.5}, r"optimiser.linear.end must be a number in \[0, 1\], got 1.5"),
        ({"piecewise__boundaries": (0.5, 1.0)}, r"piecewise.boundaries must be .* in \(0, 1\)"),
        ({"piecewise__boundaries": (0.5, 0.3)}, "optimiser.piecewise.boundaries must .*ascending"),
        ({"piecewise__factors": (0.1, -0.1)}, "optimiser.piecewise.factors must be .* 0 or more"),
        (
            {"piecewise__factors": (0.1,)},
            "piecewise.factors must have one factor for each of the 2",
        ),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    changes = {f"optimiser__{name}": value for name, value in fields.items()}
    with pytest.raises(ValueError, match=message):
        build.check(tiny_config(**changes))
