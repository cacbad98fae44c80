"""Wrong arguments of curves and ensembles: each error names the argument and what it got."""

import functools
import os

import jax
import jax.numpy as jnp
import pytest
from linear_problems import linear_models

from sam_jax.metrics.paths import curves
from sam_jax.paths import collect_members, evaluate_curve, evaluate_ensemble, find_curve
from sam_jax.paths.collect_members import EnsembleSettings, Members
from sam_jax.paths.find_curve import CurveSettings

CURVE = CurveSettings(epochs=1, batch_size=16)
ENSEMBLE = EnsembleSettings(epochs=2, cycle_epochs=2, batch_size=16)
IMAGES, LABELS = jnp.zeros((3, 8, 8, 1), jnp.uint8), jnp.zeros(3, jnp.int32)
between = find_curve.curve_learning_rate
cycle = functools.partial(collect_members.cyclic_learning_rate, 0.1, 0.01)


class Made:
    """What the calls are given: two models, the line between them, and both as members."""

    def __init__(self, folder):
        self.one, self.two = linear_models()
        self.params, self.folder = self.one.state.params, folder
        self.line = curves.initial_controls(self.params, self.two.state.params)
        self.members = Members(self.line, {})

    def curve(self, start=None, end=None, settings=CURVE, workdir=None, **more):
        ends = (x or y for x, y in ((start, self.one), (end, self.two)))
        return find_curve.find_curve(*ends, workdir or self.folder, settings, **more)

    def along(self, trained=None, controls=None, **more):
        at = trained or self.one, self.line if controls is None else controls
        return evaluate_curve.evaluate_curve(*at, **{"points": 3} | more)

    def collect(self, trained=None, settings=ENSEMBLE, workdir=None):
        at = trained or self.one, workdir or self.folder
        return collect_members.collect_members(*at, settings)

    def ensemble(self, trained=None, members=None, images=IMAGES, labels=LABELS, **more):
        models = trained or self.one, self.members if members is None else members
        return evaluate_ensemble.evaluate_ensemble(*models, images, labels, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("none"))


CASES = {
    "a start without a model": (lambda m: m.curve(m.params), "start .* load_trained.* got a dict"),
    "an end with its config": (lambda m: m.curve(end=(1, m.two)), "end .* got a tuple"),
    "a curve's dict": (lambda m: m.curve(settings={"epochs": 1}), "type CurveSettings.* a dict"),
    "a curve's ensemble": (lambda m: m.curve(settings=ENSEMBLE), "got a EnsembleSettings"),
    "a curve's folder": (lambda m: m.curve(workdir=3), "workdir must be a path.* got 3"),
    "a curve's images": (
        lambda m: m.curve(settings=CURVE._replace(augmentation="x"), prepare_images=3),
        "prepare_images must be a function .* got 3",
    ),
    "no epochs": (lambda m: between(0.1, 0, 3), "epochs must be a whole number from 1 on, got 0"),
    "no steps": (lambda m: between(0.1, 3, 0), "steps_per_epoch .* got 0"),
    "no rate": (lambda m: between(float("nan"), 3, 3), "highest must be a finite .* got nan"),
    "a state along": (lambda m: m.along(m.one.state), "trained .* got a TrainState"),
    "one model along": (lambda m: m.along(controls=m.params), r"controls .*/(bias|kernel) .*\[n, "),
    "another net along": (lambda m: m.along(controls={"w": jnp.ones((2, 3))}), "structure .* w"),
    "another width along": (
        lambda m: m.along(controls=jax.tree.map(lambda x: x[:, :5], m.line)),
        r"shape \[n, 10\] .* got \[3, 5\]",
    ),
    "half a point": (
        lambda m: m.along(points=2.5),
        "points must be a whole number from 2 on, got 2.5",
    ),
    "no batch along": (lambda m: m.along(batch_size=0), "batch_size .* from 1 on, got 0"),
    "a file's number": (lambda m: m.along(path=3), "path must be a path.* got 3"),
    "a curve's record": (
        lambda m: evaluate_curve.curve_record(m.line),
        "evaluate_curve, got a dict",
    ),
    "half a step": (lambda m: cycle(4.5), "cycle_steps must be even and at least 2, got 4.5"),
    "an endless rate": (
        lambda m: collect_members.cyclic_learning_rate(float("inf"), 0.1, 4),
        "highest must be a finite number .* got inf",
    ),
    "a rate's name": (
        lambda m: collect_members.cyclic_learning_rate(0.1, "low", 4),
        "lowest must be a finite number .* got 'low'",
    ),
    "members of a state": (lambda m: m.collect(m.one.state), "trained .* got a TrainState"),
    "members' dict": (lambda m: m.collect(settings={}), "type EnsembleSettings.* got a dict"),
    "members' folder": (lambda m: m.collect(workdir=3), "workdir must be a path.* got 3"),
    "an ensemble's state": (lambda m: m.ensemble(m.one.state), "trained .* got a TrainState"),
    "a list of members": (
        lambda m: m.ensemble(members=[m.one]),
        "from collect_members.* got a list",
    ),
    "one member": (lambda m: m.ensemble(members=Members(m.params, {})), "one new leading axis"),
    "no member": (
        lambda m: m.ensemble(members=Members(jax.tree.map(lambda x: x[:0], m.line), {})),
        r"n of 1 or more, got \[0, ",
    ),
    "members of two lengths": (
        lambda m: m.ensemble(
            members=Members({"dense": m.line["dense"] | {"bias": jnp.ones((2, 10))}}, {})
        ),
        "one new leading axis",
    ),
    "floats as images": (
        lambda m: m.ensemble(images=IMAGES / 255),
        r"uint8 .* float32 \(3, 8, 8, 1",
    ),
    "fewer labels": (lambda m: m.ensemble(labels=LABELS[:2]), r"m = 3 images.* int32 \(2,\)"),
    "floats as labels": (lambda m: m.ensemble(labels=LABELS / 1), "integers .* float32"),
    "no images": (lambda m: m.ensemble(images=IMAGES[:0], labels=LABELS[:0]), "m at least 1"),
    "half a batch": (lambda m: m.ensemble(batch_size=1.5), "batch_size .* whole number .* got 1.5"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_argument_is_named(case, made):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        call(made)
    assert not os.listdir(made.folder)
