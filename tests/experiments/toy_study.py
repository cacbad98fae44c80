"""A third study: two learning rates, the norm of the weights, a claim and a page of its own."""

import functools
from typing import NamedTuple

import ml_collections
import optax

from experiments.study import claims, pages, table, verdicts
from experiments.study.command import main
from experiments.study.comparison import compare_arms, summary
from experiments.study.evidence import RunEvidence
from experiments.study.figures import ReportFigure
from experiments.study.study import Study
from sam_jax import plotting
from sam_jax.runs import records


class Rate(NamedTuple):
    name: str
    label: str
    value: float


class Plan(NamedTuple):
    config: ml_collections.ConfigDict
    arms: tuple[Rate, ...] = (Rate("slow", "slow", 1e-4), Rate("fast", "fast", 0.3))
    seeds: tuple[int, ...] = (0, 1)


NORM = table.Column("Weights", "norm", "norm", {"measure": "norm"})
LOSS = table.Column("Loss", "test", "test_loss", {"measure": "norm"}, best="min")
norm_table = functools.partial(table.arms_table, stem="norms", columns=[NORM, LOSS])


def training_config(config, arm, seed):
    training = config.copy_and_resolve_references()
    training.seed, training.optimiser.learning_rate = seed, arm.value
    return training


def measure(plan, run):
    path = run.folder / "records.jsonl"
    if not records.read(path):
        norm = float(optax.tree.norm(run.load()[1].state.params))
        records.append(path, {**run.outcome, "measure": "norm", "norm": norm})


def farther(evidence):
    return claims.difference(evidence, "fast minus slow", [1], [0], NORM, "positive")


def report(results, folder, settings):
    norms, pairs = norm_table(results), compare_arms(results, [NORM, LOSS], results.arms)
    claim = verdicts.Claim("farther", "Fast training ends farther out.", "Toy", "Norms.", farther)
    tested = verdicts.test_claims([RunEvidence(results, LOSS)], [claim])
    figure, (axes,) = plotting.small_multiples(1, 1)
    axes.plot([cell.mean for cell in norms.cells(0)], "o")
    shown = pages.write_table(folder, norms.stem, norms.csv(), norms.grid())
    parts, lines = verdicts.parts_grid(tested, claim), verdicts.claims_csv(tested)
    drawn = ReportFigure("Figure 1", "norms", "Norms.", figure)
    sections = [
        pages.Section("Norms", [summary(pairs, NORM, "norm")], [shown], [drawn]),
        pages.Section("Claims", grids=[pages.write_table(folder, "claims", lines, parts)]),
    ]
    return pages.write_report(folder, "A toy study", ["Two <arms>."], sections, settings)


STUDY = Study(
    config="configs/digits.py:smoke",
    plan=Plan,
    training_config=training_config,
    measure=measure,
    report=report,
    summary=lambda results: norm_table(results).grid().text(),
)

if __name__ == "__main__":
    main(STUDY)
