"""The errors in the study's text and code, as facts with their effect and their evidence.

The numbers in these sentences are computed from published.csv. "Code" is the study's released
code, https://github.com/Kausta/R252_SAM, by branch and file.
"""

import math
from typing import NamedTuple

import numpy as np

from experiments.even_better.paper.published import published_cells, published_values
from experiments.study.formats import p_text, signed
from sam_jax import statistics


class Erratum(NamedTuple):
    """One error of the study."""

    what: str
    effect: str
    evidence: str


def errata() -> tuple[Erratum, ...]:
    """Return the errors; errors of the printed numbers come first."""
    return (*_of_the_tables(), *_of_the_measures(), *_of_the_conclusions(), *_CONNECTIVITY)


def _of_the_tables() -> tuple[Erratum, ...]:
    swapped, repeated = (
        sum(cell.differs for cell in published_cells() if cell.table == table) for table in (2, 6)
    )
    excess = [float(c.printed) - float(c.corrected) for c in published_cells() if c.table == 6]
    excess = [value for value in excess if value]
    column = ("adversarial_loss", "large", 0.05)
    printed, corrected = (_r(*column, printed=flag) for flag in (True, False))
    return (
        Erratum(
            "Table 2 prints its columns (m = 5000, ρ = 0.05) and (m = 5000, ρ = 0.1) in each "
            "other's place.",
            f"{swapped} cells are wrong; for ρ = 0.05 Figure 3's r = {signed(corrected)} would be "
            f"{signed(printed)}.",
            "Code: sharpness, analysis/sharpness_collection.csv. The corrected columns minus Table "
            "5 give one unperturbed loss for every ρ, the printed ones do not.",
        ),
        Erratum(
            "The last column of Table 6 prints the perturbed loss, not the sharpness.",
            f"{repeated} cells are too large by the unperturbed loss, "
            f"{min(excess):.2f} to {max(excess):.2f}.",
            "The same numbers as the last column of Table 7.",
        ),
    )


def _of_the_measures() -> tuple[Erratum, ...]:
    weights, sigmas = 2_296_922, (0.5, 1.0)
    norms = " and ".join(f"{sigma * math.sqrt(weights):.0f}" for sigma in sigmas)
    unperturbed, training = _unperturbed("small", 0.05), published_values("train_loss")
    # For u uniform in (0, 1), the mean of u is 1/2 and the mean of u^2 is 1/3.
    to_ones, to_another = 0.5 / math.sqrt(1 / 3), 0.25 / (1 / 3)
    return (
        Erratum(
            "The text gives the perturbations of average sharpness a fixed norm; the code adds "
            "noise of deviation σ = 0.5 or 1 to every weight.",
            f"Over {weights} weights the norm is about {norms} and not 0.5 and 1: Tables 6 and 7 "
            "show the loss far from the minimum.",
            "Code: sharpness, analysis/sharpness_collection.py (eval_avg_sharpness).",
        ),
        Erratum(
            "The sharpness tables were measured with the batch statistics of batch norm and on "
            "images that were not normalised; Table 1 with running statistics and normalised "
            "images.",
            "Tables 2 and 5 are of another function than Table 1: SGD's unperturbed training loss "
            f"is {unperturbed[0]:.3f} in the one and {training[0]:.4f} in the other.",
            "Code: sharpness, analysis/sharpness_collection.py (a new model is in training mode) "
            "and analysis/deep_nets/data.py. Table 2 minus Table 5 against Table 1.",
        ),
        Erratum(
            "m changes the examples of the ascent, those of the evaluation and the batch of the "
            "batch norm statistics all at once: 4 batches of 128 or of 5000 images.",
            "A difference between the two m is not one of the ascent alone.",
            "Code: sharpness, analysis/sharpness_collection.py before commit c376ea7, which goes "
            "down to one batch each.",
        ),
        Erratum(
            "The text trains with augmentation; the code of the asymmetry factor measures without "
            "(commit c534157), and in evaluation mode (acfb0f2).",
            "The printed factors are of the plain training images. The text does not say so.",
            "Code: kian, sam/data/classification.py; the factors were added later (35a3283).",
        ),
        Erratum(
            "The directions of the asymmetry factor have weights between 0 and 1.",
            f"They are almost one direction: their cosine is {to_ones:.3f} to the vector of ones "
            f"and {to_another:.2f} among themselves. The factor tells how the loss answers to a "
            "common shift of all weights.",
            "Code: kian, asymmetry.py (torch.rand). The cosines follow from the uniform law, in "
            "high dimension.",
        ),
        Erratum(
            "Average SAM divides by the squared norm in the text and by the norm in the code; the "
            "text multiplies a perturbation that has ρ already by ρ again.",
            "None on the numbers: the code is what was run.",
            "Text: sections 3 and 4.3. Code: sharpness, sam/nn/modules/rpopt.py.",
        ),
    )


def _of_the_conclusions() -> tuple[Erratum, ...]:
    small, large = (
        ", ".join(signed(_r("adversarial_sharpness", batch, rho)) for rho in (0.05, 0.1, 0.2))
        for batch in ("small", "large")
    )
    factor, loss = published_values("asymmetry_factor"), published_values("test_loss")
    everyone = statistics.correlation(factor, loss, resamples=1)
    others = np.arange(len(loss)) != np.argmax(factor)
    without = statistics.correlation(factor[others], loss[others], resamples=1)
    return (
        Erratum(
            "“5000-sharpness correlates poorly with test loss” rests on the perturbed loss, which "
            "contains the training loss.",
            f"The sharpness itself (Table 5) has r = {large} for m = 5000 and {small} for m = 128 "
            "(ρ = 0.05, 0.1, 0.2), to about 0.02 by the tables' digits.",
            "Tables 1 and 5.",
        ),
        Erratum(
            "The correlation of the asymmetry factor with the test loss is called moderately "
            "strong; no test is given.",
            f"p = {p_text(without.p_value)} for the {without.n} models of Figure 5 and "
            f"{p_text(everyone.p_value)} for all {everyone.n}: neither differs from zero.",
            "Table 1.",
        ),
        Erratum(
            "The tables show one run a model, though two were trained twice.",
            "The repetitions differ by as much as most models: Ω = 0.0758 and 0.1181 of 128-SGD, "
            "0.0681 and 0.0274 of 128-SAM ρ = 0.1.",
            "Code: kian, SAM-Checkpoints/{kind-durian-155, stoic-jazz-100, crisp-field-152, "
            "silver-haze-107}/asymmetry-factor.txt.",
        ),
    )


_CONNECTIVITY = (
    Erratum(
        "The curve that should connect two models has the second as its trainable middle; its "
        "end is a network with random weights.",
        "The curves do not connect the two models.",
        "Code: antoniab-loss-landscape, dnn-mode-connectivity/train.py "
        "(import_base_parameters(end_net, 1)).",
    ),
    Erratum(
        "The test split of the curves takes the last 5000 training images with the labels of the "
        "first 5000.",
        "A test error near 90%, that of guessing, all along: that the “test loss stays high "
        "throughout” says nothing about basins.",
        "Code: antoniab-loss-landscape, dnn-mode-connectivity/data.py cuts the images and not the "
        "targets.",
    ),
)


def _r(quantity: str, batch: str, rho: float, *, printed: bool = False) -> float:
    values = published_values(quantity, batch, rho, printed=printed)
    return statistics.correlation(values, published_values("test_loss"), resamples=1).r


def _unperturbed(batch: str, rho: float) -> np.ndarray:
    column = (batch, rho)
    return published_values("adversarial_loss", *column) - published_values(
        "adversarial_sharpness", *column
    )
