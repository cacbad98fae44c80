"""Studies written by an earlier version: they are read, and their reports hold the same numbers."""

import csv
import math
import pathlib

import pytest

import configs.even_better.digits
import configs.variants.digits
from experiments.even_better.__main__ import STUDY as EVEN_BETTER
from experiments.variants.__main__ import STUDY as VARIANTS

WORKDIRS = pathlib.Path(__file__).with_name("workdirs")


def cells(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


LATER = {"verdicts.csv"}  # tables that reports have had since


def same(one, other):
    """Return whether two cells are equal: as texts, or as numbers but for rounding."""
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-12)
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("study", "config"),
    [(EVEN_BETTER, configs.even_better.digits), (VARIANTS, configs.variants.digits)],
    ids=["even_better", "variants"],
)
def test_the_report_of_an_old_workdir_is_the_same(study, config, tmp_path, undrawn):
    workdir = WORKDIRS / config.__name__.split(".")[1]
    results = study.read(workdir, study.plan(config.get_config("smoke")))
    study.report(results, tmp_path, {})
    written = {path.name: cells(path) for path in (tmp_path / "tables").glob("*.csv")}
    expected = {path.name: cells(path) for path in (workdir / "expected").glob("*.csv")}
    assert written.keys() - LATER == expected.keys() and len(expected) >= 3
    for name, rows in expected.items():
        assert len(written[name]) == len(rows) and written[name][0] == rows[0]
        for ours, theirs in zip(written[name], rows, strict=True):
            assert all(map(same, ours, theirs)), (name, ours, theirs)


def test_another_number_is_seen():
    assert same("0.30000000000000004", "0.3") and same("nan", "nan") and same("", "")
    assert not same("0.3", "0.3000001") and not same("holds", "fails") and not same("", "0")
