"""The examples run, print what their docstrings show, and the guide names what exists."""

import os
import pathlib
import re

import numpy as np
import optax
import pytest
from real_commands import output_of
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


def printed(name):
    """The lines that a script prints, in a process without the suite's devices and paths."""
    # Compiled as for a reader, since equalities are printed: without the suite's flags of XLA.
    kept = ("JAX_COMPILATION", "JAX_PERSISTENT", "JAX_PLATFORMS")
    basic = ("HOME", "PATH", "TMPDIR", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k.startswith(kept) or k in basic}
    return output_of(f"experiments.examples.{name}", env=environment).splitlines()


def last_numbers(lines):
    """The last number of each line."""
    return [float(NUMBER.findall(line)[-1]) for line in lines if NUMBER.search(line)]


def check_accumulation(lines):
    last = [float(line.split()[-1]) for line in lines if line[-1].isdigit()]
    *_, scan, inside, accumulated, outside = last
    assert max(scan, inside, accumulated) < 1e-3 and outside > 0.3


def check_low_precision(lines):
    """Small perturbations survive in float32 parameters only."""
    float32_along, _, bfloat16_along, _ = map(float, re.findall(r"\d\.\d\d\b", lines[-1]))
    assert abs(float32_along - 1) < 0.3 and bfloat16_along < 0.5


def check_two_devices(lines):
    *numbers, between = last_numbers(lines)
    assert len(numbers) == 8 and max(numbers[1::2]) < 1e-4 and between > 1e-2


def check_sharded_mesh(lines):
    numbers = last_numbers(lines)
    assert len(numbers) == 7 and max(numbers[3::3]) < 1e-2 and max(numbers[2::3]) < 0.15


def check_own_checkpoint(lines):
    """What is measured is what was trained, at a minimum."""
    trained, measured, sharpness, curvature = last_numbers(lines)
    assert measured == trained and 0 < sharpness < 0.1 and curvature > 0


def below(place, bound):
    """A difference by float32 rounding, which a training of 110 steps amplifies."""

    def check(lines):
        assert last_numbers(lines)[place] < bound

    return check


def equal(places, expected):
    def check(lines):
        assert last_numbers(lines)[places] == expected

    return check


CHECKS = {  # what the scripts print as equal is equal
    "equinox_model": lambda lines: None,
    "flax_batchnorm": below(-2, 1e-3),
    "flax_nnx": below(-2, 1e-3),
    "gradient_accumulation": check_accumulation,
    "keras_model": equal(slice(1, None), [0, 96]),  # 8 epochs of 12 batches
    "loss_scaling": equal(slice(-2, None), [0, 0]),
    "migration": below(-1, 1e-4),
    "mixed_precision": check_low_precision,
    "own_checkpoint": check_own_checkpoint,
    "plain_pytree": equal(slice(-1, None), [0]),
    "sharded_mesh": check_sharded_mesh,
    "two_devices": check_two_devices,
}


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
    CHECKS[name](lines)


def test_numbers_in_a_line():
    line = "  chain(sam, MultiSteps(sgd, 4)) and bfloat16 at rho 0.5: 1.25, 3e-05; m_sam(m=64) 0.0"
    assert NUMBER.findall(line) == ["4", "0.5", "1.25", "3e-05", "64", "0.0"]
    assert len(SCRIPTS) == 12 and all(promised(name) for name in SCRIPTS)


# ---------------------------------------------------------------------------- the guide


def test_the_guide_names_what_exists():
    targets = re.findall(r"\]\(([^)]+)\)", GUIDE)
    assert targets and all((FOLDER / target).is_file() for target in targets)
    assert {f"{name}.py" for name in SCRIPTS} == set(targets)
    used = {
        x
        for span in spans(GUIDE)
        if not span.startswith("python")
        for x in re.findall(r"(sam_jax|optax)\.(\w+)", span)
    }
    modules = {"sam_jax": sam_jax, "optax": optax}
    assert [x for x in used if not hasattr(modules[x[0]], x[1])] == []
    assert len(used) > 8
    assert commands(GUIDE) and all(faults(arguments) == [] for arguments in commands(GUIDE))


def test_the_code_of_the_guide_runs():
    (block,) = fenced(GUIDE, "python")
    run_python(block)
    assert "# 0.84" in block
