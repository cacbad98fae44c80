"""The study layer: a toy study from its config to its page, and the parts on their own."""

import importlib.util
import io
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from configs import digits
from experiments.study import claims, comparison, formats, pages, results, table
from experiments.study.command import run_and_report
from experiments.study.evidence import RunEvidence, arm_means
from experiments.study.grid import Grid, Marked, csv_text

TOY = pathlib.Path(__file__).with_name("toy_study.py")


def small_config():
    config = digits.get_config("smoke").unlock()
    config.model.features, config.model.strides = (8,), (2,)
    return config


@pytest.fixture(scope="module")
def study():
    specification = importlib.util.spec_from_file_location("toy_study", TOY)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("toy")
    return workdir, *run_and_report(study.STUDY, small_config(), workdir)


def test_a_third_study_is_short():
    assert len(TOY.read_text().splitlines()) < 80


def test_a_third_study_has_its_own_page_tables_figure_and_claim(finished):
    workdir, page, text, _ = finished
    norms = {}
    for arm in ("slow", "fast"):
        for seed in (0, 1):
            (line,) = (workdir / f"models/{arm}/seed_{seed}/records.jsonl").read_text().splitlines()
            norms[arm, seed] = json.loads(line)["norm"]
    table_csv = pd.read_csv(workdir / "report/tables/norms.csv")
    row = table_csv[(table_csv.arm == "fast") & (table_csv.quantity == "norm")].iloc[0]
    fast = [norms["fast", seed] for seed in (0, 1)]
    assert row["mean"] == pytest.approx(np.mean(fast)) and row["n"] == 2
    assert row["stderr"] == pytest.approx(abs(fast[0] - fast[1]) / 2)
    claim = pd.read_csv(workdir / "report/tables/claims.csv").iloc[0]
    differences = [norms["fast", seed] - norms["slow", seed] for seed in (0, 1)]
    expected = scipy.stats.ttest_1samp(differences, 0).confidence_interval()
    assert claim["effect"] == pytest.approx(np.mean(differences))
    assert (claim["low"], claim["high"]) == pytest.approx(tuple(expected))
    html = page.read_text()
    assert page == workdir / "report/index.html" and html.startswith("<!DOCTYPE html>")
    for shown in ("Two &lt;arms&gt;.", "A toy study", "tables/norms.csv", "figures/norms.png"):
        assert shown in html
    for written in (
        "tables/norms.md",
        "tables/claims.md",
        "figures/norms.png",
        "figures/norms.svg",
    ):
        assert (workdir / "report" / written).exists()
    assert text.splitlines()[2].startswith("slow")


def test_a_study_repeats_nothing(study, finished):
    workdir = finished[0]
    files = {path: path.stat().st_mtime_ns for path in workdir.glob("models/*/*/*.jsonl")}
    before = (workdir / "report/index.html").read_text()
    again = run_and_report(study.STUDY, small_config(), workdir)
    assert again == finished[1:] and again[0].read_text() == before
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.parametrize("at_once", [1, 3])
def test_the_numbers_do_not_depend_on_how_many_run_at_once(study, finished, tmp_path, at_once):
    # Both arms have one program: what one thread builds, another finds.
    done = run_and_report(study.STUDY, small_config(), tmp_path, at_once=at_once)
    assert done.summary == finished[2]
    for path in finished[0].glob("models/*/*/[!s]*.jsonl"):  # speed.jsonl has clocks
        assert (tmp_path / path.relative_to(finished[0])).read_bytes() == path.read_bytes()


def test_accepted_changes_are_named(study, finished):
    config = small_config()
    config.optimiser.momentum = 0.5
    with pytest.raises(ValueError, match="another config"):
        run_and_report(study.STUDY, config, finished[0])
    page = run_and_report(study.STUDY, config, finished[0], accept_config_changes=True).page
    assert "slow seed 0, fast seed 0, slow seed 1, fast seed 1" in page.read_text()
    config = small_config()
    config.instruments.seed = 7  # which changes no training
    page = run_and_report(study.STUDY, config, finished[0], accept_config_changes=True).page
    assert "trained with other settings" not in page.read_text()


@pytest.mark.commands
def test_the_command_of_a_study():
    command = [sys.executable, str(TOY)]
    root = str(TOY.parents[2])
    found = subprocess.run(
        [*command, "--help"], cwd=root, env={"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert "--workdir" in found.stdout and "--[no]accept_config_changes" in found.stdout


class Arm:
    def __init__(self, name):
        self.name = self.label = name


def made(values):
    """Results of arms with these values, [arms, seeds]; NaN: not measured."""
    arms = tuple(Arm(f"arm {i}") for i in range(len(values)))
    records = tuple(
        {"arm": arm.name, "seed": seed, "measure": "x", "y": value, "z": None}
        for arm, row in zip(arms, values, strict=True)
        for seed, value in enumerate(row)
        if not math.isnan(value)
    )
    return results.Results(arms, tuple(range(len(values[0]))), records)


COLUMN = table.Column("Group", "y", "y", {"measure": "x"}, best="min", scale=2.0)


def test_results_by_arm_and_seed():
    found = made([[1.0, math.nan, 3.0], [4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(
        found.by_seed("y", {"measure": "x"}), [[1, math.nan, 3], [4, 5, 6]]
    )
    last_first = found.by_seed("y", {"measure": "x"}, arms=found.arms[::-1], scale=2)
    np.testing.assert_array_equal(last_first[0], [8, 10, 12])
    assert np.isnan(found.by_seed("z", {"measure": "x"})).all()  # null
    assert np.isnan(found.by_seed("y", {"measure": "other"})).all()
    assert [record["seed"] for record in found.select(arm="arm 0")] == [0, 2]


def test_the_last_of_equal_records_is_read(tmp_path):
    arm = Arm("a")
    folder = tmp_path / "models/a/seed_3"
    folder.mkdir(parents=True)
    one, two = ({"measure": "asymmetry_factor", "distance": d} for d in (1.0, 2.0))
    lines = [one | {"y": 1}, two | {"y": 2}, one | {"y": 3}]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = results.read_records(tmp_path, [arm], [3, 4])
    assert [(r["y"], r["arm"], r["seed"]) for r in found] == [(3, "a", 3), (2, "a", 3)]
    # A study tells records of its own kind apart by a function of its own.
    every = results.read_records(tmp_path, [arm], [3], lambda record: record["y"])
    assert [record["y"] for record in every] == [1, 2, 3]
    with pytest.raises(ValueError, match="No records under"):
        results.read_records(tmp_path, [arm], [4])


def test_a_table_and_its_writers():
    found = table.arms_table(made([[1.0, 2.0], [0.5, 0.5], [3.0, math.nan]]), "t", [COLUMN])
    assert found.cell(0, 0)[:3] == (3.0, pytest.approx(1.0), 2)
    assert found.best_rows(0) == {1}
    frame = pd.read_csv(io.StringIO(found.csv()))
    assert list(frame) == ["arm", "measure", "quantity", "mean", "stderr", "n"]
    assert frame["mean"].tolist() == [3.0, 1.0, 6.0] and frame["n"].tolist() == [2, 2, 1]
    assert "nan" in found.csv({"stderr": "se"})
    assert found.csv({"quantity": "q", "mean": "value"}).startswith("q,value\ny,3.0\n")
    grid = found.grid()
    assert grid.rows[1][1] == "1.0 ± 0.0" and grid.rows[1][1].kind == "best"
    assert grid.rows[2][1].endswith("(n = 1 of 2)")
    assert grid.markdown().splitlines()[3] == "| arm 1 | **1.0 ± 0.0** |"
    assert "1.0±0.0*" in grid.text()
    floored = table.arms_table(made([[-1.0], [2.0]]), "t", [COLUMN._replace(floor=0.0)])
    assert floored.best_rows(0) == {1}
    neither = table.arms_table(made([[-1.0], [2.0]]), "t", [COLUMN._replace(best="none")])
    assert neither.best_rows(0) == set()


def test_texts_wrap_at_the_width_and_pipes_are_escaped():
    heads = ["model", *(f"column {i}" for i in range(9))]
    grid = Grid(heads, [["a|b", *["1.0"] * 9]], ["", *["same"] * 9])
    assert grid.spans == [("", 1), ("same", 9)]
    text = grid.text(width=60)
    assert max(map(len, text.splitlines())) <= 60 and text.count("a|b") == 2
    assert "a\\|b" in grid.markdown() and "| same column 0 |" in grid.markdown()


def test_csv_keeps_every_digit_and_says_nan():
    frame = pd.DataFrame({"x": [0.1 + 0.2, 1e-7, math.nan, math.inf], "y": ["", "a", 1, 2.5]})
    assert csv_text(frame).splitlines() == [
        *("x,y", "0.30000000000000004,", "1e-07,a", "nan,1", "inf,2.5")
    ]


def test_pages_escape_texts_and_mark_cells(tmp_path):
    grid = Grid(["a"], [[Marked("<best>", "best")], [Marked("no data", "no data")]], caption="&")
    section = pages.Section("A & B", ["1 < 2"], [pages.write_table(tmp_path, "t", "a\n1\n", grid)])
    settings = {"x": {"y": [1, 2]}, "z": [["a", 1], ["b", 2]]}
    page = pages.write_report(tmp_path, "T", ["in <p>"], [section], settings).read_text()
    for text in ("in &lt;p&gt;", "1 &lt; 2", "<b>&lt;best&gt;</b>", 'class="no-data">no data<'):
        assert text in page
    assert '<td class="text">x.y</td><td class="text">1, 2</td>' in page and "a 1; b 2" in page
    assert "<best>" not in page


def test_a_template_that_lacks_a_value_is_an_error(tmp_path):
    with pytest.raises(Exception, match="sections"):
        pages.write_page(tmp_path / "x.html", "report.html.j2", title="", introduction=[])


def test_comparisons_are_those_of_scipy():
    values = np.random.default_rng(0).normal(size=(3, 6)) + [[0], [5], [0.1]]
    found = made(values.tolist())
    pairs = comparison.compare_arms(found, [COLUMN], found.arms)
    assert [(p.arm.name[-1], p.other.name[-1]) for p in pairs] == [
        ("1", "0"),
        ("2", "0"),
        ("2", "1"),
    ]
    for pair in pairs:
        i, j = (int(arm.name[-1]) for arm in (pair.arm, pair.other))
        expected = scipy.stats.ttest_rel(2 * values[i], 2 * values[j])
        assert pair.found.p_value == pytest.approx(expected.pvalue)
        assert tuple(pair.found.interval) == pytest.approx(tuple(expected.confidence_interval()))
    assert [pair.seeds == "separated" for pair in pairs] == [True, False, True]
    assert "separate 2 of 3 pairs" in comparison.summary(pairs, COLUMN, "y")
    frame = pd.read_csv(io.StringIO(comparison.comparison_csv(pairs)))
    assert frame["separated"].tolist() == [True, False, True]
    triangle = comparison.seeds_of_all(pairs, COLUMN)
    assert triangle.rows[0][1:] == ["", ""] and triangle.rows[1][1] == "separated"
    low, high = map(float, comparison.uncertainty(pairs).split(" and "))
    assert (low, high) == pytest.approx(5 / scipy.stats.chi2.ppf([0.975, 0.025], 5), rel=0.05)


def test_claims_on_runs():
    rng = np.random.default_rng(1)
    found = made((np.arange(6)[:, None] + 0.01 * rng.normal(size=(6, 4))).tolist())
    evidence = RunEvidence(found, COLUMN)
    assert arm_means(evidence, COLUMN) == pytest.approx(2 * np.arange(6), abs=0.05)
    for direction, verdict in (("positive", "fails"), ("negative", "holds")):
        (part,) = claims.difference(evidence, "", [0], [1], COLUMN, direction)
        assert part.verdict == verdict
    (part,) = claims.extreme(evidence, "", [0], {"1": [1], "2": [2]}, COLUMN)
    assert part.verdict == "holds" and part.effect == pytest.approx(-2, abs=0.1)  # the closest
    (part,) = claims.correlation(evidence, "", COLUMN, "positive", bound=0.5)
    assert part.effect == pytest.approx(1) and part.n == "6 models"
    (part,) = claims.difference(evidence, "", [], [1], COLUMN, "positive")
    assert part.verdict == "no data"


def test_numbers_in_words():
    assert formats.signed(-0.001) == "0.00" and formats.p_text(1e-4) == "< 0.001"
    assert formats.span((1.0, math.inf)) == "—"
