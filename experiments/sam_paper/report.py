"""The report: the paper's tables and ablations over these runs, the printed numbers beside them."""

import pathlib

from experiments.sam_paper import figures, tables
from experiments.sam_paper.results import PaperResults
from experiments.study import findings
from experiments.study.contrasts import Contrast
from experiments.study.outcomes import ERROR
from experiments.study.pages import Section, write_report, write_table
from experiments.study.study import Settings

TITLE = "The first SAM paper: report of these runs"
INTRODUCTION = (
    "SGD and SAM in the settings of Foret et al. (2021): augmentations and lengths of training, "
    "wrong labels, m, ascent steps, and the spectrum of the Hessian.",
    "Numbers are means ± standard errors over the seeds; differences are paired by seed. The "
    "published numbers belong to the paper's own nets and data sets. Those of SGD are the better "
    "ones of trainings of the same length and of twice it.",
)


def _words(row: Contrast) -> str:
    """Return what tells a comparison from others, in words."""
    if "label_noise" in row.about:
        return f"{row.heads[0]} wrong labels"
    return f"{row.heads[0]} augmentation, {row.heads[1]} epochs"


def report(results: PaperResults, folder: pathlib.Path, settings: Settings) -> pathlib.Path:
    """Write the tables, the figures and the page that shows them, and return its path."""
    steps, steps_grid = tables.by_steps(results)
    m, spectra = tables.by_m(results), tables.spectra(results)
    data_sets = [f"{name}: SGD, SAM / %" for name in tables.DATA_SETS]
    rows = [*tables.errors(results), *tables.noisy_labels(results)]
    found = findings.of_contrasts(results, rows, ERROR, ("SGD", "SAM"), _words)
    tested = findings.better_than(results, ERROR, findings.pairs_of(rows))
    opening = findings.opening(folder, found, tested)
    sections = [
        Section(
            "Test errors",
            ["The paper's Table 1: by augmentation and length of training."],
            [
                tables.write_contrasts(
                    folder,
                    results,
                    "errors",
                    tables.errors(results),
                    ("Augmentation", "Epochs"),
                    data_sets,
                )
            ],
        ),
        Section(
            "Wrong labels",
            [
                "A share of the training labels is wrong; the labels of the test set are right. "
                "The published numbers are of ResNet-32."
            ],
            [
                tables.write_contrasts(
                    folder,
                    results,
                    "noisy_labels",
                    tables.noisy_labels(results),
                    ("Wrong labels",),
                    data_sets[:1],
                )
            ],
        ),
        Section(
            "Examples that share a perturbation",
            ["The paper found that a smaller m generalises better."],
            [write_table(folder, m.stem, m.csv(), m.grid())],
            [figures.error_by_m(results)],
        ),
        Section(
            "Ascent steps",
            ["The paper found that more steps of the inner maximisation change little."],
            [write_table(folder, steps.stem, steps.csv(), steps_grid)],
        ),
        Section(
            "Spectrum of the Hessian",
            [
                "Of the training loss, at the kept checkpoints. The paper printed for the end of "
                "training of a WRN-40-10 without batch norm a largest eigenvalue of about 24 with "
                "SGD and 1.0 with SAM, and a ratio of the largest to the fifth of up to 11.4 and "
                "2.6."
            ],
            [write_table(folder, spectra.stem, spectra.csv(), spectra.grid())],
            [figures.spectral_densities(results)],
        ),
    ]
    return write_report(folder, TITLE, INTRODUCTION, sections, settings, opening=opening)
