"""What made a report: the command, the config beside its base, the raw records, the software."""

import pathlib
import platform
import re
import shlex
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

import sam_jax
from experiments.study.arms import Plan, arm_folder, seed_folder
from sam_jax.measuring.measure import EVALUATIONS
from sam_jax.runs.config_changes import Change, changes
from sam_jax.runs.config_flag import read_config

ROOT = pathlib.Path(__file__).parents[2]  # where the paths of configs start
KEY = "provenance"  # of a Provenance among the settings that a report is given
_TRIAL = re.compile(r"(\s--smoke|\s--preset[ =]smoke|\.py:smoke)(['\s]|$)")
TRAINING_BASE = "configs/digits.py"  # the complete commented config of a training


class Comparison(NamedTuple):
    """A config beside its base."""

    base: str  # the path of its file
    changes: Sequence[Change]


class Records(NamedTuple):
    """The raw records of an arm or an experiment: names and links, seen from the report."""

    label: str
    links: Sequence[tuple[str, str]]


class Provenance(NamedTuple):
    """What made a report."""

    command: str = ""  # "" where no command did
    comparisons: Sequence[Comparison] = ()
    records: Sequence[Records] = ()

    @property
    def is_trial(self) -> bool:
        """Say whether the command ran in seconds what takes hours, so that numbers mean nothing.

        >>> Provenance("sam-jax-study variants --config=configs/variants/digits.py:smoke").is_trial
        True
        >>> Provenance("sam-jax-study variants --workdir=smoke").is_trial
        False
        """
        return _TRIAL.search(self.command) is not None


def software() -> dict[str, str]:
    """Return the versions and the device that this process computes with."""
    return {
        "sam_jax": sam_jax.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
    }


def command_line() -> str:
    """Return the line that started this process, as a shell takes it."""
    program, *arguments = sys.orig_argv
    if arguments and pathlib.Path(arguments[0]).name.startswith("sam-jax-"):  # an installed command
        program, *arguments = arguments
    return shlex.join([pathlib.Path(program).name, *arguments])


def provenance_of(plan: Plan, workdir: pathlib.Path, base: str, command: str = "") -> Provenance:
    """Return what made the report of a study.

    Args:
      plan: of the study's config.
      workdir: the folder of the study; the report stands in a folder of it.
      base: the path of the config file that the study's command takes by itself.
      command: the line that ran the study.
    """
    comparisons = [Comparison(base, changes(read_config(_path_of(base)), plan.config))]
    if "training" in plan.config:
        beside = read_config(_path_of(TRAINING_BASE))
        comparisons.append(Comparison(TRAINING_BASE, changes(beside, plan.config.training)))
    return Provenance(command, comparisons, [*_of_arms(plan, workdir), *_across(workdir)])


def _of_arms(plan: Plan, workdir: pathlib.Path) -> Iterator[Records]:
    for arm in plan.arms:
        runs = [(f"seed {seed}", seed_folder(workdir, arm, seed)) for seed in plan.seeds]
        places = [(name, folder / "records.jsonl") for name, folder in runs]
        places += [(f"{name} evaluations", folder / EVALUATIONS) for name, folder in runs]
        places += [("costs", arm_folder(workdir, arm) / "costs.jsonl")]
        links = [(name, link(path, workdir)) for name, path in places if path.is_file()]
        if links:
            yield Records(arm.label, links)


def _across(workdir: pathlib.Path) -> Iterator[Records]:
    """Yield the records of what concerns several runs, such as the curves between two models."""
    for folder in sorted({path.parents[1] for path in workdir.glob("*/*/seed_*/records.jsonl")}):
        if folder.parent.name != "models":
            found = sorted(folder.glob("seed_*/records.jsonl"))
            links = [(path.parent.name.replace("_", " "), link(path, workdir)) for path in found]
            yield Records(folder.name, links)


def link(path: pathlib.Path, workdir: pathlib.Path) -> str:
    """Return the address of a file in a work directory as the report's pages see it.

    >>> link(pathlib.Path("out/models/a b/records.jsonl"), pathlib.Path("out"))
    '../models/a%20b/records.jsonl'
    """
    return "../" + urllib.parse.quote(path.relative_to(workdir).as_posix())


def _path_of(config: str) -> str:
    """Return the path of a config file of this checkout, with its variant."""
    here = pathlib.Path(config.partition(":")[0])
    return config if here.is_file() else str(ROOT / config)
