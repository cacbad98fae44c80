"""The study's command: it ends with Table 1, repeats nothing, and survives being killed."""

import json
import math
import shutil

import pytest
from page_links import opening_of
from real_commands import kill_when, made_once, output_of

from configs.even_better import digits
from experiments.even_better import arms
from experiments.even_better.read.results import read_results
from sam_jax.runs import records

CONFIG = "--config=configs/even_better/digits.py:smoke"
# One seed: what is tested here does not depend on their number.
OVERRIDES = ("--config.seeds=(0,)", "--config.training.checkpoint.every_epochs=1")
pytestmark = pytest.mark.e2e


def command(workdir, *flags):
    return ("experiments.even_better", CONFIG, f"--workdir={workdir}", *OVERRIDES, *flags)


def run(workdir, *flags):
    return output_of(*command(workdir, *flags))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study and what its command printed. Not to be changed: copy it."""
    return made_once(tmp_path_factory, "even_better", run)


def results(workdir):
    """Return the bytes of all records, metrics and planes, without clocks, by their path."""
    paths = sorted(workdir.glob("models/*/seed_*/*.jsonl"))
    paths += sorted(workdir.glob("curves/*/seed_*/**/*.jsonl"))
    paths = [path for path in paths if path.name != "speed.jsonl"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def times(workdir):
    """Return when the files of models and curves were written, without the rewritten configs."""
    return {
        str(path.relative_to(workdir)): path.stat().st_mtime_ns
        for folder in ("models", "curves")
        for path in (workdir / folder).glob("**/*")
        if path.is_file() and path.name != "config.json"
    }


def test_ends_with_table_1_and_the_report(study):
    workdir, output = study
    lines = output.rstrip().splitlines()
    page = workdir / "report" / "index.html"
    assert lines[-1] == f"The report is {page.resolve()}" and page.exists()
    found = opening_of(page, "experiments.even_better", CONFIG, *OVERRIDES)
    assert "lowest test loss" in found[0] and "claims" in found[-1]
    table = lines[next(i for i, line in enumerate(lines) if "Optimiser" in line) :]
    for name in ("SGD", "SAM", "average SAM"):
        assert any(line.startswith(name + " ") for line in table)
    assert max(map(len, table[:-1])) <= 100
    folders = sorted(path.parent.name for path in workdir.glob("models/*/seed_0"))
    config = digits.get_config("smoke")
    assert folders == sorted(model.name for model in arms.study_models(config))
    pairs = arms.plan(config).pairs
    assert len(results(workdir)) == 3 * len(folders) + 3 * len(pairs)
    figures = {path.stem for path in (workdir / "report/figures").glob("*.png")}
    drawn = {int(name.split("_")[1]) for name in figures}
    assert drawn == set(range(1, 12))  # all figures of the study


def test_every_model_is_measured(study):
    config = digits.get_config("smoke")
    folders = sorted(study[0].glob("models/*/seed_*"))
    assert len(folders) == len(config.models)
    for folder in folders:
        lines = records.read(folder / "records.jsonl")
        measured = {(r["measure"], r.get("preset")) for r in lines}
        assert len(measured) == 1 + 4 * len(config.presets) + 3  # three under "sound" only
        assert {r["model"] for r in lines} == {folder.parent.name}
        assert math.isfinite(lines[0]["test_loss"])
        assert json.loads((folder / "config.json").read_text())["seed"] == lines[0]["seed"]


def test_the_training_configs_of_the_models():
    config = digits.get_config("smoke")
    for model in arms.study_models(config):
        training = arms.training_config(config, model, seed=7)
        assert training.seed == 7
        assert training.batch_size == training.method.m == model.batch_size
        assert training.method.rho == model.rho
        assert training.epochs == model.times_epochs * config.training.epochs
        assert training.method.name == {"sgd": "none"}.get(model.optimiser, model.optimiser)
        both = (config.small_batch, config.large_batch)
        assert training.instruments.adversarial.m == training.instruments.average.m == both
        assert training.instruments.seed == 7  # the noise of measuring varies with the seed too
    assert config.training.seed == 0  # the study's own config is left as it is


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("adam", "small", 0.0, 1), "'adam'"),
        (("sam", "medium", 0.1, 1), "'medium'"),
        (("sam", "small", 0.1), "times the epochs"),
        (("sam", "small", 0.1, 0), "times the epochs"),
        (("sgd", "small", 0.0, 1), "twice"),
    ],
)
def test_models_that_make_no_sense(entry, message):
    config = digits.get_config("smoke")
    config.models = (("sgd", "small", 0.0, 1), entry)
    with pytest.raises(ValueError, match=message):
        arms.study_models(config)


def test_pairs_that_make_no_sense():
    config = digits.get_config("smoke")
    known = ("sgd", "small", 0.0, 1)
    for pair in ((known, ("sam", "small", 0.7, 1)), (known, known), (known,)):
        config.curve.pairs = (pair,)
        with pytest.raises(ValueError, match="curve.pairs holds"):
            arms.plan(config)


def test_curves_connect_the_models(study):
    """The ends have the losses of the two models, up to their statistics, and lie on the plane."""
    config = digits.get_config("smoke")
    found = read_results(study[0], arms.plan(config)).pairs
    assert len(found) == len(config.curve.pairs)
    for (connection,), (start, end) in zip(found, arms.plan(config).pairs, strict=True):
        assert (connection.start, connection.end) == (start, end)
        for record in (connection.curve, connection.line):
            assert len(record["test_loss"]) == config.curve.points
            coordinates = record["coordinates"]
            assert coordinates[0] == pytest.approx([0, 0], abs=1e-5)
            assert coordinates[-1] == pytest.approx(record["landmarks"][1], abs=1e-5)
        ends = [connection.curve["train_loss"][i] for i in (0, -1)]
        assert ends == pytest.approx([connection.line["train_loss"][i] for i in (0, -1)])
        # The chain leaves the line, and turns at the bend.
        middle = config.curve.points // 2
        assert connection.curve["coordinates"][middle] == pytest.approx(
            connection.curve["landmarks"][2], abs=1e-4
        )
        assert connection.line["coordinates"][middle][1] == pytest.approx(0, abs=1e-4)
        assert connection.plane.batch_norm == "recalibrated"


def test_planes_without_a_point_at_the_model():
    config = digits.get_config("smoke")
    config.plane.points = 4
    with pytest.raises(ValueError, match="plane.points must be odd"):
        arms.plan(config)


def test_nothing_is_run_twice_and_only_what_is_missing_is_measured(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "copy", copy_function=shutil.copy2)
    before, numbers = times(workdir), results(workdir)
    missing = "models/sam_16_rho0.1/seed_0/records.jsonl"
    (workdir / missing).unlink()
    output = run(workdir)
    after = times(workdir)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        *(missing, missing.replace(".jsonl", ".crc32"))
    }
    assert results(workdir) == numbers  # bit for bit, those of the new measurement included
    assert (
        output.split("Optimiser")[1].splitlines()[1:-1]
        == (study[1].split("Optimiser")[1].splitlines()[1:-1])
    )


def test_a_cut_between_two_measurements_of_a_model(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "copy", copy_function=shutil.copy2)
    path = workdir / "models/sam_16_rho0.1/seed_0/records.jsonl"
    first, second, third, *_ = whole = path.read_bytes().splitlines(keepends=True)
    assert len(whole) > 10
    # The first one is marked, to see that it is not measured again.
    marked = json.dumps({**json.loads(first), "train_loss": 12.5}).encode() + b"\n"
    path.write_bytes(marked + second + third[: len(third) // 2])
    path.with_suffix(".crc32").unlink()  # of what was written in its place
    run(workdir)
    assert path.read_bytes() == b"".join([marked, *whole[1:]])
    assert marked != first
    path.write_bytes(b"".join(whole))
    assert results(workdir) == results(study[0])


def test_accepted_changes_are_measured_anew_and_named_in_the_report(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "copy", copy_function=shutil.copy2)
    folder = workdir / "models/sgd_16/seed_0"
    # What sam_jax.evaluate leaves in a run's folder does not disturb the study.
    (folder / "evaluations.jsonl").write_text('{"measure": "evaluation"}\n')
    config = (folder / "config.json").read_text()
    metrics = (folder / "metrics.jsonl").read_bytes()
    run(
        workdir,
        "--accept_config_changes",
        "--config.training.instruments.asymmetry.distance=0.5",
        "--config.training.optimiser.learning_rate=0.01",
    )
    lines = map(json.loads, (folder / "records.jsonl").read_text().splitlines())
    assert {r["distance"] for r in lines if r["measure"] == "asymmetry_factor"} == {0.5}
    assert (folder / "config.json").read_text() == config
    assert (folder / "metrics.jsonl").read_bytes() == metrics  # not trained again
    page = (workdir / "report/index.html").read_text()
    assert "trained with other settings" in page and "16-SGD seed 0" in page
    # Models that were not trained anew keep their planes and curves.
    for kind in ("models/*/seed_*/plane.jsonl", "curves/*/seed_*/*.jsonl"):
        for path in workdir.glob(kind):
            assert path.read_bytes() == (study[0] / path.relative_to(workdir)).read_bytes()
    assert "trained with other settings" not in (study[0] / "report/index.html").read_text()


def test_accepted_changes_reach_planes_and_curves(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "copy", copy_function=shutil.copy2)
    before = results(workdir)
    # Another grid, in one file half done; other points along the curves; one epoch more.
    cut = workdir / "models/sgd_16/seed_0/plane.jsonl"
    cut.write_bytes(b"".join(cut.read_bytes().splitlines(keepends=True)[:2]))
    run(
        workdir,
        "--accept_config_changes",
        "--config.training.epochs=3",
        "--config.plane.points=3",
        "--config.curve.points=5",
    )
    after = results(workdir)
    assert {name for name in after if "earlier_configs" not in name} == before.keys()
    for name in before:
        assert after[name] != before[name], name
    header = json.loads((workdir / cut.relative_to(workdir)).read_text().splitlines()[0])
    assert header["epoch"] == 3 and len(header["xs"]) == 3
    for path in workdir.glob("curves/*/seed_0/config.json"):
        assert 3 in json.loads(path.read_text())["training"]["end_epochs"]


def test_a_report_shows_what_its_config_lists(study, tmp_path):
    config = digits.get_config("smoke")
    config.seeds, config.models = (0,), config.models[:2]
    config.curve.pairs = ()
    found = read_results(study[0], arms.plan(config))
    pairs = found.pairs
    assert [model.name for model in found.arms] == ["sgd_16", "sgd_16_2x_epochs"]
    assert pairs == () and len(found.planes) == 2
    everything = read_results(study[0])
    both = everything.pairs
    assert len(everything.arms) == 5 and len(both) == 2
    config = digits.get_config("smoke")
    config.curve.pairs = tuple(reversed(config.curve.pairs))
    reversed_pairs = read_results(study[0], arms.plan(config)).pairs
    # Figure 2 is that of the first pair of the config.
    ends = [(pair[0].start, pair[0].end) for pair in reversed_pairs]
    assert tuple(ends) == arms.plan(config).pairs


def test_a_killed_study_goes_on_to_the_same_numbers(study, tmp_path):
    workdir = tmp_path / "killed"

    def in_the_middle():
        """A model is being measured, and a second one has begun to train."""
        trained = workdir.glob("models/*/seed_0/metrics.jsonl")
        measured = workdir.glob("models/*/seed_0/records.jsonl")
        return len(list(trained)) >= 2 and any(path.stat().st_size for path in measured)

    kill_when(in_the_middle, *command(workdir))
    cut = results(workdir)
    expected = results(study[0])
    assert len(cut) < len(expected) and any(name.endswith("records.jsonl") for name in cut)
    run(workdir)
    assert results(workdir) == expected
    for line in next(iter(expected.values())).decode().splitlines():
        json.loads(line)
