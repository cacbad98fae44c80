"""Synthetic records with known answers through the whole report on the methods."""

import csv
import json
import math

import numpy as np
import pytest
from page_links import Links

from configs.variants import digits
from experiments.study.arms import seed_folder
from experiments.variants import figure_1
from experiments.variants import report as report_module
from experiments.variants.methods import plan, study_methods, training_config
from experiments.variants.published import networks, published, published_rows
from experiments.variants.results import costs_path, over_seeds, read_results
from experiments.variants.tables import methods_text
from sam_jax import plotting

METHODS = (
    ("SGD", "none", {}),
    ("SAM", "sam", {"rho": 0.05}),
    ("SS-SAM", "ss_sam", {"rho": 0.1, "ss_sam.probability": 0.4}),
    ("Late-phase SAM", "late_phase_sam", {"late_phase_sam.tail": 0.3}),
)
LONGER = "SGD, 2x epochs"
# Test accuracy and loss of the two seeds.
OUTCOMES = {
    "SGD": ((0.90, 0.92), (0.50, 0.54)),
    "SAM": ((0.93, 0.97), (0.40, 0.48)),
    "SS-SAM": ((0.90, 0.92), (0.60, 0.60)),
    "Late-phase SAM": ((0.80, 0.84), (0.70, 0.80)),
    LONGER: ((0.91, 0.95), (0.45, 0.53)),
}
PASSES = {"SS-SAM": (30, 50), "Late-phase SAM": (30, 30)}  # of 100 steps
FLOPS = {"SGD": 100.0, "SAM": 200.0, "SS-SAM": 210.0, "Late-phase SAM": 200.0, LONGER: 100.0}
SECONDS = {
    "SGD": [[1, 1], [1, 1], [1, 1]],
    "SAM": [[2, 2], [2, 2], [4, 4]],
    "SS-SAM": [[1, 2]] * 3,
    "Late-phase SAM": [[1, 2]] * 3,
    LONGER: [[1, 1]] * 3,
}
CALL_PASSES = {"SS-SAM": [4, 4], "Late-phase SAM": [0, 10]}  # of 10 steps
STATE = {"SAM": 2**20, "SS-SAM": 2**20 + 512}


@pytest.fixture(scope="module")
def config():
    config = digits.get_config("smoke")
    config.methods = METHODS
    return config


def write(workdir, config, leave_out=()):
    for method in study_methods(config):
        accuracies, losses = OUTCOMES[method.label]
        for seed in (0, 1):
            if (method.label, seed) in leave_out:
                continue
            record = dict(label=method.label, seed=seed, measure="evaluation", epoch=2, step=100)
            record |= dict(test_accuracy=accuracies[seed], test_loss=losses[seed])
            record["passes"] = PASSES[method.label][seed] if method.label in PASSES else None
            folder = seed_folder(workdir, method, seed)
            folder.mkdir(parents=True)
            (folder / "records.jsonl").write_text(json.dumps(record) + "\n")
        costs = dict(
            label=method.label,
            flops=FLOPS[method.label],
            compiled_flops=FLOPS[method.label] + 20,
            temporary_bytes=2**20,
            state_bytes=STATE.get(method.label, 2**19),
            method_state_bytes=512,
            seconds=SECONDS[method.label],
            reference_seconds=[[1, 1]] * 3,
            call_passes=CALL_PASSES.get(method.label),
            call_steps=10,
            images=320,
            reference_images=320,
        )
        if method.label not in leave_out:
            costs_path(workdir, method).parent.mkdir(parents=True, exist_ok=True)
            costs_path(workdir, method).write_text(json.dumps(costs) + "\n")
    return workdir


def report_on(config, workdir, settings=None):
    results = read_results(workdir, plan(config))
    return report_module.report(results, workdir / "report", settings or {})


@pytest.fixture(scope="module")
def built(config, tmp_path_factory):
    workdir = write(tmp_path_factory.mktemp("variants"), config)
    return workdir, report_on(config, workdir, {"data": "digits <b>"})


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cell(workdir, method, quantity):
    """Return value, standard error, quartiles and n of a cell of methods.csv."""
    (row,) = [
        row
        for row in read_csv(workdir / "report/tables/methods.csv")
        if (row["method"], row["quantity"]) == (method, quantity)
    ]
    names = ("value", "stderr", "quartile_1", "quartile_3", "n")
    return tuple(float(row[name]) for name in names)


def test_outcomes_are_means_and_standard_errors_over_seeds(built):
    # Two values a and b have the mean (a + b) / 2 and the standard error |a - b| / 2.
    assert cell(built[0], "SGD", "test_accuracy")[:2] == pytest.approx((91.0, 1.0))
    assert cell(built[0], "SAM", "test_accuracy")[:2] == pytest.approx((95.0, 2.0))
    assert cell(built[0], "SAM", "test_loss")[:2] == pytest.approx((0.44, 0.04))
    assert cell(built[0], LONGER, "test_loss")[:2] == pytest.approx((0.49, 0.04))
    assert cell(built[0], "SAM", "test_loss")[-1] == 2


def test_differences_are_paired_by_seed(built):
    workdir = built[0]
    # 93 - 90 and 97 - 92; unpaired errors would add to sqrt(5).
    assert cell(workdir, "SAM", "test_accuracy_minus_sgd")[:2] == pytest.approx((4.0, 1.0))
    assert cell(workdir, "SS-SAM", "test_accuracy_minus_sgd")[:2] == pytest.approx((0.0, 0.0))
    assert cell(workdir, "SAM", "test_loss_minus_sgd")[:2] == pytest.approx((-0.08, 0.02))
    # The same against SGD with as many gradients: 93 - 91 and 97 - 95.
    longer = "test_accuracy_minus_sgd_2x_epochs"
    assert cell(workdir, "SAM", longer)[:2] == pytest.approx((2.0, 0.0), abs=1e-9)
    assert cell(workdir, "SGD", longer)[:2] == pytest.approx((-2.0, 1.0))
    # Nothing is compared with itself.
    assert math.isnan(cell(workdir, "SGD", "test_accuracy_minus_sgd")[0])
    assert math.isnan(cell(workdir, LONGER, longer)[0])


def test_gradients_of_a_step_and_in_all(built):
    def gradients(method, quantity="gradients_per_step"):
        return cell(built[0], method, quantity)[0]

    assert gradients("SGD") == 1 and gradients("SAM") == 2
    # 80 of 200 steps made the pass, each at 2.1 gradients; the others at one.
    assert gradients("SS-SAM") == pytest.approx(0.4 * 2.1 + 0.6)
    assert gradients("Late-phase SAM") == pytest.approx(1.3)
    assert gradients(LONGER) == 1 and gradients(LONGER, "total_gradients") == 2
    assert gradients("SAM", "total_gradients") == 2
    assert gradients("SAM", "compiled_gradients_per_step") == pytest.approx(220 / 120)
    compiled = gradients("SS-SAM", "compiled_gradients_per_step")
    assert compiled == pytest.approx(0.4 * 230 / 120 + 0.6)


def test_speed_is_the_ratio_of_medians_with_the_quartiles_of_the_rounds(built):
    # 640 images in 4, 4 and 8 seconds beside 640 in 2.
    assert cell(built[0], "SAM", "images_per_second")[0] == pytest.approx(160)
    assert cell(built[0], "SGD", "images_per_second")[0] == pytest.approx(320)
    assert cell(built[0], "SAM", "reference_images_per_second")[0] == pytest.approx(320)
    ratio, _, low, high, n = cell(built[0], "SAM", "relative_images_per_second")
    assert (ratio, low, high, n) == pytest.approx((0.5, 0.375, 0.5, 3))


def test_early_and_late_calls_are_weighed_by_the_passes_of_the_training(built):
    # 0.3 of its steps make the pass: 0.7 of the time of early calls and 0.3 of that of late ones.
    ratio = cell(built[0], "Late-phase SAM", "relative_images_per_second")[0]
    assert ratio == pytest.approx(1 / (0.7 * 1 + 0.3 * 2))
    # Where early and late calls make alike many passes, both weigh the same.
    ratio = cell(built[0], "SS-SAM", "relative_images_per_second")[0]
    assert ratio == pytest.approx(1 / 1.5)


def test_memory(built):
    assert cell(built[0], "SGD", "memory_mib")[0] == 1.5
    assert cell(built[0], "SAM", "memory_mib")[0] == 2
    assert cell(built[0], "SAM", "relative_memory")[0] == pytest.approx(4 / 3)
    assert cell(built[0], "SS-SAM", "method_state_kib")[0] == 0.5


def test_rows_keep_the_order_of_the_config_with_equal_compute_last(built):
    rows = read_csv(built[0] / "report/tables/methods.csv")
    assert list(dict.fromkeys(row["method"] for row in rows)) == [m[0] for m in METHODS] + [LONGER]
    assert {row["settings"] for row in rows if row["method"] == "SS-SAM"} == {
        "rho=0.1 ss_sam.probability=0.4"
    }
    lines = (built[0] / "report/tables/methods.md").read_text().splitlines()
    assert len(lines) == 2 + len(METHODS) + 1
    assert len({line.count("|") for line in lines}) == 1
    assert "**95.0 ± 2.0**" in lines[3] and "| +4.0 ± 1.0 |" in lines[3]
    assert "ρ = 0.1, probability = 0.4" in lines[4]
    # Differences from the row itself, and a better one than no other, are not in bold.
    assert "**—**" not in "".join(lines) and "**1.00**" not in "".join(lines)


def test_page_is_whole_and_its_links_exist(built):
    page = Links(built[1].read_text())
    assert len(page.files(built[1].parent)) > 6
    text = "".join(page.text)
    assert "digits <b>" in text  # escaped in the source
    assert "SS-SAM 0.40, Late-phase SAM 0.30" in text
    assert "median over n = 3 rounds" in text


def test_published_numbers_stand_beside_ours(built):
    tables = built[0] / "report/tables"
    rows = read_csv(tables / "published_table_3.csv")
    (sam,) = [r for r in rows if (r["network"], r["data_set"], r["method"]) == SAM_ON_RESNET]
    assert float(sam["accuracy_minus_sgd"]) == pytest.approx(96.52 - 95.61)
    assert float(sam["relative_images_per_second"]) == pytest.approx(1717 / 3289)
    assert float(sam["these_runs_relative_images_per_second"]) == pytest.approx(0.5)
    markdown = (tables / "published_table_3.md").read_text().splitlines()
    (line,) = [line for line in markdown if line.startswith("| SAM |")]
    assert line.startswith("| SAM | 95.0 ± 2.0 | +4.0 ± 1.0 | 0.50 (0.38–0.50) | 96.52 (+0.91) |")
    assert "| 1717 (0.52) |" in line
    # A method that the study has and these runs do not.
    (line,) = [line for line in markdown if line.startswith("| Fisher SAM |")]
    assert line.startswith("| Fisher SAM | — | — | — |") and "97.89 (+1.55)" in line
    assert "| 80.0 (+1.5) |".replace("1.5", "1.50") in (tables / "published_table_4.md").read_text()


SAM_ON_RESNET = ("ResNet-18", "CIFAR-10", "SAM")


def test_what_is_missing_is_said(config, tmp_path):
    write(tmp_path, config, leave_out={("SAM", 0), ("SS-SAM", 0), ("SS-SAM", 1), "SAM"})
    report_on(config, tmp_path)
    value, error, *_, n = cell(tmp_path, "SAM", "test_accuracy_minus_sgd")
    assert (value, n) == (pytest.approx(5.0), 1) and math.isnan(error)
    assert math.isnan(cell(tmp_path, "SAM", "gradients_per_step")[0])
    lines = (tmp_path / "report/tables/methods.md").read_text().splitlines()
    assert "(n = 1 of 2)" in lines[3] and lines[3].count("not measured") == 9
    assert lines[4].count("not measured") >= 4
    text = methods_text(read_results(tmp_path, plan(config)))
    assert "not measured" in text


def test_far_points_are_named_and_do_not_flatten_the_others():
    look = plotting.Style("#000000", "o", "-")
    heights = (0.0, 1.0, 2.0, 3.0, 100.0, math.nan)
    points = [plotting.Point(str(y), 1.0, y, look) for y in heights]
    kept, far = figure_1._without_far_ones(points)
    assert [point.label for point in kept] == ["0.0", "1.0", "2.0", "3.0", "nan"]
    assert far == ["100.0"]
    assert figure_1._without_far_ones(points[:4]) == (points[:4], [])
    # What all are compared with is always drawn; equal heights hide nobody.
    assert figure_1._without_far_ones(points[4::-1])[1] == []
    same = [points[0]] * 4 + [points[1]]
    assert figure_1._without_far_ones(same) == (same, [])


def test_text_fits_a_terminal(config, built):
    text = methods_text(read_results(built[0], plan(config)))
    assert max(map(len, text.splitlines())) <= 100
    assert "95.0±2.0*" in text


def test_an_empty_folder_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="No records under"):
        report_on(config, tmp_path)


def test_later_records_hold(config, tmp_path):
    write(tmp_path, config)
    methods = study_methods(config)
    path = seed_folder(tmp_path, methods[1], 0) / "records.jsonl"
    record = json.loads(path.read_text())
    with path.open("a") as file:
        file.write(json.dumps(record | {"test_loss": 9.0}) + "\n")
    results = read_results(tmp_path, plan(config))
    np.testing.assert_allclose(over_seeds(results, methods[1], "test_loss"), (9, 0.48))


# ---------------------------------------------------------------------------- methods of a config


def test_training_configs(config):
    methods = {method.label: method for method in study_methods(config)}
    base = config.training
    sam = training_config(config, methods["SAM"], seed=7)
    assert (sam.seed, sam.method.name, sam.method.rho, sam.epochs) == (7, "sam", 0.05, base.epochs)
    some = training_config(config, methods["SS-SAM"], seed=0)
    assert (some.method.rho, some.method.ss_sam.probability) == (0.1, 0.4)
    longer = training_config(config, methods[LONGER], seed=0)
    assert (longer.method.name, longer.epochs) == ("none", 2 * base.epochs)
    assert base.seed == 0 and base.method.ss_sam.probability == 0.5  # left as they are


def test_fields_outside_of_the_method_can_be_set(config):
    config = config.copy_and_resolve_references()
    config.methods = (("SGD", "none", {"optimiser.momentum": 0.0}),)
    (method, _) = study_methods(config)
    assert training_config(config, method, 0).optimiser.momentum == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": (*METHODS, ("SAM ", "asam", {}))}, "sam"),
        ({"methods": (*METHODS, ("New", "sam", {"rhoo": 0.1}))}, "New.*rhoo"),
        ({"methods": (*METHODS, ("New", "sam", {"looksam.kk": 5}))}, "looksam.kk"),
        ({"equal_compute": (("Longer", "Adam", 2),)}, "'Adam'.*SGD, SAM"),
        ({"equal_compute": (("Longer", "SGD", 0),)}, "0 times"),
    ],
)
def test_methods_that_make_no_sense(config, changes, message):
    config = config.copy_and_resolve_references()
    config.update(changes)
    with pytest.raises(ValueError, match=message):
        study_methods(config)


# ---------------------------------------------------------------------------- the published tables


def test_the_published_tables_are_whole():
    rows = published_rows()
    # Counted in the print: (7 + 9 + 6) rows on two data sets, of which one has dashes in neither,
    # and 8 + 8 + 5 + 6 rows on ImageNet, without those that are dashes on both sides.
    count = {
        pair: sum((r.data_set, r.network) == pair for r in rows)
        for pair in [*networks(3), *networks(4)]
    }
    assert count == {
        ("CIFAR-10", "ResNet-18"): 6,
        ("CIFAR-100", "ResNet-18"): 7,
        ("CIFAR-10", "WideResNet-28-10"): 8,
        ("CIFAR-100", "WideResNet-28-10"): 9,
        ("CIFAR-10", "PyramidNet-110"): 6,
        ("CIFAR-100", "PyramidNet-110"): 6,
        ("ImageNet", "ResNet-50"): 8,
        ("ImageNet", "ResNet-101"): 6,
        ("ImageNet", "ResNet-152"): 5,
        ("ImageNet", "ViT-S/32"): 6,
    }
    assert len(rows) == sum(count.values())
    for row in rows:
        assert 50 < float(row.accuracy) < 100
        assert not row.images_per_second or 100 < float(row.images_per_second) < 10_000
    # Sums of the printed columns, taken from the text by themselves.
    sums = {
        pair: sum(float(r.images_per_second or 0) for r in rows if (r.data_set, r.network) == pair)
        for pair in count
    }
    assert sums["CIFAR-10", "ResNet-18"] == 3289 + 1717 + 2409 + 3213 + 2780
    assert sums["CIFAR-100", "PyramidNet-110"] == 555 + 276 + 381 + 397 + 339
    assert sums["ImageNet", "ResNet-101"] == 1042 + 518 + 650 + 503 + 1031 + 888


@pytest.mark.parametrize(
    ("method", "data_set", "network", "accuracy", "ratio"),
    [
        ("SAM", "CIFAR-10", "ResNet-18", 96.52, 0.522),
        ("SAM", "CIFAR-100", "WideResNet-28-10", 83.42, 0.494),
        ("Fisher SAM", "CIFAR-100", "WideResNet-28-10", 85.60, None),
        ("LookSAM-5", "CIFAR-100", "ResNet-18", 80.7, None),
        ("LookSAM-5", "ImageNet", "ViT-S/32", 68.8, 0.829),
        ("SAF", "ImageNet", "ResNet-50", 77.8, 0.991),
        ("SGD", "ImageNet", "ResNet-152", 78.5, 1.0),
    ],
)
def test_published_values(method, data_set, network, accuracy, ratio):
    found = published(method, data_set, network)
    assert found.accuracy == accuracy
    if ratio is None:
        assert math.isnan(found.speed)
    else:
        assert found.speed == pytest.approx(ratio, abs=6e-4)


def test_sam_is_about_half_as_fast_in_every_published_column():
    for table in (3, 4):
        for data_set, network in networks(table):
            found = published("SAM", data_set, network)
            assert 0.48 < found.speed < 0.53 and found.accuracy_difference > 0
    assert math.isnan(published("LookSAM-5", "CIFAR-10", "ResNet-18").accuracy)
