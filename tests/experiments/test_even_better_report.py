"""Synthetic records with known answers through the whole report."""

import csv
import json
import math

import numpy as np
import pytest
import scipy.stats
from page_links import Links

from experiments.even_better.pages import index as report_module
from experiments.even_better.read.results import PRESETS, read_results
from experiments.even_better.tables.columns import repeated_columns
from experiments.even_better.tables.perturbed import perturbed_table
from experiments.even_better.tables.table_01 import table_01
from experiments.study.formats import cell_texts
from sam_jax.statistics import MeanAndStderr

NAN = float("nan")
# name -> (optimiser, batch, batch size, rho); deliberately not in the order of Table 1.
MODELS = {
    "average": ("average_sam", "large", 300, 0.5),
    "plain": ("sgd", "small", 32, 0.0),
    "sharp_wide": ("sam", "small", 32, 0.2),
    "sharp": ("sam", "small", 32, 0.1),
}
ORDER = ("plain", "sharp", "sharp_wide", "average")
TEST_LOSSES = {
    "plain": (0.50, 0.54),
    "sharp": (0.40, 0.41),
    "sharp_wide": (0.30, 0.36),
    "average": (0.60, 0.60),
}
FACTORS = {"plain": 0.2, "sharp": 0.5, "sharp_wide": -0.1, "average": 0.4}
SEEDS = (0, 1)
DISTANCES = (-1.0, 0.0, 1.0)


def base(name, seed):
    optimiser, batch, size, rho = MODELS[name]
    keys = ("model", "optimiser", "batch", "batch_size", "rho", "times_epochs", "seed")
    return dict(zip(keys, (name, optimiser, batch, size, rho, 1, seed), strict=True))


def records_of(name, seed):
    """One model and seed: every number follows from the test loss, the seed and the settings."""
    loss, index = TEST_LOSSES[name][seed % 2], ORDER.index(name)
    first = base(name, seed)
    evaluation = dict(test_loss=loss, train_loss=loss / 2, test_accuracy=1 - loss / 4)
    records = [dict(first, measure="evaluation", preset=None, train_accuracy=0.9, **evaluation)]
    for preset in PRESETS:
        big = 100.0 if preset == "published" else 1.0
        law = "gaussian" if preset == "published" else "sphere"
        first = dict(base(name, seed), preset=preset)
        for batch, m in (("large", 300), ("small", 32)):
            for rho in (0.1, 0.05):
                sharpness = big * rho * (index + 1 + 0.5 * seed)
                values = dict(loss=0.1, perturbed_loss=0.1 + sharpness, sharpness=sharpness)
                setting = dict(measured_batch=batch, m=m, measured_rho=rho, stderr=0.01)
                adversarial = dict(measure="adversarial_sharpness", n=4)
                average = dict(measure="average_sharpness", draws=15, distribution=law)
                records.append(dict(first, **adversarial, **setting, **values))
                records.append(dict(first, **average, **setting, **values))
        setting = dict(distribution="uniform", distance=5.0, num_directions=30, stderr=0.0)
        setting["num_not_positive"] = 2
        factor = dict(measure="asymmetry_factor", factor=FACTORS[name] + 0.02 * seed)
        records.append(dict(first, **setting, **factor, ratios=[], plus=[], minus=[]))
        losses = [(1 + index) * (1 + seed), 0.1, big * (1 + index)]
        curve = dict(measure="loss_curve", distribution="uniform", distances=DISTANCES)
        records.append(dict(first, **curve, losses=losses))
    return records


def write(workdir, seeds=SEEDS, change=lambda records: records):
    for name in MODELS:
        for seed in seeds:
            folder = workdir / "models" / name / f"seed_{seed}"
            folder.mkdir(parents=True)
            lines = [json.dumps(record) for record in change(records_of(name, seed))]
            (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
            metrics = [
                dict(epoch=epoch, step=10 * epoch, test_loss=1 / epoch, test_accuracy=epoch / 10)
                for epoch in range(1, 6)
            ]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))
    return workdir


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cell(rows, model, **where):
    (row,) = [
        row
        for row in rows
        if row["model"] == model and all(row[key] == value for key, value in where.items())
    ]
    return float(row["value"]), float(row["stderr"]), int(row["n"])


def report_on(workdir, settings):
    return report_module.report(read_results(workdir), workdir / "report", settings)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    workdir = write(tmp_path_factory.mktemp("even_better"))
    settings = {"dataset": "digits <b>", "optimiser": {"rate": 0.1, "decay": [1, 2]}}
    return workdir, report_on(workdir, settings)


def test_table_1_holds_means_and_standard_errors(built):
    rows = read_csv(built[0] / "report/tables/table_1.csv")
    # Two values a and b have the mean (a + b) / 2 and the standard error |a - b| / 2.
    assert cell(rows, "plain", quantity="test_loss") == pytest.approx((0.52, 0.02, 2))
    assert cell(rows, "sharp_wide", quantity="train_loss") == pytest.approx((0.165, 0.015, 2))
    assert cell(rows, "sharp", quantity="test_accuracy") == pytest.approx((89.875, 0.125, 2))
    for preset in PRESETS:
        where = dict(quantity="factor", preset=preset, distribution="uniform", distance="5.0")
        assert cell(rows, "sharp_wide", **where) == pytest.approx((-0.09, 0.01, 2))
    assert list(dict.fromkeys(row["model"] for row in rows)) == list(ORDER)
    assert {row["batch_size"] for row in rows} == {"32", "300"}


@pytest.mark.parametrize(
    ("number", "offset"), [(2, 0.1), (5, 0.0), (6, 0.0), (7, 0.1)], ids="table_{}".format
)
def test_sharpness_tables(built, number, offset):
    for preset, big in (("sound", 1.0), ("published", 100.0)):
        rows = read_csv(built[0] / f"report/tables/table_{number}_{preset}.csv")
        assert len(rows) == len(MODELS) * 4
        for name in MODELS:
            for batch, rho in (("small", 0.05), ("small", 0.1), ("large", 0.05), ("large", 0.1)):
                # Seeds 0 and 1 give index + 1 and index + 1.5, times rho.
                mean = offset + big * rho * (ORDER.index(name) + 1.25)
                expected = (mean, big * rho / 4, 2)
                found = cell(rows, name, measured_batch=batch, measured_rho=str(rho))
                assert found == pytest.approx(expected)
        columns = list(dict.fromkeys((row["m"], row["measured_rho"]) for row in rows))
        assert columns == [("32", "0.05"), ("32", "0.1"), ("300", "0.05"), ("300", "0.1")]


def test_the_best_of_every_column_is_bold(built):
    text = (built[0] / "report/tables/table_1.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()]
    assert lines[0][:3] == ["Optimiser", "Batch", "ρ"]
    assert lines[2][:3] == ["SGD", "32", "—"]
    bold = [[index for index, line in enumerate(lines) if "**" in line[j]] for j in range(3, 8)]
    # sharp_wide has the lowest losses and the highest accuracy; its factor is negative and out of
    # range, so that the lowest factor is the first model's.
    assert bold == [[4], [4], [4], [2], [2]]
    assert lines[4][3] == "**0.330 ± 0.030**"


def test_table_1_as_text_fits_a_terminal(built):
    text = report_module.summary_text(read_results(built[0]))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    starred = [line for line in lines if "*" in line]
    assert len(starred) == 2 and starred[1].startswith("SAM         32    0.2 0.330±0.030*")


def test_text_wraps_into_blocks_when_columns_do_not_fit(tmp_path):
    def change(records):
        extra = [
            dict(record, distance=distance)
            for record in records
            for distance in (10.0, 20.0)
            if record["measure"] == "asymmetry_factor"
        ]
        return records + extra

    workdir = write(tmp_path, change=change)
    text = report_module.summary_text(read_results(workdir))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("average SAM") == 2
    assert text.count("μ = 20") == len(PRESETS)


def test_the_page_is_well_formed_and_refers_only_to_what_exists(built):
    index = built[1]
    assert index == built[0] / "report/index.html"
    page = Links(index.read_text())
    files = page.files(index.parent)
    assert len(files) > 20
    for name in ("published.html", "claims.html"):
        assert name in files
        other = Links((index.parent / name).read_text())
        assert "index.html" in other.links
        files += other.files(index.parent)
    written = {path.relative_to(index.parent).as_posix() for path in index.parent.glob("*/*")}
    assert written <= set(files)  # nothing is written that the pages do not show


def test_the_page_shows_figures_settings_and_the_studys_numbers(built):
    page = Links(built[1].read_text())
    text = " ".join(" ".join(page.text).split())
    for number in (3, 5, 6, 10, 11):
        figures = [f"Figure {number}, {preset} preset. " for preset in PRESETS]
        assert [bold for bold in page.bold if bold in figures] == figures  # sound comes first
    assert "Figure 7. " in page.bold
    assert "digits <b>" in page.text and "optimiser.rate" in page.text and "1, 2" in page.text
    assert "0.295 → 0.258" in text and "n = 2 seeds (0, 1)" in text
    assert "32-SAM ρ=0.1" in text and "these seeds separate" in text
    assert "128-SAM ρ=0.1" in text


def test_correlations_are_those_of_the_seed_means(built):
    rows = read_csv(built[0] / "report/tables/correlations_sound.csv")
    losses = [np.mean(TEST_LOSSES[name]) for name in ORDER]
    (row,) = [row for row in rows if row["measure"] == "Asymmetry factor"]
    expected = scipy.stats.pearsonr([FACTORS[name] + 0.01 for name in ORDER], losses)
    assert float(row["pearson_r"]) == pytest.approx(expected.statistic)
    assert float(row["pearson_p_value"]) == pytest.approx(expected.pvalue)
    assert int(row["pearson_n"]) == 4
    factors = [FACTORS[name] + 0.01 for name in ORDER]
    for method, test in (("spearman", scipy.stats.spearmanr), ("kendall", scipy.stats.kendalltau)):
        assert float(row[f"{method}_r"]) == pytest.approx(test(factors, losses).statistic)
    assert np.isnan(float(row["published_r"]))  # the sound preset measures another quantity
    rows = read_csv(built[0] / "report/tables/correlations_published.csv")
    (row,) = [row for row in rows if row["measure"] == "Asymmetry factor"]
    assert float(row["published_r"]) == pytest.approx(0.3585, abs=1e-3)
    assert len(rows) == 17  # two quantities, two measures, four settings; one factor
    settings = [row["setting"] for row in rows if row["measure"] == "Adversarial loss"]
    assert settings[0] == "m = 32, ρ = 0.05" and settings[-1] == "m = 300, ρ = 0.1"


def test_missing_records_are_not_measured(tmp_path, undrawn):
    def change(records):
        kept = [r for r in records if r["measure"] != "average_sharpness"]
        kept = [r for r in kept if (r["model"], r["measure"]) != ("sharp", "loss_curve")]
        return [
            r
            for r in kept
            if (r["model"], r.get("measured_rho"), r["seed"]) != ("sharp", 0.05, 1)
            and (r["model"], r.get("measured_rho")) != ("plain", 0.1)
        ]

    workdir = write(tmp_path, change=change)
    text = report_on(workdir, {}).read_text()
    folder = workdir / "report"
    assert not list(folder.glob("*/*table_6*")) and not list(folder.glob("*/figure_10*"))
    assert "Figure 10: not measured" in text
    rows = read_csv(folder / "tables/table_5_sound.csv")
    value, stderr, n = cell(rows, "plain", measured_batch="small", measured_rho="0.1")
    assert math.isnan(value) and math.isnan(stderr) and n == 0
    value, stderr, n = cell(rows, "sharp", measured_batch="small", measured_rho="0.05")
    assert value == pytest.approx(0.1) and math.isnan(stderr) and n == 1
    table = perturbed_table(read_results(workdir), 5, "sound")
    assert table.texts(1)[0] == "not measured"
    assert table.texts(0)[1] == "0.100 ± — (n = 1 of 2)"
    assert (folder / "figures/figure_11_sound.png").exists()


def test_a_single_seed_with_numbers_that_are_not_finite(tmp_path):
    def change(records):
        for record in records:
            if record["model"] == "plain" and record["measure"] == "evaluation":
                record.update(test_loss=NAN, train_loss=math.inf, test_accuracy=None)
            if record["model"] == "plain" and record["measure"] == "loss_curve":
                record["losses"] = [NAN, 0.1, math.inf]
        return records

    workdir = write(tmp_path, seeds=(7,), change=change)
    text = report_on(workdir, {}).read_text()
    assert "There is one seed (7)" in text
    rows = read_csv(workdir / "report/tables/table_1.csv")
    value, stderr, n = cell(rows, "sharp", quantity="test_loss")
    assert value == 0.41 and math.isnan(stderr) and n == 1
    assert "0.4100±—" in report_module.summary_text(read_results(workdir))
    table = table_01(read_results(workdir))
    texts = [table.texts(j)[0] for j in range(3)]
    assert texts == ["not measured", "∞ ± —", "not measured"]
    (row,) = [
        row
        for row in read_csv(workdir / "report/tables/correlations_sound.csv")
        if row["measure"] == "Asymmetry factor"
    ]
    assert int(row["pearson_n"]) == 3  # the model without a test loss is left out


def test_the_last_of_repeated_records_holds(tmp_path):
    def change(records):
        first = dict(records[0], test_loss=99.0)
        return [first, *records]

    results = read_results(write(tmp_path, change=change))
    assert table_01(results).cell(0, 0).mean == pytest.approx(0.52)
    assert table_01(results).cell(0, 0).n == 2


def test_an_empty_directory_is_explained(tmp_path):
    with pytest.raises(ValueError, match="No records under"):
        report_on(tmp_path, {})


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        # Two digits of the median error; a single seed of several has none.
        ([(12.3, 5e-6, 2), (12.4, 4e-6, 2)], ["12.300000 ± 0.000005", "12.400000 ± 0.000004"]),
        ([(0.21971, 0.0013, 3), (0.2, NAN, 1)], ["0.2197 ± 0.0013", "0.2000 ± — (n = 1 of 3)"]),
        ([(-1e-5, 2e-3, 2), (0.1, 2e-3, 2)], ["0.0000 ± 0.0020", "0.1000 ± 0.0020"]),
        ([(-5e-5, 1.2e-3, 2), (4e-4, 1.1e-3, 2)], ["−0.0001 ± 0.0012", "0.0004 ± 0.0011"]),
        # One seed: four digits of the mean, more where the models differ by less.
        ([(45.678, NAN, 1), (11.2, NAN, 1)], ["45.68 ± —", "11.20 ± —"]),
        ([(2.19561, NAN, 1), (2.19563, NAN, 1)], ["2.195610 ± —", "2.195630 ± —"]),
        # Exponents only where decimals would show nothing, or too many digits.
        ([(3e-9, 1e-9, 2), (2.0, 0.5, 2)], ["3.00e−09 ± 1.00e−09", "2.00 ± 0.50"]),
        ([(4e7, 1e6, 2), (math.inf, NAN, 2)], ["4.00e+07 ± 1.00e+06", "∞ ± —"]),
        ([(0.0, NAN, 1), (NAN, NAN, 0)], ["0.000 ± —", "not measured"]),
    ],
)
def test_digits(cells, texts):
    means = [MeanAndStderr(*cell) for cell in cells]
    assert cell_texts(means, max(cell.n for cell in means)) == texts


def test_columns_that_one_measurement_stands_for_are_pointed_out(built, tmp_path):
    # In the fixture the numbers depend on rho and not on the measured batch.
    assert repeated_columns(perturbed_table(read_results(built[0]), 6, "sound"))

    def change(records):
        for record in records:
            if record.get("measured_batch") == "large":
                record["sharpness"] += 0.1
        return records

    results = read_results(write(tmp_path, change=change))
    assert not repeated_columns(perturbed_table(results, 6, "sound"))
    assert not repeated_columns(table_01(results))  # there is no m


def test_invalid_directions_are_counted(built):
    page = Links(built[1].read_text())
    runs = len(MODELS) * len(SEEDS)
    sentence = f"In {2 * runs} of {30 * runs} directions the loss does not rise on both sides"
    assert "".join(page.text).count(sentence) == len(PRESETS)
