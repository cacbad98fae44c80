"""The study of the first SAM paper: its arms, its published numbers, and its command."""

import json

import pandas as pd
import pytest
from page_links import opening_of
from real_commands import made_once, output_of

from configs.sam_paper import cifar10, digits
from experiments.sam_paper.published import published, published_text
from experiments.sam_paper.settings import Setting, plan, training_config


@pytest.mark.parametrize("config", [digits, cifar10])
def test_arms_that_several_tables_need_are_trained_once(config):
    config = config.get_config()
    found = plan(config)
    assert len(set(found.arms)) == len(found.arms)
    assert len({arm.name for arm in found.arms}) == len(found.arms)
    sam = Setting("basic", rho=config.rho)
    assert found.spectra.sam == found.by_steps[0] == found.errors[0].sam == sam
    assert len(found.by_m) == len(config.m) * len(config.rhos)


def test_the_config_of_an_arm():
    config = digits.get_config()
    noisy = training_config(config, Setting("cutout", 3, 0.4, rho=0.2, m=8), seed=5)
    assert (noisy.epochs, noisy.seed, noisy.data.label_noise) == (120, 5, 0.4)
    assert (noisy.method.name, noisy.method.rho, noisy.method.m) == ("sam", 0.2, 8)
    assert tuple(noisy.data.augmentation) == ("crop_zero", "cutout")
    assert noisy.data.label_noise_seed == 5
    steps = training_config(config, Setting("basic", rho=0.1, steps=3), seed=0)
    assert (steps.method.name, steps.method.multi_step_sam.steps) == ("multi_step_sam", 3)
    assert steps.method.m == steps.batch_size
    assert training_config(config, Setting("basic"), seed=0).method.name == "none"


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("rho", 0.0, "positive radii"),
        ("rhos", (0.1, -0.1), "positive radii"),
        ("augmentations", (), "needs an augmentation"),
        ("label_noise", ((1.5, 0.1),), "share between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(field, value, words):
    config = digits.get_config()
    config[field] = value
    with pytest.raises(ValueError, match=words):
        plan(config)


def test_published_numbers():
    assert published_text("errors", "cutout", "CIFAR-100", long=True) == "17.4, 14.0"
    assert published_text("steps", "3", "CIFAR-10") == "2.73"
    assert published_text("noise", "0.8", "CIFAR-10") == "73.8, 22.1"
    assert published_text("noise", "0.5", "CIFAR-10") == "—"
    for row in published():  # SAM is never worse in the paper's tables
        assert row.table == "steps" or float(row.sam) <= float(row.sgd)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study and what its command printed. Not to be changed: copy it."""
    return made_once(tmp_path_factory, "sam_paper", run)


def run(workdir):
    config = "--config=configs/sam_paper/digits.py:smoke"
    return output_of("experiments.sam_paper", config, f"--workdir={workdir}")


@pytest.mark.e2e
def test_the_command_ends_with_the_report(study):
    workdir, output = study
    page = workdir / "report/index.html"
    assert output.rstrip().splitlines()[-1] == f"The report is {page.resolve()}"
    config = "--config=configs/sam_paper/digits.py:smoke"
    found = opening_of(page, "experiments.sam_paper", config)
    assert found[0].startswith("SAM has the lower mean test error in ")
    html = page.read_text()
    for heading in ("Test errors", "Wrong labels", "Ascent steps", "Spectrum of the Hessian"):
        assert f"{heading}</h2>" in html
    errors = pd.read_csv(workdir / "report/tables/errors.csv")
    outcomes = {
        name: [
            json.loads((workdir / f"models/{name}/seed_{seed}/records.jsonl").read_text())
            for seed in (0, 1)
        ]
        for name in ("basic_sgd", "basic_sam_rho0.1")
    }
    (row,) = errors.to_dict("records")
    expected = [100 * sum(r["test_error"] for r in found) / 2 for found in outcomes.values()]
    assert [row["reference_mean"], row["mean"]] == pytest.approx(expected)
    spectra = pd.read_csv(workdir / "report/tables/spectra.csv")
    assert sorted(set(spectra["epoch"])) == [1, 2]
    assert set(spectra[spectra.quantity == "top_eigenvalue"]["n"]) == {2}
    for name in ("error_by_m", "spectral_densities"):
        assert (workdir / f"report/figures/{name}.png").stat().st_size > 1000


@pytest.mark.e2e
def test_nothing_is_run_twice(study):
    workdir, output = study
    files = {path: path.stat().st_mtime_ns for path in workdir.glob("models/*/*/*.jsonl")}
    assert run(workdir).splitlines()[-1] == output.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in files} == files
