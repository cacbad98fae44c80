"""The study's numbers beside those of the runs: what is marked, and what is recomputed."""

import csv
import dataclasses
import html.parser
import math
import re

import jax
import numpy as np
import pytest
import scipy.stats

from experiments.even_better.arms import Model
from experiments.even_better.claims.evidence import Evidence, Quantity, runs
from experiments.even_better.claims.printed_correlations import recompute
from experiments.even_better.figures.common import model_styles
from experiments.even_better.figures.perturbed_loss import perturbed_loss_figures
from experiments.even_better.pages import published as published_report
from experiments.even_better.paper.errata import errata
from experiments.even_better.paper.published import published_cells, published_values
from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.correlations import (
    correlation_rows,
    correlations_csv,
    holm_p_values,
)
from experiments.even_better.tables.separation import separation, separation_grids
from experiments.even_better.tables.table_01 import table_01
from experiments.study.comparison import comparison_csv, summary
from experiments.study.evidence import arm_means
from sam_jax.models import MobileNetV2

SEEDS = (0, 1, 2)
SIZES = {"small": 16, "large": 64}
KINDS = {
    "adversarial_loss": ("adversarial_sharpness", "perturbed_loss"),
    "adversarial_sharpness": ("adversarial_sharpness", "sharpness"),
    "average_loss": ("average_sharpness", "perturbed_loss"),
    "average_sharpness": ("average_sharpness", "sharpness"),
}


def replayed(left_out=(), shift=0.0):
    """Runs that measured exactly the study's corrected numbers, seed by seed 0.01 further."""
    cells = {(cell.row, cell.column): float(cell.corrected) for cell in published_cells()}
    models = tuple(
        Model("_".join(map(str, row)), row[0], row[1], SIZES[row[1]], row[2], 1)
        for row in dict.fromkeys(cell.row for cell in published_cells())
        if row not in left_out
    )
    records = []
    for model in models:
        row = (model.optimiser, model.batch, model.rho)
        for seed in SEEDS:
            move = shift + 0.01 * (seed - 1)
            first = dict(arm=model.name, seed=seed)
            value = {n: cells[row, (n, None, None)] + move for n in ("test_loss", "train_loss")}
            value["test_accuracy"] = (cells[row, ("test_accuracy", None, None)] + move) / 100
            records.append(dict(first, measure="evaluation", **value))
            factor = cells[row, ("asymmetry_factor", None, None)] + move
            setting = dict(preset="published", distribution="uniform", distance=5.0)
            records.append(dict(first, measure="asymmetry_factor", factor=factor, **setting))
            for column in {column for r, column in cells if r == row and column[1]}:
                name, batch, rho = column
                measure, field = KINDS[name]
                law = "gaussian" if measure == "average_sharpness" else None
                where = dict(measured_batch=batch, measured_rho=rho, m=SIZES[batch])
                where |= dict(preset="published", measure=measure, distribution=law)
                records.append(first | where | {field: cells[row, column] + move})
    merged = {}
    for record in records:  # both fields of a measurement are one record
        keys = ("arm", "seed", "measure", "measured_batch", "measured_rho")
        merged.setdefault(tuple(record.get(key) for key in keys), {}).update(record)
    return StudyResults(models, SEEDS, tuple(merged.values()), {}, {})


class Corrected(html.parser.HTMLParser):
    """Collects what is marked as corrected, and the number of cells."""

    def __init__(self, text):
        super().__init__()
        self.marked, self.inside = [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.inside = ("class", "corrected") in attributes

    def handle_data(self, data):
        if self.inside:
            self.marked.append(data)
        self.inside = False


@pytest.fixture(scope="module")
def made():
    results = replayed()
    cells = published_report.compare_cells(results)
    found = recompute(runs(results, "published"))
    return results, cells, found


def test_the_marked_cells_are_the_known_errors(made):
    _, cells, _ = made
    rows = list(csv.DictReader(published_report.cells_csv(cells).splitlines()))
    assert len(rows) == 240
    marked = {
        (r["table"], r["measured_batch"], r["measured_rho"]) for r in rows if r["differs"] == "True"
    }
    assert marked == {("2", "large", "0.05"), ("2", "large", "0.1"), ("6", "large", "1.0")}
    assert sum(row["differs"] == "True" for row in rows) == 30  # three columns of ten
    for row in rows:
        assert (float(row["printed"]) != float(row["recomputed"])) == (row["differs"] == "True")


def test_the_page_marks_them_and_nothing_else(made, tmp_path):
    results, cells, _ = made
    published_report.write_published(results, tmp_path)
    page = (tmp_path / "published.html").read_text()
    expected = [cell.corrected for cell in published_cells() if cell.differs]
    swapped = Corrected(page).marked[30:]
    assert Corrected(page).marked[:30] == expected
    assert swapped == ["0.19 ≠", "−0.04 ≠"]  # Figure 3 from the two columns as printed
    text = (tmp_path / "tables/published_cells.md").read_text()
    assert text.count(" → ") - len(published_report.TABLES) == 30
    assert "**0.295 → 0.258** (0.2580 ± 0.0058)" in text


def test_the_runs_stand_beside_the_same_cell(made):
    # The mean of three seeds 0.01 apart is the study's number, with the error 0.01 / sqrt(3).
    for cell, run in made[1]:
        assert run[:3] == pytest.approx((float(cell.corrected), 0.01 / math.sqrt(3), 3))


def test_models_and_measures_that_the_runs_lack_are_not_measured(tmp_path):
    results = replayed(left_out=[("sgd", "small", 0.0)])
    kept = [r for r in results.records if r["measure"] != "average_sharpness"]
    results = dataclasses.replace(results, records=tuple(kept))
    cells = published_report.compare_cells(results)
    for cell, run in cells:
        assert (run.n == 0) == (cell.optimiser == "sgd" or cell.table in (6, 7))
    published_report.write_published(results, tmp_path)
    page = (tmp_path / "published.html").read_text()
    assert "not trained" in page and "not measured" in page


def test_recomputed_correlations(made):
    table = {(r.source.figure, r.source.printed): r for r in made[2]}
    assert len(table) == 13
    for (_, printed), row in table.items():
        # Half a unit of the printed digits, and the rounding of the tables (below 0.006; two
        # rounded columns make the training loss).
        digits = len(printed.partition(".")[2])
        assert row.study.r == pytest.approx(float(printed), abs=0.5 * 10.0**-digits + 0.006)
        # The runs replay the study; leaving the outlier out too.
        assert row.run.r == pytest.approx(row.study.r) and row.run.n == row.study.n
    nine, ten = table[5, ".527"].study, table[5, ".359"].study
    assert (nine.n, ten.n) == (9, 10)
    assert (nine.r, ten.r) == pytest.approx((0.5272, 0.3585), abs=1e-3)
    assert (nine.p_value, ten.p_value) == pytest.approx((0.145, 0.309), abs=2e-3)
    differing = {key for key, row in table.items() if row.as_printed.r != row.study.r}
    assert differing == {(3, "-.04"), (3, ".19")}
    first = next(csv.DictReader(published_report.correlations_csv(made[2]).splitlines()))
    assert float(first["r"]) == nine.r and float(first["leave_one_out_low"]) < nine.r


def test_holms_p_values_of_the_correlation_table(made):
    rows = correlation_rows(made[0], "published")
    p_values = np.array([row.pearson.p_value for row in rows])
    found = holm_p_values(rows, "pearson")
    order = np.argsort(p_values)
    assert len(rows) == 21
    assert found[order[0]] == pytest.approx(21 * p_values[order[0]])
    assert found[order[1]] == pytest.approx(20 * p_values[order[1]])
    assert found.max() == 1
    (line,) = [
        line
        for line in csv.DictReader(correlations_csv(rows).splitlines())
        if line["measure"] == "Asymmetry factor"
    ]
    # The runs replay the study.
    assert float(line["pearson_r"]) == pytest.approx(float(line["published_r"]))
    assert float(line["kendall_r"]) == pytest.approx(
        scipy.stats.kendalltau(
            published_values("asymmetry_factor"), published_values("test_loss")
        ).statistic
    )
    for method in ("pearson", "spearman", "kendall"):
        low, r, high = (
            float(line[f"{method}_{n}"]) for n in ("bootstrap_low", "r", "bootstrap_high")
        )
        assert -1 <= low < r < high <= 1
        assert float(line[f"{method}_holm_p_value"]) >= float(line[f"{method}_p_value"])


def test_another_world_gives_other_correlations():
    results = replayed()
    flipped = [dict(r) for r in results.records]
    for record in flipped:
        if record["measure"] == "evaluation":
            record["test_loss"] *= -1
    found = recompute(runs(dataclasses.replace(results, records=tuple(flipped)), "published"))
    for row in found:
        assert row.run.r == pytest.approx(-row.study.r)


def test_the_errors_follow_from_the_tables():
    text = " ".join(" ".join(error) for error in errata())
    assert "20 cells are wrong; for ρ = 0.05 Figure 3's r = −0.04 would be 0.19" in text
    assert "10 cells are too large by the unperturbed loss, 0.10 to 0.24" in text
    assert "0.229 in the one and 0.1435 in the other" in text
    assert "r = 0.96, 0.94, 0.94 for m = 5000 and 0.84, 0.84, 0.86" in text
    assert "p = 0.145 for the 9 models of Figure 5 and 0.308 for all 10" in text
    assert len(errata()) == 13 and all(error.evidence for error in errata())


def test_the_geometry_that_the_errors_tell():
    # Their closed forms by drawing: d uniform weights, relative errors of order 1 / sqrt(d).
    u, v = np.random.default_rng(0).uniform(size=(2, 100_000))
    text = " ".join(error.effect for error in errata())
    to_ones = u.sum() / math.sqrt(u.size * (u @ u))
    to_another = u @ v / math.sqrt((u @ u) * (v @ v))
    assert f"{to_ones:.2f}" == "0.87" and "0.866" in text
    assert f"{to_another:.2f}" == "0.75" and "0.75 among themselves" in text
    weights = jax.tree.leaves(
        jax.eval_shape(
            lambda key: MobileNetV2(10).init(key, np.zeros((1, 32, 32, 3)))["params"],
            jax.random.key(0),
        )
    )
    count = sum(leaf.size for leaf in weights)
    assert f"Over {count} weights" in text
    assert f"{0.5 * math.sqrt(count):.0f} and {math.sqrt(count):.0f}" in text


def test_table_2_minus_table_5_tells_which_columns_are_swapped():
    def spread(printed):
        losses = [
            published_values("adversarial_loss", "large", rho, printed=printed)
            - published_values("adversarial_sharpness", "large", rho)
            for rho in (0.05, 0.1, 0.2)
        ]
        return np.ptp(losses, axis=0)

    assert spread(False).max() < 0.0025  # four roundings of half a thousandth
    assert spread(True).min() > 0.02


def test_seeds_separate_what_differs_and_not_what_does_not():
    rng = np.random.default_rng(0)
    models = tuple(Model(name, "sam", "small", 16, rho, 1) for rho, name in enumerate("abc"))
    losses = {"a": 0.5, "b": 0.5, "c": 0.3}
    noise = {(m.name, seed): 0.02 * rng.normal() for m in models for seed in range(5)}
    other = dict(measure="evaluation", train_loss=0.1, test_accuracy=0.9)
    records = tuple(
        dict(other, arm=name, seed=seed, test_loss=losses[name] + value)
        for (name, seed), value in noise.items()
    )
    results = StudyResults(models, tuple(range(5)), records, {}, {})
    table = table_01(results)
    found = separation(results, table)
    losses = table.columns[0]
    tests = {(p.arm.name, p.other.name): p for p in found if p.column == losses}
    assert set(tests) == {("b", "a"), ("c", "a"), ("c", "b")}
    assert tests["c", "a"].separated and tests["c", "b"].separated
    assert not tests["b", "a"].separated and tests["b", "a"].needed > 5
    assert tests["c", "a"].needed is None
    expected = scipy.stats.ttest_rel(
        *([record["test_loss"] for record in records if record["arm"] == n] for n in "ba")
    )
    assert tests["b", "a"].found.p_value == pytest.approx(expected.pvalue)
    text = summary(found, losses, "test loss")
    assert "separate 2 of 3 pairs" in text and "(Holm), they separate 2" in text
    assert str(tests["b", "a"].needed) in text
    # Each alone at the 5% level, and none of three together.
    close = [p._replace(found=p.found._replace(p_value=0.03)) for p in found if p.column == losses]
    text = summary(close, losses, "test loss")
    assert "separate 3 of 3 pairs" in text and "(Holm), they separate 0" in text
    # Equal accuracies: no spread, so neither separated nor an estimate.
    assert not any(p.separated or p.needed for p in found if p.column == table.columns[2])
    rows = list(csv.DictReader(comparison_csv(found).splitlines()))
    assert len(rows) == 9
    text = "\n".join(grid.markdown() for grid in separation_grids(found, table))
    assert text.splitlines()[3].count("separated") == 1 and "separated" not in text.splitlines()[2]
    # The triangle of all pairs: the first row is empty.
    needed = str(tests["b", "a"].needed)
    triangle = [[cell.strip() for cell in line.split("|")[2:4]] for line in text.splitlines()[-3:]]
    assert triangle == [["", ""], [needed, ""], ["separated", "separated"]]


@pytest.mark.parametrize(
    ("number", "measure", "expected"),
    [
        (3, "adversarial_sharpness", ["0.76", "0.97", "0.93", "−0.04", "0.19", "0.60"]),
        (10, "average_sharpness", ["0.60", "0.36", "0.55", "−0.06", "−0.19"]),
    ],
)
def test_figures_3_and_10_have_the_correlations_of_the_study(number, measure, expected):
    (found,) = perturbed_loss_figures(replayed(), number, measure, "published")
    titles = [axes.get_title() for axes in found.figure.axes]
    assert [re.search("r = (.*) \\(n = 10\\)", title)[1] for title in titles] == expected


def test_a_model_looks_the_same_in_all_figures():
    results = replayed()
    longer = results.models[0]._replace(name="longer", times_epochs=2)
    results = dataclasses.replace(results, arms=(*results.arms, longer))
    styles = model_styles(results)
    measure = "adversarial_sharpness"
    (found,) = perturbed_loss_figures(results, 3, measure, "published")
    assert len(set(styles.values())) == len(styles) == 11  # and all differ
    drawn = {c.get_label(): c.lines[0].get_marker() for c in found.figure.axes[0].containers}
    assert drawn == {m.label: style.marker for m, style in styles.items() if m != longer}


def test_a_seed_that_is_missing_leaves_its_pair_out():
    results = replayed()
    name = results.models[0].name
    kept = tuple(r for r in results.records if (r["arm"], r["seed"]) != (name, 1))
    body = runs(dataclasses.replace(results, records=kept), "published")
    assert isinstance(body, Evidence)
    values = body.values(Quantity("test_loss"))
    assert np.isnan(values[0]).tolist() == [False, True, False]
    assert arm_means(body, Quantity("test_loss"))[0] == pytest.approx(0.2197)
