"""Nets with one hidden layer: training against NumPy, and what is counted against brute force."""

import jax
import numpy as np
import pytest
from page_links import opening_of
from real_commands import run

from experiments.understanding.command import run_and_report
from experiments.understanding.relu_nets import regions
from experiments.understanding.relu_nets.__main__ import EXPERIMENT
from experiments.understanding.relu_nets.network import INPUTS, OUTPUTS, Net, initialise, loss
from experiments.understanding.relu_nets.run import SMOKE
from experiments.understanding.relu_nets.training import LEARNING_RATE, train

RHO, ITERATIONS = 0.3, 40


def keys(seeds):
    return jax.vmap(jax.random.key)(np.arange(seeds))


def as_float64(net):
    return Net(*(np.asarray(leaf, np.float64) for leaf in net))


def value_and_gradient(net):
    """By hand, in NumPy."""
    before = INPUTS[:, None] * net.weight + net.bias
    hidden = np.maximum(before, 0)
    residuals = hidden @ net.output - OUTPUTS
    back = residuals[:, None] * net.output * (before > 0)
    gradient = Net((back * INPUTS[:, None]).sum(0), back.sum(0), hidden.T @ residuals)
    return (residuals**2).sum() / 2, gradient


def add(net, other, factor):
    return Net(*(a + factor * b for a, b in zip(net, other, strict=True)))


def reference(net, rho, iterations):
    """Return the losses by which training stops, and the nets after every iteration."""
    losses, nets = [], []
    for done in range(1, iterations + 1):
        value, gradient = value_and_gradient(net)
        rate = LEARNING_RATE
        if rho:
            norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient))
            value, gradient = value_and_gradient(add(net, gradient, rho / norm))
            rate *= 1 - done / iterations
        net = add(net, gradient, -rate)
        losses.append(value)
        nets.append(net)
    return losses, nets


def test_the_initial_nets():
    net = initialise(jax.random.key(0), 10_000)
    assert set(np.abs(net.weight)) == {2.5} and abs(np.mean(net.weight)) < 5 * 2.5 / 100
    for leaf, deviation in ((net.bias, 2.5), (net.output, 4.0)):  # 5 standard errors
        assert np.std(leaf) == pytest.approx(deviation, rel=5 / np.sqrt(2 * 10_000))
    assert len(INPUTS) == len(OUTPUTS) == 12
    assert (INPUTS[0], INPUTS[-1]) == pytest.approx((-1.305, 1.445))


@pytest.mark.parametrize("rho", [0.0, RHO])
def test_training_is_that_of_numpy(rho):
    path = train(keys(2), np.array([1, 7, ITERATIONS]), rho, ITERATIONS)
    for seed in range(2):
        start = as_float64(initialise(jax.random.key(seed)))
        _, wanted = reference(start, rho, ITERATIONS)
        for record, done in enumerate((1, 7, ITERATIONS)):
            assert path.iterations[seed, record] == done
            for ours, theirs in zip(path.nets, wanted[done - 1], strict=True):
                # float32 over 40 steps of weights up to 10
                np.testing.assert_allclose(ours[seed, record], theirs, atol=2e-4)
    sam = reference(start, RHO, ITERATIONS)[1][-1]
    gd = reference(start, 0.0, ITERATIONS)[1][-1]
    assert np.abs(sam.output - gd.output).max() > 0.01  # the two can be told apart


@pytest.mark.parametrize("rho", [0.0, RHO])
def test_a_net_stops_by_itself_where_its_loss_is_small(rho):
    """SAM's loss is the one at the perturbed weights; the step of that iteration is still made."""
    losses = [
        reference(as_float64(initialise(jax.random.key(seed))), rho, ITERATIONS)[0]
        for seed in range(3)
    ]
    tolerance = losses[0][10] * 1.001  # above the loss of seed 0's 11th iteration
    path = train(keys(3), np.array([1, 20, ITERATIONS]), rho, ITERATIONS, tolerance)
    for seed, values in enumerate(losses):
        below = [i for i, value in enumerate(values) if value <= tolerance]
        stop = below[0] + 1 if below else ITERATIONS
        assert path.iterations[seed, -1] == stop
        assert path.iterations[seed, 1] == min(20, stop)
    assert path.iterations[0, -1] <= 11 and len(set(path.iterations[:, -1].tolist())) > 1


def random_net(seed):
    random = np.random.default_rng(seed)
    return Net(random.normal(size=30), random.normal(size=30), random.normal(size=30))


@pytest.mark.parametrize("seed", range(3))
def test_activation_regions_are_those_of_a_fine_grid(seed):
    net = random_net(seed)
    grid = np.linspace(INPUTS.min(), INPUTS.max(), 300_001)
    patterns = grid[:, None] * net.weight + net.bias > 0
    assert regions.activation_regions(net) == 1 + (patterns[1:] != patterns[:-1]).any(axis=1).sum()


@pytest.mark.parametrize("seed", range(3))
def test_kinks_are_differences_of_slopes_across_cells(seed):
    net = random_net(seed)

    def slope(x):
        return ((x[:, None] * net.weight + net.bias > 0) * net.weight * net.output).sum(axis=1)

    ends = INPUTS.min() + regions.RESOLUTION * np.arange(276)  # the range is 275 cells
    changes = np.diff(slope(ends))
    assert regions.kinks(net) == (np.abs(changes) > regions.SMALLEST_KINK).sum() > 0


def test_a_neuron_without_weight_never_switches():
    net = Net(np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([1.0, 2.0]))
    assert regions.activation_regions(net) == 2 and regions.kinks(net) == 1


def test_norms():
    net = Net(np.array([[1.0, -2.0]]), np.array([[-3.0, 0.5]]), np.array([[2.0, -4.0]]))
    assert regions.l1_norm(net).tolist() == [12.5]
    assert regions.path_norm(net).tolist() == [2 * 4 + 4 * 2.5]


def test_the_loss():
    net = initialise(jax.random.key(1))
    assert float(loss(net)) == pytest.approx(value_and_gradient(as_float64(net))[0], rel=1e-5)


def test_the_report(tmp_path, undrawn):
    page, text = run_and_report(EXPERIMENT, SMOKE, tmp_path)
    assert "SAM − GD" in text
    html = page.read_text()
    assert all(words in html for words in ("Path norm: Σ", "fewer kinks", "2 seeds"))
    assert (page.parent / "tables" / "claims.csv").exists()


@pytest.mark.commands
def test_the_command(tmp_path):
    folder = f"--workdir={tmp_path}"
    found = run("experiments.understanding.relu_nets", "--smoke", "--seeds=3", folder)
    assert found.returncode == 0, found.stderr
    page = tmp_path / "report/index.html"
    assert "ρ = 0.3" in found.stdout and "3 seeds" in page.read_text()
    sentences = opening_of(page, "experiments.understanding.relu_nets", "--smoke", "--seeds=3")
    assert sentences[0].startswith("Of 4 claims")
