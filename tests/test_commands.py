"""The real commands, as a reader of the README types them, in processes of their own."""

import json
import math
import re
import shutil

import pytest
from real_commands import made_once, output_of, read_lines, run, run_here

from sam_jax.measuring import registry

SMOKE = "--config=configs/digits.py:smoke"
pytestmark = pytest.mark.commands


@pytest.fixture
def trained(tmp_path_factory, tmp_path):
    """A copy of the folder of a finished run, and what its command printed."""
    folder, output = made_once(
        tmp_path_factory,
        "trained",
        lambda folder: output_of("sam_jax.train", SMOKE, f"--workdir={folder}"),
    )
    return shutil.copytree(folder, tmp_path / "trained"), output.replace(str(folder), "FOLDER")


def test_train(trained):
    workdir, output = trained
    history = read_lines(workdir / "metrics.jsonl")
    assert [record["epoch"] for record in history] == [1, 2]
    last = history[-1]
    assert all(math.isfinite(value) for value in last.values())
    line = output.splitlines()[-1]
    first = "config configs/digits.py:smoke: configs/digits.py with "
    assert output.startswith(first) and "\n  epochs " in output and "instruments: " in output
    assert line == (
        f"epoch 2: train loss {last['train_loss']:.4f}, "
        f"train accuracy {last['train_accuracy']:.2%}, test loss {last['test_loss']:.4f}, "
        f"test accuracy {last['test_accuracy']:.2%}; everything is in FOLDER"
    )
    names = {path.name for path in workdir.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "speed.jsonl", "tensorboard", "checkpoints"}


def test_evaluate(trained):
    workdir, _ = trained
    both = ("sam_jax.evaluate", f"--workdir={workdir}", "--presets=sound,published")
    path = workdir / "evaluations.jsonl"
    result = run(*both)
    assert result.returncode == 0, result.stderr
    records = read_lines(path)
    lines = result.stdout.splitlines()[-len(records) - 1 :]  # progress may come before
    assert lines[-1] == f"{len(records)} records are in {path}"
    assert {record["epoch"] for record in records} == {2}
    kinds = {(record["measure"], record.get("preset")) for record in records}
    assert kinds == {
        (instrument.name, preset)
        for instrument in registry.chosen()
        for preset in instrument.presets or (None,)
    }
    last = read_lines(workdir / "metrics.jsonl")[-1]
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert records[0][name] == last[name]
    for line, record in zip(lines, records, strict=False):
        assert line.startswith(f"{record['measure']}: ")
    # A cut one goes on: what is there stays, the rest is the same, and every line is printed.
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert run(*both).stdout.splitlines()[-len(lines) :] == lines
    assert path.read_bytes() == whole


def test_evaluate_only_some_measures(trained):
    workdir, _ = trained
    path = workdir / "evaluations.jsonl"
    hessian = ("sam_jax.evaluate", f"--workdir={workdir}", "--measures=hessian")
    result = run(*hessian)
    assert result.returncode == 0, result.stderr
    (record,) = read_lines(path)
    assert record["measure"] == "hessian" and record["preset"] == "sound"
    assert result.stdout.startswith("hessian: preset sound, steps 3, draws 2, top_eigenvalue ")
    # With other settings it is another measurement; the first one is kept.
    config = json.loads((workdir / "config.json").read_text())
    config["instruments"]["hessian"]["steps"] = 4
    (workdir / "config.json").write_text(json.dumps(config))
    assert run(*hessian).returncode == 0
    first, second = read_lines(path)
    assert first == record and (second["steps"], first["steps"]) == (4, 3)
    assert second["settings"] != first["settings"]
    unknown = run_here(*hessian[:-1], "--measures=hesian,loss_curve")
    last = unknown.stderr.strip().splitlines()[-1]
    assert unknown.returncode != 0 and "unknown measures ['hesian']" in last
    assert "'asymmetry_factor'" in last and "'hessian'" in last
    assert len(read_lines(path)) == 2


def test_another_config_is_refused_until_it_is_accepted(trained):
    workdir, _ = trained
    changed = ("sam_jax.train", SMOKE, f"--workdir={workdir}", "--config.method.eta=0.3")
    before = (workdir / "config.json").read_text()
    result = run_here(*changed)
    assert result.returncode != 0
    assert "method.eta (was 0.01, is 0.3)" in result.stderr
    assert "--accept_config_changes" in result.stderr
    assert (workdir / "config.json").read_text() == before
    # The run is finished: it is not trained again, and its config stays what it was trained with.
    history = (workdir / "metrics.jsonl").read_bytes()
    accepted = run(*changed, "--accept_config_changes")
    assert accepted.returncode == 0, accepted.stderr
    assert (workdir / "config.json").read_text() == before
    assert (workdir / "metrics.jsonl").read_bytes() == history


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            ("sam_jax.train", SMOKE, "--config.method.name=sma"),
            ["method.name must be one of none, sam, usam,", "extrap_sgd, got 'sma'"],
        ),
        (
            ("sam_jax.train", "--config=configs/fashion_mnist.py", "--config.data.data_dir={tmp}"),
            ["Found no fashion_mnist", "python -m sam_jax.data.prepare fashion_mnist"],
        ),
        (
            ("sam_jax.evaluate",),
            ["holds no config.json", "python -m sam_jax.train --config=... --workdir=..."],
        ),
        (
            ("sam_jax.train", "--config=configs/digits.py:smok"),
            ["the only variant is \"smoke\", got 'smok'"],
        ),
    ],
    ids=["unknown method", "missing data set", "workdir without a run", "unknown variant"],
)
def test_errors_say_what_to_do(tmp_path, arguments, messages):
    arguments = [a.replace("{tmp}", str(tmp_path / "empty")) for a in arguments]
    result = run_here(*arguments, f"--workdir={tmp_path / 'run'}")
    assert result.returncode != 0
    # The message is at the end, where it is seen.
    last = "\n".join(result.stderr.strip().splitlines()[-3:])
    for message in messages:
        assert message in last
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("module", ["sam_jax.train", "sam_jax.evaluate"])
def test_a_missing_workdir_is_said(module):
    result = run_here(module, *([SMOKE] if module == "sam_jax.train" else []))
    assert result.returncode == 2
    assert "--workdir is missing" in result.stderr
    assert "Traceback" not in result.stderr


WITH_CONFIG = ["sam_jax.train", *(f"experiments.{name}" for name in ("variants", "even_better"))]
WITHOUT = ["sam_jax.evaluate", "sam_jax.replay", "experiments.benchmark"]
WITHOUT += ["experiments.understanding.relu_nets"]


@pytest.mark.parametrize("flag", ["--help", "--helpshort", "--helpfull"])
@pytest.mark.parametrize("module", WITH_CONFIG + WITHOUT)
def test_help_is_a_page_with_flags_an_example_and_exit_codes(module, flag):
    result = run_here(module, flag)
    assert result.returncode == 0 and not result.stderr
    page = result.stdout
    examples = re.findall(rf"^    python -m {re.escape(module)} .*--", page, re.MULTILINE)
    assert examples and "--workdir: " in page
    assert ("--config: " in page) == (module in WITH_CONFIG)
    assert ("--[no]print_config: " in page) == (module in WITH_CONFIG)
    for code in ("0  ", "1  ", "2  ", "128 + N  "):
        assert re.search(rf"^  {re.escape(code)}", page, re.MULTILINE)
    assert "\x1b" not in page  # no colours


def test_help_of_prepare():
    result = run_here("sam_jax.data.prepare", "--help")
    assert result.returncode == 0 and not result.stderr
    assert "    python -m sam_jax.data.prepare fashion_mnist" in result.stdout
    assert "Exit codes: " in result.stdout and "--from_dir" in result.stdout
