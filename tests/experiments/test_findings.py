"""The sentences that a report opens with: their numbers are those of NumPy and SciPy."""

import math
from typing import NamedTuple

import ml_collections
import numpy as np
import pytest
import scipy.stats

from experiments.study import findings, provenance
from experiments.study.contrasts import Contrast
from experiments.study.results import Results
from experiments.study.surfaces import Path, Surfaces
from experiments.study.table import Column
from sam_jax.metrics.landscape.grids import LossPlane

LOSS = Column("Loss", "test", "loss", {"measure": "m"}, best="min")
ACCURACY = Column("Test", "accuracy / %", "loss", {"measure": "m"}, best="max", scale=100.0)


class Arm(NamedTuple):
    name: str

    @property
    def label(self):
        return self.name.upper()


def made(values):
    """Return results of arms a, b, ... with a loss for every seed."""
    arms = tuple(Arm("abcdef"[i]) for i in range(len(values)))
    records = tuple(
        {"measure": "m", "arm": arm.name, "seed": seed, "loss": value}
        for arm, row in zip(arms, values, strict=True)
        for seed, value in enumerate(row)
    )
    return Results(arms, tuple(range(len(values[0]))), records)


VALUES = np.array([[0.50, 0.54, 0.55], [0.20, 0.22, 0.23], [0.21, 0.26, 0.22], [0.9, 0.8, 0.85]])


def test_the_best_arm_and_its_lead():
    found = findings.of_arms(made(VALUES), LOSS)
    assert len(found) == 5
    assert found[0].startswith("B has the lowest test loss of 4 arms, 0.217 ± 0.009 (mean")
    difference = VALUES[1] - VALUES[0]
    test = scipy.stats.ttest_1samp(difference, 0)
    low, high = test.confidence_interval()
    error = difference.std(ddof=1) / np.sqrt(3)
    words = f"{difference.mean():.4f} ± {error:.4f} (95% CI {low:.4f} to {high:.4f}), p < 0.001."
    assert found[1] == f"The difference of B from A is {words}".replace("-", "−")
    pairs = [(i, j) for j in range(4) for i in range(j)]
    p_values = [scipy.stats.ttest_rel(VALUES[i], VALUES[j]).pvalue for i, j in pairs]
    assert f"separate {sum(p < 0.05 for p in p_values)} of 6 pairs" in found[2]
    assert "B from C" in found[3] and found[4].startswith("D has the highest, 0.850")


def test_where_more_is_better_the_best_is_the_highest():
    found = findings.of_arms(made(VALUES), ACCURACY, most=1)
    assert found == [
        "D has the highest test accuracy of 4 arms, 85.0 ± 2.9 % "
        "(mean ± standard error over 3 seeds)."
    ]


def test_one_seed_separates_nothing_and_no_number_is_said():
    found = findings.of_arms(made([[0.5], [0.4]]), LOSS)
    assert "There is one seed" in found[2] and "(one seed)" in found[0]
    assert findings.of_arms(made([[math.nan], [math.inf]]), LOSS) == [
        "No arm has a test loss that is finite."
    ]
    assert len(findings.of_arms(made([[0.5], [math.nan]]), LOSS)) == 1  # no lead over nothing


def test_a_tie_is_no_lead():
    found = findings.of_arms(made([[0.5, 0.6], [0.2, 0.4], [0.4, 0.2], [0.5, 0.6]]), LOSS)
    assert found[0].startswith("B and C share the lowest test loss of 4 arms, 0.30 ± 0.10 (mean")
    assert found[1].startswith("The difference of B from A is −0.25")
    assert found[-1].startswith("A and D share the highest, 0.55")
    (alone,) = findings.of_arms(made([[0.5, 0.6]] * 5), LOSS)
    assert alone.startswith("A, B, C and 2 more share the lowest test loss of 5 arms")


def test_contrasts_say_how_often_and_how_much():
    results = made(VALUES)
    a, b, c, d = results.arms
    rows = [Contrast(("basic",), {}, a, b), Contrast(("cutout",), {}, c, d)]
    found = findings.of_contrasts(results, rows, LOSS, ("SGD", "SAM"))
    assert len(found) == 5
    assert found[0].startswith("SAM has the lower mean test loss in 1 of 2 comparisons with SGD")
    assert "basic: 0.217" in found[1] and "beside 0.530" in found[1]
    assert "cutout" in found[2] and "+0.620" in found[2]
    assert found[4] == "The lowest mean of all is that of SAM (basic), 0.2167 ± 0.0088."


def test_claims_of_pairs_hold_fail_and_stay_undecided():
    results = made(VALUES)
    a, b, c, d = results.arms
    pairs = [("B", b, a), ("D", d, a), ("C", c, b)]
    tested = findings.better_than(results, LOSS, pairs)
    assert [each.verdict for each in tested] == ["holds", "fails", "undecided"]
    found = findings.of_claims(tested)
    assert found[0] == "Of 3 claims, 1 holds, 1 fails and 1 is undecided."
    assert len(found) == 4 and "is undecided" in found[3]
    assert {"“B: a lower test loss than A” holds" in text for text in found} == {True, False}
    reversed_ones = findings.better_than(results, ACCURACY, pairs)
    assert [each.verdict for each in reversed_ones] == ["fails", "holds", "undecided"]


def test_changes_of_a_config_are_listed_once():
    base = ml_collections.ConfigDict({"a": 1, "b": {"c": (1, 2)}})
    same = ml_collections.ConfigDict({"b": {"c": [1, 2]}, "a": 1})
    assert provenance.changes(base, same) == []
    same.b.c = [1, 3]
    assert provenance.changes(base, same) == [("b.c", "(1, 2)", "(1, 3)")]


def test_a_surface_as_json():
    values = np.array([[1e-9, 1.0], [np.inf, 123456.0]])
    plane = LossPlane(values, np.array([0.0, 1.0]), np.array([-1.0, 2.0]))
    data = Surfaces("F", "f", "", {"p": plane}, highest=1e4).data()
    (shown,) = data["planes"]
    assert shown["z"] == [[1e-9, 1.0], [None, 123500.0]] and shown["y"] == [-1.0, 2.0]
    assert data["logarithmic"] and data["range"] == [1e-2, 1e4]  # six decades
    flat = LossPlane(np.array([[-1.0, 1.0]]), np.arange(2.0), np.zeros(1))
    path = {"p": Path(np.array([[0.0, 0.0], [1.0, 0.0]]), {"end": (1.0, 0.0)})}
    data = Surfaces("F", "f", "", {"p": flat}, paths=path).data()
    assert not data["logarithmic"] and data["range"] == [-1.0, 1.0]
    assert data["planes"][0]["landmarks"] == [["end", 1.0, 0.0]]
    assert data["planes"][0]["path"] == [[0.0, 1.0], [0.0, 0.0]]


def test_the_command_line_is_that_of_this_process(monkeypatch):
    line = ["/usr/bin/python3", "-m", "experiments.toy", "--workdir=a b"]
    monkeypatch.setattr("sys.orig_argv", line)
    assert provenance.command_line() == "python3 -m experiments.toy '--workdir=a b'"
    line = ["/usr/bin/python3", "/venv/bin/sam-jax-study", "variants", "--workdir=out"]
    monkeypatch.setattr("sys.orig_argv", line)
    assert provenance.command_line() == "sam-jax-study variants --workdir=out"


@pytest.mark.parametrize("text", ["", "<b>"])
def test_names_in_sentences_keep_their_letters(text):
    column = Column(f"Sharpness{text} / nats", "m = 4, ρ = 0.1", "s")
    assert findings.name_of(column).startswith(f"sharpness{text}")
