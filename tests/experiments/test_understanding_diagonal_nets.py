"""Diagonal linear networks: the released notebook's numbers, and the gradients by other routes."""

import csv
import math

import jax
import numpy as np
import pytest
from real_commands import run

import sam_jax
from experiments.understanding.command import run_and_report
from experiments.understanding.diagonal_nets import sweep, table
from experiments.understanding.diagonal_nets.__main__ import EXPERIMENT
from experiments.understanding.diagonal_nets.arms import ARMS, DIVERGED, N_SAM, ONE_SAM
from experiments.understanding.diagonal_nets.data import make_data
from experiments.understanding.diagonal_nets.run import (
    SMOKE,
    Settings,
    compute,
    logged_iterations,
    losses_between,
)
from experiments.understanding.diagonal_nets.sweep import Method, Weights, gradient

# A test loss of 1e-8 has residuals of 1e-4, of which rounding of 1e-16 over 10,000 iterations
# moves the eighth digit; here 5e-7.
TOLERANCE, TOLERANCE_OF_TINY, TINY = 1e-6, 1e-5, 1e-7


@pytest.fixture(scope="module")
def results():
    """The whole sweep, about five seconds."""
    return compute(Settings())


@pytest.fixture(scope="module")
def lines(results):
    return table.lines(results)


def test_the_data_are_the_notebooks():
    data = make_data()
    assert data.inputs.shape == (20, 30) and data.test_inputs.shape == (1000, 30)
    np.testing.assert_allclose(data.inputs[0, :3], (1.76405235, 0.40015721, 0.97873798), rtol=1e-8)
    np.testing.assert_allclose(
        data.teacher[:3], (0.86573371, 0.15799741, 0.47491259), rtol=0, atol=5e-9
    )
    assert not data.teacher[3:].any() and np.linalg.norm(data.teacher) == pytest.approx(1)
    np.testing.assert_array_equal(data.test_outputs, data.test_inputs @ data.teacher)


def test_every_recorded_number_is_reproduced(lines):
    recorded = [line for line in lines if isinstance(line.recorded, float)]
    assert len(recorded) == 36
    for line in recorded:
        tolerance = TOLERANCE_OF_TINY if line.recorded < TINY else TOLERANCE
        assert line.test_loss == pytest.approx(line.recorded, rel=tolerance), line
    assert sum(line.recorded < TINY for line in recorded) == 2


def test_what_diverged_diverges(lines):
    (line,) = [line for line in lines if line.recorded == DIVERGED]
    assert (line.cell, line.network) == ("4", f"{ONE_SAM}, ρ = 0.9")
    assert math.isnan(line.test_loss)


def test_the_stale_step_size_explains_cell_4(lines):
    """With the step size that the cell sets, no number of n-SAM is the recorded one."""
    recorded = {x.network: x.recorded for x in lines if x.cell == "4" and N_SAM in x.network}
    meant = {x.network: x.test_loss for x in lines if x.cell == "beyond" and N_SAM in x.network}
    assert recorded.keys() == meant.keys() and len(meant) == 7
    assert all(abs(meant[name] / recorded[name] - 1) > 0.02 for name in meant)


def test_phases_are_chained(results, lines):
    """The second phase goes on from the first: its first loss is next to the first's last."""
    chained = [row for row, arm in enumerate(ARMS) if arm.cell == "5"]
    losses = results["test_losses"][:, :, chained]
    np.testing.assert_allclose(losses[1, 0, [0, 2]], losses[0, -1, [0, 2]], rtol=1e-3)
    assert [line.iterations for line in lines if line.cell == "5"] == [
        *(10_001, 20_002),
        20_002,
        *(10_001, 20_002),
    ]


def test_the_sweep_is_one_program(results):
    before = sweep._train._cache_size()
    compute(SMOKE)
    assert sweep._train._cache_size() == before + 1  # of another length; one for all networks


# ------------------------------------------------------------------ the gradients by other routes


@pytest.fixture
def problem():
    random = np.random.RandomState(3)
    weights = Weights(random.randn(4), random.randn(4))
    return weights, random.randn(5, 4), random.randn(5)


def example_loss(weights, batch):
    inputs, outputs = batch
    return ((inputs @ (weights.u * weights.v) - outputs) ** 2).mean() / 2


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.7])
@pytest.mark.parametrize("per_example", [False, True])
def test_the_library_has_the_same_gradients(problem, per_example, rho):
    weights, inputs, outputs = problem
    grad_fn = jax.grad(example_loss)
    # The released 1-SAM ascends the gradient of the squared residual, without the factor 1/2.
    method = sam_jax.m_sam(sam_jax.usam(2 * rho), m=1) if per_example else sam_jax.usam(rho)
    with jax.enable_x64(True):
        batch = (inputs, outputs)
        arguments = (
            {"grad_fn": grad_fn, "batch": batch}
            if per_example
            else {"grad_fn": lambda w: grad_fn(w, batch)}
        )
        weights = jax.tree.map(jax.numpy.asarray, weights)
        wanted, _ = method.update(
            grad_fn(weights, batch), method.init(weights), weights, **arguments
        )
        found = gradient(weights, Method(per_example, False, rho, 0.0), inputs, outputs)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-13)


def test_the_loss_derivative_only_variant(problem):
    """Against a loop over examples; the network's derivative stays at the plain weights."""
    (u, v), inputs, outputs = problem
    rho, of_u, of_v = 0.3, 0.0, 0.0
    for x, y in zip(inputs, outputs, strict=True):
        r = x @ (u * v) - y
        moved = x @ ((u + 2 * rho * r * x * v) * (v + 2 * rho * r * x * u)) - y
        of_u, of_v = of_u + moved * x * v / len(inputs), of_v + moved * x * u / len(inputs)
    with jax.enable_x64(True):
        found = gradient(Weights(u, v), Method(True, True, rho, 0.0), inputs, outputs)
        whole = gradient(Weights(u, v), Method(True, False, rho, 0.0), inputs, outputs)
    np.testing.assert_allclose(found.u, of_u, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(found.v, of_v, rtol=1e-13, atol=1e-13)
    assert not np.allclose(whole.u, of_u, rtol=1e-2)


@pytest.mark.parametrize("iterations", [1, 2, 3, 499, 500, 501, 10_001])
def test_the_first_and_the_last_iterations_are_logged(iterations):
    logged = logged_iterations(iterations)
    assert logged[0] == 0 and logged[-1] == iterations - 1 and (np.diff(logged) > 0).all()
    dense = min(iterations, 500)
    np.testing.assert_array_equal(logged[:dense], np.arange(dense))


def test_the_line_between_two_networks_meets_both(problem):
    weights, inputs, outputs = problem
    other = Weights(weights.v, weights.u + 1.0)
    data = make_data()._replace(
        inputs=inputs, outputs=outputs, test_inputs=inputs[:2], test_outputs=outputs[:2]
    )
    train, test = losses_between(weights, other, data, np.array([0.0, 1.0]))
    for k, w in enumerate((weights, other)):
        assert train[k] == pytest.approx(example_loss(w, (inputs, outputs)), rel=1e-14)
        assert test[k] == pytest.approx(example_loss(w, (inputs[:2], outputs[:2])), rel=1e-14)


# ------------------------------------------------------------------ the report and the command


def test_the_report(tmp_path, undrawn):
    page, text = run_and_report(EXPERIMENT, SMOKE, tmp_path)
    html = page.read_text()
    assert "201 iterations a phase, not the 10,001" in html and "1-SAM, ρ = 0.175 → GD" in text
    with open(page.parent / "tables" / "recorded.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 37 + 14 and rows[0]["recorded"] == "0.015056044189449159"
    stems = ("losses_over_iterations", "fine_tuning", "test_loss_over_rho", "learned_weights")
    assert all((page.parent / "figures" / f"{s}.png").exists() for s in stems)
    with pytest.raises(ValueError, match="iterations.*Choose another --workdir"):
        run_and_report(EXPERIMENT, SMOKE._replace(iterations=5), tmp_path)


@pytest.mark.commands
def test_the_command(tmp_path):
    command = ("experiments.understanding.diagonal_nets", "--smoke", f"--workdir={tmp_path}")
    first = run(*command)
    assert first.returncode == 0, first.stderr
    assert "1-SAM, ρ = 0.3" in first.stdout and (tmp_path / "report" / "index.html").exists()
    made = (tmp_path / "results.npz").stat().st_mtime_ns
    assert run(*command).stdout == first.stdout
    assert (tmp_path / "results.npz").stat().st_mtime_ns == made  # nothing was computed again
