"""The commands that an installation brings."""

import runpy
import sys
from unittest import mock

import pytest
from real_commands import ROOT, environment, run

from sam_jax import commands, extras

MODULES = {
    "train": ("sam_jax.train", ["--workdir=a"]),
    "evaluate": ("sam_jax.evaluate", ["--workdir=a"]),
    "prepare": ("sam_jax.data.prepare", ["mnist"]),
    "dashboard": ("sam_jax.dashboard", ["runs"]),
    "study": ("experiments.even_better", ["even_better", "--workdir=a"]),
}


@pytest.fixture
def called(monkeypatch):
    """What `_run` hands to runpy: the module and the command line at that moment."""
    calls = []
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(
        commands.runpy, "run_module", lambda name, **_: calls.append((name, list(sys.argv)))
    )
    return calls


def test_setup_declares_the_commands():
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    scripts = setup.call_args.kwargs["entry_points"]["console_scripts"]
    assert scripts == [f"sam-jax-{name} = sam_jax.commands:{name}" for name in MODULES]


@pytest.mark.parametrize("name", MODULES)
def test_a_command_runs_its_module(name, called, monkeypatch):
    module, arguments = MODULES[name]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"sam-jax-{name}", *arguments])
    getattr(commands, name)()
    rest = arguments[1:] if name == "study" else arguments
    assert called == [(module, [f"sam-jax-{name}", *rest])]
    assert sys.path[0] == str(ROOT)


@pytest.mark.parametrize("arguments", [[], ["even_bettre"], ["study"], ["--config=x"]])
def test_a_study_is_named_first(arguments, called, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["sam-jax-study", *arguments])
    with pytest.raises(SystemExit, match="^2$"):
        commands.study()
    (line,) = capsys.readouterr().err.splitlines()
    assert "one of benchmark, even_better, " in line and ", variants; got" in line
    assert ("Did you mean 'even_better'?" in line) == (arguments == ["even_bettre"])
    assert called == []


def test_help_lists_the_studies(called, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["sam-jax-study", "--help"])
    commands.study()
    page = capsys.readouterr().out
    assert "\n  even_better: Trains its models, " in page
    assert "\n  understanding.relu_nets: Train nets with one hidden layer.\n" in page
    assert page.count(": ") > 9 and called == []


def test_studies_need_a_checkout(called, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sam-jax-study", "even_better"])
    with pytest.raises(SystemExit, match="^2$"):
        commands.study()
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no studies; they are in" in line and "of a checkout" in line
    assert called == []


def test_a_missing_extra_ends_in_one_sentence(monkeypatch):
    def missing(*_, **__):
        extras.needs("sam_jax.models", "lab", "no_such_package")

    monkeypatch.setattr(commands.runpy, "run_module", missing)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match=r"^sam_jax.models needs .*\"sam_jax\[lab\]\"`\.$"):
        commands.train()


@pytest.mark.commands
def test_a_study_is_found_from_the_current_folder(tmp_path):
    (tmp_path / "sam_jax").symlink_to(ROOT / "sam_jax")
    program = (
        "import sys; sys.argv[0] = 'sam-jax-study'\nfrom sam_jax.commands import study; study()"
    )
    result = run(
        *("-c", program, "even_better", "--helpshort"),
        interpreter=("-P",),  # as a script, which does not look into the current folder
        env=environment() | {"PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert "Run the study: python -m experiments.even_better" in result.stdout
    assert "--config:" in result.stdout and "--workdir:" in result.stdout
