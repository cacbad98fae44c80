"""A user's mistake is one sentence and exit code 2; nothing is written and nothing is trained."""

import pathlib

import mistakes_table
import pytest
from mistakes_table import DEFAULT, SMOKE
from real_commands import run, run_here

from configs import digits
from sam_jax import mistakes
from sam_jax.measuring import settings
from sam_jax.mistakes import UserMistake
from sam_jax.paths import collect_members, find_curve
from sam_jax.runs import fields
from sam_jax.training import build, config_fields, train_and_evaluate

ROOT = pathlib.Path(__file__).parents[1]


def the_sentence(result):
    """Return the one line of a refusal, which is all that a command says."""
    (line,) = result.stderr.splitlines()
    assert result.returncode == mistakes.CODE and not result.stdout
    assert "Traceback" not in line
    return line


def arguments_of(mistake, folder):
    if mistake.workdir is None:
        return mistake.arguments
    workdir = folder / "runs" / "new" if mistake.workdir == DEFAULT else mistake.workdir
    return (*mistake.arguments, f"--workdir={workdir}")


def test_the_table_is_long_enough():
    assert len({mistake.name for mistake in mistakes_table.ALL}) >= 120
    fields_named = {m.arguments[-1].split("=")[0] for m in mistakes_table.TRAINING}
    groups = {name.split(".")[1] for name in fields_named}
    assert groups >= {name.split(".")[0] for name in config_fields.TRAINING}


@pytest.fixture
def nothing_is_trained(monkeypatch):
    """A training that begins is a fault, and ends at once."""

    def refuse(*_, **__):
        raise AssertionError("a training begins")

    # Programs are kept from one command to the next, and so are not touched.
    for module in (train_and_evaluate, find_curve, collect_members):
        monkeypatch.setattr(module, "fit", refuse)
    monkeypatch.setattr(train_and_evaluate, "fresh_state", refuse)


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.parametrize("mistake", mistakes_table.ALL, ids=lambda mistake: mistake.name)
def test_one_sentence(mistake, tmp_path):
    before = set(ROOT.iterdir())
    line = the_sentence(run_here(mistake.module, *arguments_of(mistake, tmp_path)))
    for word in mistake.words:
        assert word in line
    assert not list(tmp_path.iterdir())
    assert set(ROOT.iterdir()) == before


@pytest.mark.parametrize("error", [ValueError, KeyError, TypeError, RuntimeError])
def test_a_fault_of_the_program_keeps_its_traceback(error, tmp_path, monkeypatch):
    def faulty(*_):
        raise error("of ours")

    monkeypatch.setattr(build, "data_and_program", faulty)
    result = run_here("sam_jax.train", SMOKE, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 1 and "Traceback" in result.stderr and "of ours" in result.stderr


@pytest.mark.parametrize("how", ["--traceback", mistakes.VARIABLE])
def test_a_traceback_that_is_asked_for(how, tmp_path, monkeypatch):
    arguments = ["sam_jax.train", SMOKE, "--config.epochs=0", f"--workdir={tmp_path / 'run'}"]
    if how == mistakes.VARIABLE:
        monkeypatch.setenv(how, "1")
    else:
        arguments.append(how)
    result = run_here(*arguments)
    assert result.returncode == mistakes.CODE and "Traceback" in result.stderr
    assert "config_fields.py" in result.stderr and "epochs" in result.stderr


def test_the_table_is_the_base_config():
    config = digits.get_config()
    names = dict(fields.leaves(config))
    instruments = {f"instruments.{name}" for name in settings.fields_of_instruments()}
    assert set(config_fields.TRAINING) | instruments == set(names)
    config_fields.check(config)
    settings.check(config.instruments)


@pytest.mark.parametrize("value", [None, "", "x", -1.5, float("nan"), object(), (None,), {}])
def test_no_field_holds_everything(value):
    table = config_fields.TRAINING | settings.fields_of_instruments()
    taken = [name for name, field in table.items() if field.holds(value)]
    free = {"fine_tune.workdir", "data.data_dir"}  # any path
    if value is None:
        assert set(taken) == {"data.augmentation", "data.pad", "data.cutout_size"}
    elif value == "x":
        assert set(taken) == free | {"data.name", "data.train_split"}
    elif value == "":
        assert set(taken) == free
    elif value == -1.5:
        assert set(taken) == {
            "method.ae_sam.lambda1",
            "method.ae_sam.lambda2",
            "loss.offset_cross_entropy.offset",
        }
    else:
        assert not taken


def test_a_mistake_is_a_value_error():
    config = digits.get_config("smoke")
    config.method.rho = -1.0
    with pytest.raises(ValueError, match="method.rho must be a finite number of 0 or more") as info:
        build.check(config)
    assert info.type is UserMistake


@pytest.mark.commands
@pytest.mark.parametrize(
    "mistake",
    [
        mistakes_table.TRAINING[0],
        mistakes_table.TRAIN_LINES[1],
        mistakes_table.EVALUATE[0],
        mistakes_table.PREPARE[1],
        mistakes_table.EVEN_BETTER[0],
    ],
    ids=lambda mistake: mistake.name,
)
def test_one_sentence_of_a_process(mistake, tmp_path):
    line = the_sentence(run(mistake.module, *arguments_of(mistake, tmp_path)))
    assert all(word in line for word in mistake.words)
    assert not list(tmp_path.iterdir())
