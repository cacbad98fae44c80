"""The command that compares methods: two of them, two seeds, artificial data."""

import json
import shutil

import pytest
from page_links import opening_of
from real_commands import made_once, output_of

from configs.variants import digits
from experiments.variants.methods import study_methods

pytestmark = pytest.mark.e2e
SGD, SAM = "('SGD','none',{})", "('SAM','sam',{'rho':0.05})"


def run(workdir, *flags, methods=(SGD, SAM)):
    config = "--config=configs/variants/digits.py:smoke"
    chosen = f"--config.methods=({','.join(methods)},)"
    return output_of("experiments.variants", config, f"--workdir={workdir}", chosen, *flags)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study and what its command printed. Not to be changed: copy it."""
    return made_once(tmp_path_factory, "variants", run)


def records(workdir):
    """Return the bytes of all records and metrics, by their path."""
    paths = sorted(workdir.glob("models/**/*.jsonl"))
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def outcomes(workdir):
    """Return the records without the times that no two runs repeat."""
    timed = ("costs.jsonl", "speed.jsonl")
    return {name: data for name, data in records(workdir).items() if not name.endswith(timed)}


def times(workdir):
    """Return when the files of the models were written, without the rewritten config.json."""
    return {
        str(path.relative_to(workdir)): path.stat().st_mtime_ns
        for path in workdir.glob("models/**/*")
        if path.is_file() and path.name != "config.json"
    }


def read(path):
    (record,) = map(json.loads, path.read_text().splitlines())
    return record


def test_ends_with_the_table_and_the_report(study):
    workdir, output = study
    lines = output.rstrip().splitlines()
    page = workdir / "report/index.html"
    assert lines[-1] == f"The report is {page.resolve()}" and page.exists()
    config, methods = "--config=configs/variants/digits.py:smoke", f"({SGD},{SAM},)"
    found = opening_of(page, "experiments.variants", config, f"--config.methods={methods}")
    assert "highest test accuracy" in found[0] and "fastest method" in " ".join(found)
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("Method ")) :]
    assert [line.split("  ")[0] for line in table[1:4]] == ["SGD", "SAM", "SGD, 2x epochs"]
    for name in ("sgd", "sam", "sgd_2x_epochs"):
        costs = read(workdir / f"models/{name}/costs.jsonl")
        assert len(costs["seconds"]) == digits.get_config("smoke").timing.rounds
        for seed in (0, 1):
            record = read(workdir / f"models/{name}/seed_{seed}/records.jsonl")
            assert record["seed"] == seed and 0 <= record["test_accuracy"] <= 1


def test_equal_compute_trains_for_twice_the_epochs(study):
    models = study[0] / "models"
    once, twice = (read(models / f"{n}/seed_0/records.jsonl") for n in ("sgd", "sgd_2x_epochs"))
    assert (twice["epoch"], twice["step"]) == (2 * once["epoch"], 2 * once["step"])
    config = json.loads((models / "sgd_2x_epochs/seed_0/config.json").read_text())
    assert config["method"]["name"] == "none" and config["epochs"] == twice["epoch"]


def test_methods_share_weights_and_order(study):
    """At the first step all have the same weights and batch, hence the same clean loss."""
    configs = {
        name: json.loads((study[0] / f"models/{name}/seed_1/config.json").read_text())
        for name in ("sgd", "sam")
    }
    assert configs["sgd"]["method"] != configs["sam"]["method"]
    for name in ("sgd", "sam"):
        del configs[name]["method"]
    assert configs["sgd"] == configs["sam"] and configs["sgd"]["seed"] == 1


def test_nothing_is_run_twice(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "copy", copy_function=shutil.copy2)
    before = times(workdir)
    output = run(workdir)
    assert times(workdir) == before
    # The very same numbers, those of the timing included.
    assert (
        output.split("Method ")[1].splitlines()[1:4]
        == (study[1].split("Method ")[1].splitlines()[1:4])
    )


def test_what_is_missing_is_made_again_and_the_same(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "copy", copy_function=shutil.copy2)
    expected = outcomes(workdir)
    shutil.rmtree(workdir / "models/sam/seed_1")  # as if cut before it
    (workdir / "models/sgd_2x_epochs/seed_0/records.jsonl").unlink()
    (workdir / "models/sgd/costs.jsonl").unlink()
    before = times(workdir)
    run(workdir)
    after = times(workdir)
    assert outcomes(workdir) == expected  # bit for bit
    assert (workdir / "models/sgd/costs.jsonl").exists()
    changed = {n for n in before if after[n] != before[n] and not n.endswith(".crc32")}
    assert changed == set()


def test_more_methods_can_be_accepted(study, tmp_path):
    workdir = shutil.copytree(study[0], tmp_path / "copy", copy_function=shutil.copy2)
    before = times(workdir)
    more = (SGD, SAM, "('Big','sam',{'rho':1.0})")
    output = run(workdir, "--accept_config_changes", methods=more)
    after = times(workdir)
    assert {name: after[name] for name in before} == before
    assert (workdir / "models/big/seed_1/records.jsonl").exists()
    assert any(line.startswith("Big ") for line in output.splitlines())


def test_the_smoke_config_has_a_scheduled_method():
    functions = [method.function for method in study_methods(digits.get_config("smoke"))]
    assert functions == ["none", "looksam", "none"]
