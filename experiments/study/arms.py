"""An arm is one thing that a study trains, whatever the seed; a plan is a parsed config."""

import pathlib
from collections.abc import Sequence
from typing import Protocol

import ml_collections

from sam_jax.folder_names import check_folder_name


class Arm(Protocol):
    """One thing that a study trains. It is hashable."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        ...

    @property
    def label(self) -> str:
        """Its name for readers."""
        ...


class Plan(Protocol):
    """A study's config, parsed once. A study adds fields of its own."""

    @property
    def config(self) -> ml_collections.ConfigDict:
        """The config itself."""
        ...

    @property
    def arms(self) -> Sequence[Arm]:
        """The arms in the order of the tables."""
        ...

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds that every arm is trained with."""
        ...


def seed_folder(workdir: pathlib.Path | str, arm: Arm, seed: int) -> pathlib.Path:
    """Return the folder of a trained arm, `workdir/models/NAME/seed_S`."""
    return arm_folder(workdir, arm) / f"seed_{seed}"


def arm_folder(workdir: pathlib.Path | str, arm: Arm) -> pathlib.Path:
    """Return the folder of what concerns all seeds of an arm, `workdir/models/NAME`.

    Raises:
      ValueError: the name leads out of `models`.
    """
    return pathlib.Path(workdir) / "models" / check_folder_name("The name of an arm", arm.name)
