"""The studies of understanding-sam that train deep nets: arms, refusals and commands."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest
from page_links import opening_of
from real_commands import made_once, output_of

from configs.understanding.fine_tuning import digits as fine_tuning_config
from configs.understanding.label_noise import digits as label_noise_config
from configs.understanding.m_sharpness import digits as m_sharpness_config
from experiments.study.runs import training_config
from experiments.understanding.fine_tuning import arms as fine_tuning
from experiments.understanding.fine_tuning.__main__ import STUDY
from experiments.understanding.fine_tuning.arms import Tuned
from experiments.understanding.label_noise import arms as label_noise
from experiments.understanding.m_sharpness import arms as m_sharpness

NAMES = ("m_sharpness", "label_noise", "fine_tuning")


def test_arms_of_m_sharpness():
    config = m_sharpness_config.get_config()
    found = m_sharpness.plan(config)
    assert found.arms[0].name == "erm" and len({arm.name for arm in found.arms}) == len(found.arms)
    whole = [arm for arm in found.arms if arm.series == "n-SAM"]
    assert {arm.m for arm in whole} == {config.training.batch_size} and len(whole) == 3
    training = m_sharpness.training_config(config, m_sharpness.Perturbed("random", 0.8), seed=3)
    assert (training.method.name, training.method.rho) == ("average_sam", 0.8)
    assert training.method.m == training.batch_size and training.seed == 3


def test_m_that_cannot_be_trained_or_is_not_measured_is_refused():
    config = m_sharpness_config.get_config()
    config.m = (240, 7)
    with pytest.raises(ValueError, match=r"divide the batch of 240, got \[7\]"):
        m_sharpness.plan(config)
    config.m = (240, 8)
    with pytest.raises(ValueError, match=r"lacks \[8\]"):
        m_sharpness.plan(config)


def test_arms_of_label_noise_share_their_noise():
    config = label_noise_config.get_config()
    arms = label_noise.plan(config).arms
    assert [arm.name for arm in arms[:3]] == [
        "noise0_erm",
        "noise0_sam_rho0.1",
        "noise0_sam_rho0.4",
    ]
    noisy = [label_noise.training_config(config, arm, 2) for arm in arms if arm.label_noise]
    assert {c.data.label_noise_seed for c in noisy} == {2} and len(noisy) == 3
    assert {c.data.label_noise for c in noisy} == {0.6}
    config.training.evaluation.train_every_epochs = 0
    with pytest.raises(ValueError, match="both sets at every epoch"):
        label_noise.plan(config)


def test_arms_of_fine_tuning_start_from_earlier_ones():
    config = fine_tuning_config.get_config()
    found = fine_tuning.plan(config)
    for arm in found.arms:
        start = fine_tuning.starts_from(found, arm)
        training = fine_tuning.training_config(config, arm, 0)
        assert (start is None) == (not arm.start)
        if start is not None:
            assert found.arms.index(start) < found.arms.index(arm)
            assert training.epochs == config.tuning.epochs
        assert training.method.name == {"erm": "none", "sam": "sam"}[arm.method]
    config.line.points = 1
    with pytest.raises(ValueError, match="line.points at least 2"):
        fine_tuning.plan(config)


def test_a_study_of_fine_tuning_can_be_moved(tmp_path):
    found = STUDY.plan(fine_tuning_config.get_config())
    configs = [
        training_config(STUDY, found, pathlib.Path(workdir), Tuned("sam", "erm"), 1)
        for workdir in ("runs/here", tmp_path)
    ]
    assert {c.fine_tune.workdir for c in configs} == {"{workdir}/../../erm/seed_1"}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The finished smoke studies by name. Not to be changed: copy them."""

    def run(name):
        return lambda workdir: output_of(
            f"experiments.understanding.{name}",
            f"--config=configs/understanding/{name}/digits.py:smoke",
            f"--workdir={workdir}",
        )

    return {name: made_once(tmp_path_factory, name, run(name)) for name in NAMES}


@pytest.mark.e2e
def test_commands_end_with_their_reports(studies):
    for name, (workdir, output) in studies.items():
        page = workdir / "report/index.html"
        assert output.rstrip().splitlines()[-1] == f"The report is {page.resolve()}", name
        config = f"--config=configs/understanding/{name}/digits.py:smoke"
        assert "test error" in opening_of(page, f"experiments.understanding.{name}", config)[0]
        figures = {"fine_tuning": "lines"}.get(name, name)
        assert (workdir / f"report/figures/{figures}.png").stat().st_size > 1000


@pytest.mark.e2e
def test_sharpness_is_measured_at_every_m(studies):
    table = pd.read_csv(studies["m_sharpness"][0] / "report/tables/m_sharpness.csv")
    sharpness = table[table.quantity == "sharpness"]
    assert set(sharpness["m"]) == {8, 32} and set(sharpness["n"]) == {2}
    assert set(sharpness["arm"]) == {"erm", "sam_m32_rho0.1", "sam_m8_rho0.1", "random_rho0.2"}


@pytest.mark.e2e
def test_the_best_epoch_is_no_worse_than_the_last(studies):
    workdir = studies["label_noise"][0]
    last, best = (
        pd.read_csv(workdir / f"report/tables/{name}.csv") for name in ("errors", "best_errors")
    )
    assert (best["mean"] <= last["mean"]).all() and last["label_noise"].tolist() == [0.0, 0.6]


@pytest.mark.e2e
def test_the_ends_of_a_line_are_the_models(studies):
    workdir = studies["fine_tuning"][0]
    lines = sorted(workdir.glob("models/*/*/line.jsonl"))
    assert len(lines) == 8  # four tunings, two seeds
    models = {}
    for path in workdir.glob("models/*/*/records.jsonl"):
        models[path.parent.parent.name, path.parent.name] = json.loads(path.read_text())
    for path in lines:
        header, *chunks = map(json.loads, path.read_text().splitlines())
        losses = np.concatenate([chunk["test_loss"] for chunk in chunks])
        assert header["distances"] == [-1.0, 0.0, 1.0, 2.0]
        # Batch norm is recalibrated on the line, hence only near the model's own loss.
        for place, name in ((1, header["start"]), (2, header["end"])):
            own = models[name, path.parent.name]["test_loss"]
            assert losses[place] == pytest.approx(own, rel=0.5)
