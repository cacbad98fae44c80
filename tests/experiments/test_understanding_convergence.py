"""Convergence of m-SAM: training against NumPy, known curves, and claims that fail."""

import math

import jax
import numpy as np
import pytest
from real_commands import run

from experiments.study.verdicts import test_claims
from experiments.understanding.command import run_and_report
from experiments.understanding.convergence.__main__ import EXPERIMENT
from experiments.understanding.convergence.claims import CLAIMS
from experiments.understanding.convergence.problems import (
    KINDS,
    NET,
    NOISY,
    OVERPARAMETRISED,
    loss,
)
from experiments.understanding.convergence.quantities import QUANTITIES, decay_exponent, quantities
from experiments.understanding.convergence.run import ARMS, BATCH_SIZE, PARTS, SMOKE
from experiments.understanding.convergence.training import Schedule, train
from experiments.understanding.evidence import SeedEvidence

SEEDS, STEPS = 2, 6


def make(kind):
    with jax.enable_x64(True):
        problems = jax.vmap(kind.make)(jax.vmap(jax.random.key)(np.arange(SEEDS)))
        return jax.tree.map(np.asarray, problems)


def test_the_minimum_of_the_noisy_problem():
    problem = make(NOISY)
    for inputs, outputs, minimum in zip(
        problem.inputs, problem.outputs, problem.minimum, strict=True
    ):
        _, (squares,), *_ = np.linalg.lstsq(inputs, outputs)
        assert minimum == pytest.approx(squares / len(outputs) / 2, rel=1e-12)
        assert minimum > 0.1
        np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 1, rtol=1e-12)


def test_the_others_interpolate():
    problem = make(OVERPARAMETRISED)
    best, *_ = np.linalg.lstsq(problem.inputs[0], problem.outputs[0])
    with jax.enable_x64(True):
        found = float(loss(OVERPARAMETRISED, best, (problem.inputs[0], problem.outputs[0])))
    assert found < 1e-28 and problem.minimum[0] == 0
    net = make(NET)
    weights = sum(leaf[0].size for leaf in jax.tree.leaves(net.start))
    assert weights > net.outputs.shape[1] and net.minimum[0] == 0


# ------------------------------------------------------------------ training


def reference(problem, schedule, key, method, m):
    """Return the excess losses and squared gradients before every step of a linear model."""
    inputs, outputs, params, minimum = (np.array(leaf, np.float64) for leaf in problem)

    def gradient(w, x, y):
        return x.T @ (x @ w - y) / len(y)

    excess, squared = [], []
    for step in range(STEPS):
        excess.append(((inputs @ params - outputs) ** 2).mean() / 2 - minimum)
        squared.append((gradient(params, inputs, outputs) ** 2).sum())
        shrink = 1 / (1 + step / schedule.decay)
        drawn = jax.random.randint(
            jax.random.fold_in(key, step), (BATCH_SIZE,), 0, len(outputs)
        ).reshape(-1, m)
        total = 0.0
        for chosen in np.asarray(drawn):
            x, y = inputs[chosen], outputs[chosen]
            g = gradient(params, x, y)
            length = np.linalg.norm(g) if method == "SAM" else 1.0
            moved = params + schedule.rho * math.sqrt(shrink) * g / length
            total = total + gradient(moved, x, y) * m / BATCH_SIZE
        params = params - schedule.learning_rate * shrink * total
    return np.array(excess), np.array(squared)


@pytest.mark.parametrize("m", [1, BATCH_SIZE])
@pytest.mark.parametrize("method", ["USAM", "SAM"])
def test_training_is_that_of_numpy(method, m):
    problems = make(NOISY)
    schedules = Schedule(np.array([0.5, 0.4]), np.array([0.3, 0.2]), np.array([math.inf, 3.0]))
    with jax.enable_x64(True):
        keys = jax.vmap(jax.random.key)(np.arange(10, 10 + SEEDS))
        found = train(
            *(NOISY, problems, schedules, keys),
            **{"method": method, "m": m, "batch_size": BATCH_SIZE, "steps": STEPS, "parts": 3},
        )
        for s in range(2):
            for seed in range(SEEDS):
                wanted = reference(
                    *(jax.tree.map(lambda leaf, i=seed: leaf[i], problems),),
                    *(Schedule(*(leaf[s] for leaf in schedules)), keys[seed], method, m),
                )
                for ours, theirs in zip(found, wanted, strict=True):
                    means = theirs.reshape(3, -1).mean(axis=1)  # over parts of two steps
                    np.testing.assert_allclose(ours[s, seed], means, rtol=1e-10)


# ------------------------------------------------------------------ what is read off the curves


def test_quantities_of_known_curves():
    time = np.arange(PARTS) + 0.5
    curves = np.stack([7.0 / time, np.full(PARTS, 2e-3), 10.0 ** (-time / 2)])[:, None]
    found = quantities({"excess_loss": curves, "squared_gradient": curves**2})
    assert tuple(found) == QUANTITIES and all(v.shape == (3, 1) for v in found.values())
    np.testing.assert_allclose(found["exponent"][:2, 0], [1, 0], atol=1e-12)
    np.testing.assert_allclose(found["gradient_exponent"][:2, 0], [2, 0], atol=1e-12)
    np.testing.assert_allclose(found["change"][1], 0, atol=1e-12)
    assert found["change"][0, 0] == pytest.approx(math.log10(0.4 / 0.9), abs=0.05)
    assert found["late_loss"][1, 0] == pytest.approx(math.log10(2e-3))
    # The mean over the last fifth is that of its first parts.
    assert found["fall"][2, 0] == pytest.approx(40, abs=1.5)


def test_curves_of_zero_have_a_finite_exponent():
    assert abs(decay_exponent(np.zeros((1, PARTS)))) < 1e-12


def evidence_of(**values):
    """Every arm and seed has these numbers, with a little noise between the seeds."""
    noise = 0.01 * np.random.default_rng(0).normal(size=(len(ARMS), 5))
    return SeedEvidence({name: values[name] + noise for name in QUANTITIES}, "late_loss")


def test_claims_hold_and_fail_by_their_numbers():
    constant = np.array([arm.schedule == "constant" for arm in ARMS])[:, None]
    good = evidence_of(
        late_loss=np.where(constant, -1.0, -3.0),
        **{"fall": 30.0, "change": 0.0, "exponent": 1.0, "gradient_exponent": 1.0},
    )
    assert [t.verdict for t in test_claims([good], CLAIMS)] == ["holds"] * len(CLAIMS)
    bad = evidence_of(
        late_loss=np.where(constant, -3.0, -3.5),
        **{"fall": 9.0, "change": -0.3, "exponent": 0.5, "gradient_exponent": 0.5},
    )
    assert [t.verdict for t in test_claims([bad], CLAIMS)] == ["fails"] * len(CLAIMS)


def test_every_claim_is_tested_on_the_arms_that_it_names():
    parts = {
        claim.key: [p.label for p in claim.parts(evidence_of(**dict.fromkeys(QUANTITIES, 0.0)))]
        for claim in CLAIMS
    }
    assert parts["zero_loss"] == [
        f"{kind.name}: USAM, m = {m}, constant"
        for kind in (OVERPARAMETRISED, NET)
        for m in (1, BATCH_SIZE)
    ]
    assert all(NOISY.name in label for label in parts["floor"] + parts["floor_height"])
    assert len(parts["critical_point"]) == 4 * len(KINDS)


# ------------------------------------------------------------------ the report and the command


def test_steps_that_the_curves_do_not_divide_are_refused(tmp_path):
    with pytest.raises(ValueError, match="multiple of 100.*got 250"):
        run_and_report(EXPERIMENT, SMOKE._replace(steps=250), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.e2e
def test_the_report(tmp_path, undrawn):
    page, text = run_and_report(EXPERIMENT, SMOKE, tmp_path)
    html = page.read_text()
    assert all(claim.statement in text and claim.test in html for claim in CLAIMS)
    assert (page.parent / "tables" / "arms.csv").read_text().count("\n") == 1 + 5 * len(ARMS)


@pytest.mark.commands
def test_the_command(tmp_path):
    folder = f"--workdir={tmp_path}"
    found = run("experiments.understanding.convergence", "--smoke", "--steps=100", folder)
    assert found.returncode == 0, found.stderr
    assert "reaches zero training loss" in found.stdout
    assert (tmp_path / "report" / "figures" / "excess_loss.png").stat().st_size > 10_000
