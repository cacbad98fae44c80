"""Two arms beside each other: means, paired differences, and which is better."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.study.contrasts import Contrast, contrast, contrasts_csv, contrasts_grid
from experiments.study.grid import kind
from experiments.study.results import Results
from experiments.study.table import Column

COLUMN = Column("Test error", "%", "error", {"measure": "training"}, best="min", scale=100.0)


class Arm:
    def __init__(self, name):
        self.name = self.label = name


A, B, C = map(Arm, "abc")
VALUES = {"a": [0.10, 0.12, 0.17], "b": [0.08, 0.11, 0.13], "c": [0.10, math.nan, 0.16]}
RESULTS = Results(
    (A, B, C),
    (0, 1, 2),
    tuple(
        {"arm": name, "seed": seed, "measure": "training", "error": value}
        for name, values in VALUES.items()
        for seed, value in enumerate(values)
    ),
)
ROWS = [Contrast(("b",), {"row": "b"}, A, B, ("3.5",)), Contrast(("c",), {"row": "c"}, A, C)]


def test_the_difference_is_paired():
    found = contrast(RESULTS, ROWS[0], COLUMN)
    differences = 100 * (np.array(VALUES["b"]) - VALUES["a"])
    assert found.difference.mean == pytest.approx(differences.mean())
    assert found.difference.stderr == pytest.approx(differences.std(ddof=1) / np.sqrt(3))
    expected = scipy.stats.ttest_rel(VALUES["b"], VALUES["a"]).pvalue
    assert found.p_value == pytest.approx(expected)
    assert found.arm.mean == pytest.approx(100 * np.mean(VALUES["b"]))


def test_a_seed_that_is_missing_in_one_arm_is_left_out_of_the_difference():
    found = contrast(RESULTS, ROWS[1], COLUMN)
    assert found.difference.n == 2 and found.reference.n == 3
    assert found.difference.mean == pytest.approx(100 * (0.0 - 0.01) / 2)


def test_the_better_mean_is_marked_and_further_columns_follow():
    grid = contrasts_grid(RESULTS, ROWS[:1], COLUMN, heads=("arm",), names=("A", "B"), more=("P",))
    (row,) = grid.rows
    assert grid.heads == ["arm", "A", "B", "B − A", "P"] and row[4] == "3.5"
    assert [kind(text) for text in row] == ["", "", "best", "", ""] and row[3].startswith("−2.3")
    short = contrasts_grid(RESULTS, ROWS[:1], COLUMN, heads=("arm",), names=("A", "B"))
    assert len(short.rows[0]) == len(short.heads) == 4
    assert short.text()


def test_csv_has_full_precision():
    frame = pd.read_csv(io.StringIO(contrasts_csv(RESULTS, ROWS, COLUMN)))
    assert frame["row"].tolist() == ["b", "c"] and frame["n"].tolist() == [3, 2]
    assert frame["mean"][0] == pytest.approx(100 * np.mean(VALUES["b"]), rel=1e-15)
