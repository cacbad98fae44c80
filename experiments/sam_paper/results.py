"""The results in a work directory: the outcomes of all arms, and the Hessians of two."""

import dataclasses
import pathlib

from experiments.sam_paper.measure import spectra_of
from experiments.sam_paper.settings import Plan, Setting
from experiments.study.arms import seed_folder
from experiments.study.results import Results, read_records
from sam_jax.runs.records import Record


@dataclasses.dataclass(frozen=True)
class PaperResults(Results[Setting]):
    """The outcomes of all arms and seeds; `spectra` has a record an arm, seed and checkpoint."""

    plan: Plan
    spectra: tuple[Record, ...]

    def spectrum(self, measure: str, arm: Setting) -> list[Record]:
        """Return the records of one instrument on one arm, by epoch and seed."""
        found = [r for r in self.spectra if (r["measure"], r["arm"]) == (measure, arm.name)]
        return sorted(found, key=lambda record: (record["epoch"], record["seed"]))


def read_results(workdir: pathlib.Path | str, plan: Plan) -> PaperResults:
    """Read the records of a plan's arms and seeds.

    Raises:
      ValueError: there is none.
    """
    outcomes = read_records(workdir, plan.arms, plan.seeds)
    spectra = [
        record | {"arm": arm.name, "seed": seed}
        for arm in plan.spectra
        for seed in plan.seeds
        for record in spectra_of(seed_folder(workdir, arm, seed))
    ]
    return PaperResults(plan.arms, plan.seeds, outcomes, plan, tuple(spectra))
