"""The examples run, print what their docstrings show, and the guide names what exists."""

import functools
import pathlib
import re

import numpy as np
import optax
import pytest
from real_commands import environment, run
from test_readme import commands, faults, fenced, run_python, spans

import sam_jax

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "experiments/examples"
SCRIPTS = [path.stem for path in sorted(FOLDER.glob("*.py")) if "__main__" in path.read_text()]
GUIDE = (FOLDER / "migration.md").read_text()
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e-\d+)?(?![\w]|\.\d)")
FAILURE = 0.95  # the accuracy of a linear classifier; ten per cent without any learning


def promised(name):
    """The lines of output in a script's docstring."""
    docstring = (FOLDER / f"{name}.py").read_text().split('"""')[1]
    return [line[4:] for line in docstring.splitlines() if line.startswith("    ")]


@functools.cache
def printed(name):
    """The lines that a script prints, in a process without the suite's devices and paths."""
    kept = ("JAX_", "XLA_FLAGS", "HOME", "PATH", "TMPDIR", "VIRTUAL_ENV")
    basic = {k: v for k, v in environment().items() if k.startswith(kept)}
    result = run(f"experiments.examples.{name}", env=basic)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.splitlines()


def last_numbers(name):
    """The last number of each line that a script prints."""
    return [float(NUMBER.findall(line)[-1]) for line in printed(name) if NUMBER.search(line)]


@pytest.mark.commands
@pytest.mark.commands
@pytest.mark.parametrize("name", SCRIPTS)
def test_prints_what_its_docstring_shows(name):
    lines, shown = printed(name), promised(name)
    assert [NUMBER.sub("#", line) for line in lines] == [NUMBER.sub("#", line) for line in shown]
    for line, expected in zip(lines, shown, strict=True):
        # Another machine rounds otherwise, which a training amplifies: seven test examples of 360
        # for an accuracy, ten per cent for a distance.
        np.testing.assert_allclose(
            [float(x) for x in NUMBER.findall(line)],
            [float(x) for x in NUMBER.findall(expected)],
            atol=0.02,
            rtol=0.1,
        )
        if "accuracy" in line:
            assert float(NUMBER.findall(line)[-1]) > FAILURE
    assert any("accuracy" in line for line in lines)


def test_numbers_in_a_line():
    line = "  chain(sam, MultiSteps(sgd, 4)) and bfloat16 at rho 0.5: 1.25, 3e-05; m_sam(m=64) 0.0"
    assert NUMBER.findall(line) == ["4", "0.5", "1.25", "3e-05", "64", "0.0"]
    assert len(SCRIPTS) == 10 and all(promised(name) for name in SCRIPTS)


def test_printed_equalities():
    assert last_numbers("plain_pytree")[-1] == 0
    assert last_numbers("loss_scaling")[-2:] == [0, 0]
    assert last_numbers("keras_model")[1:] == [0, 96]  # 8 epochs of 12 batches
    # Float32 rounding, which a training of 110 steps amplifies.
    assert last_numbers("flax_batchnorm")[-2] < 1e-3
    assert last_numbers("flax_nnx")[-2] < 1e-3
    assert last_numbers("migration")[-1] < 1e-4
    *lines, between = last_numbers("two_devices")
    assert len(lines) == 8 and max(lines[1::2]) < 1e-4 and between > 1e-2
    *_, scan, inside, accumulated, outside = [
        float(line.split()[-1]) for line in printed("gradient_accumulation") if line[-1].isdigit()
    ]
    assert max(scan, inside, accumulated) < 1e-3 and outside > 0.3


@pytest.mark.commands
def test_small_perturbations_survive_in_float32_parameters_only():
    float32_along, _, bfloat16_along, _ = (
        float(x) for x in re.findall(r"\d\.\d\d\b", printed("mixed_precision")[-1])
    )
    assert abs(float32_along - 1) < 0.3 and bfloat16_along < 0.5


# ---------------------------------------------------------------------------- the guide


def test_the_guide_names_what_exists():
    targets = re.findall(r"\]\(([^)]+)\)", GUIDE)
    assert targets and all((FOLDER / target).is_file() for target in targets)
    assert {f"{name}.py" for name in SCRIPTS} == set(targets)
    used = {x for span in spans(GUIDE) for x in re.findall(r"(sam_jax|optax)\.(\w+)", span)}
    modules = {"sam_jax": sam_jax, "optax": optax}
    assert [x for x in used if not hasattr(modules[x[0]], x[1])] == []
    assert len(used) > 8
    assert commands(GUIDE) and all(faults(arguments) == [] for arguments in commands(GUIDE))


def test_the_code_of_the_guide_runs():
    (block,) = fenced(GUIDE, "python")
    run_python(block)
    assert "# 0.84" in block
