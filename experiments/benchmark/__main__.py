"""Run the benchmark: python -m experiments.benchmark --workdir=DIR.

Measures what the preset lists and DIR/records.jsonl does not hold yet, writes the report to
DIR/report/index.html and prints its table. The same command goes on where a cut run stopped.

    python -m experiments.benchmark --workdir=runs/benchmark --preset=smoke
"""

import importlib.util
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence

from absl import app, flags, logging

from experiments.benchmark.into_page import write_into
from experiments.benchmark.lab import Lab
from experiments.benchmark.presets import PRESETS, chosen
from experiments.benchmark.report import report
from experiments.benchmark.rows import ROWS
from experiments.benchmark.run import run
from experiments.study.provenance import command_line
from sam_jax.mistakes import UserMistake
from sam_jax.runs.flags import define_workdir, run_command

_WORKDIR = define_workdir("The folder of the benchmark.")
_PRESET = flags.DEFINE_enum("preset", "cpu", [*PRESETS], "What is measured, in which sizes.")
_ROWS = flags.DEFINE_list("rows", [], f"Only these rows, of {', '.join(ROWS)}.")
_TORCH = flags.DEFINE_string(
    "torch_python", "", "A Python with PyTorch and NumPy; by default this one, where it has them."
)
_BUDGET = flags.DEFINE_float(
    "budget_seconds",
    0.0,
    "After so many seconds no further row begins; 0: as the preset says.",
    lower_bound=0.0,
)
_DATA = flags.DEFINE_string("data_dir", "", "Where prepared sets lie, for the short training.")
_REPORT = flags.DEFINE_bool("report_only", False, "Measure nothing; write the report.")
_INTO = flags.DEFINE_string("into", "", "A page with the comments between which the table goes.")


def main(argv: Sequence[str]) -> None:
    """Measure and report."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    preset = PRESETS[_PRESET.value]
    logging.set_verbosity(logging.WARNING)
    folder = pathlib.Path(_WORKDIR.value)
    try:
        tasks = chosen(_PRESET.value, _ROWS.value)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    _check_places(_TORCH.value, _INTO.value)
    if not _REPORT.value:
        here = sys.executable if importlib.util.find_spec("torch") else ""
        folder.mkdir(parents=True, exist_ok=True)
        lab = Lab(
            folder.resolve(),
            torch_python=_TORCH.value or here,
            ends=time.monotonic() + (_BUDGET.value or preset.budget),
            data_dir=_DATA.value,
            in_process=preset.in_process,
        )
        run(tasks, lab)
    written = report(tasks, folder, command_line())
    print(written.table.markdown())
    print(f"The report is {' and '.join(str(page.resolve()) for page in written.pages)}")
    if _INTO.value:
        write_into(pathlib.Path(_INTO.value), _PRESET.value, written.table, written.made_with)


def _check_places(torch_python: str, into: str) -> None:
    """Raise a UserMistake unless the files that the flags name are there."""
    if torch_python and shutil.which(torch_python) is None:
        raise UserMistake(f"--torch_python must be a Python, got {torch_python!r}.")
    if into and not pathlib.Path(into).is_file():
        raise UserMistake(f"--into must be a page that is there, got {into!r}.")


if __name__ == "__main__":
    run_command(main)
