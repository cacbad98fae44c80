"""The claims of the study's abstract, contributions and section 5, each with its test."""

from experiments.even_better.claims import asymmetry
from experiments.even_better.claims import connections as curves
from experiments.even_better.claims import losses as parts
from experiments.even_better.claims.evidence import Quantity
from experiments.even_better.claims.groups import FACTOR, TEST_LOSS
from experiments.even_better.thresholds import MODERATE
from experiments.study.verdicts import Claim

CLAIMS = (
    Claim(
        "asymmetry_correlates",
        "The asymmetry factor correlates with the test loss.",
        "Abstract, contribution 5, Figure 5",
        "Pearson's r of Ω with the test loss is positive.",
        asymmetry.asymmetry_correlates(),
    ),
    Claim(
        "asymmetry_is_moderately_strong",
        "The positive correlation between the test error and the asymmetry factor is moderately "
        "strong.",
        "Section 5.3, Figure 5",
        "Pearson's r of Ω with the test loss is above 0.3, a medium one in the words of Cohen "
        "(1988).",
        asymmetry.asymmetry_correlates(MODERATE),
    ),
    Claim(
        "sam_is_the_most_asymmetric",
        "Small-batch SAM has the strongest bias towards asymmetric minima.",
        "Introduction, contribution 5",
        "The mean Ω of small-batch SAM is below that of every other group.",
        parts.lowest_of("small-batch SAM", FACTOR),
    ),
    Claim(
        "sam_beats_sgd",
        "Small-batch SAM performs better than SGD.",
        "Section 5",
        "The mean test loss of small-batch SAM is below that of SGD.",
        parts.sam_beats_sgd,
    ),
    Claim(
        "sam_is_the_best",
        "Small-batch SAM generalises best of all.",
        "Introduction, section 5, conclusion",
        "The mean test loss of small-batch SAM is below that of every other group.",
        parts.lowest_of("small-batch SAM", TEST_LOSS),
    ),
    Claim(
        "best_of_table_1",
        "128-SAM with ρ = 0.1 has the best test loss, with ρ = 0.2 the best accuracy.",
        "Caption of Table 1",
        "They have the lowest mean test loss and the highest mean accuracy of all models.",
        parts.best_of_table_1,
    ),
    Claim(
        "best_training_is_not_best",
        "5000-avg-SAM with ρ = 1 obtains the best training loss and generalises worse than "
        "128-SAM.",
        "Caption of Table 1",
        "It has the lowest mean training loss of all models, and a mean test loss above that of "
        "small-batch SAM.",
        parts.best_training_is_not_best,
    ),
    Claim(
        "sam_is_flat",
        "Small-batch SAM finds flatter minima than the others.",
        "Section 5.1, conclusion",
        "The mean adversarial sharpness of small-batch SAM is below that of every other group, "
        "with the small and with the large m (ρ = 0.1).",
        parts.lowest_of(
            "small-batch SAM",
            Quantity("adversarial_sharpness", "small", 0.1),
            Quantity("adversarial_sharpness", "large", 0.1),
        ),
    ),
    Claim(
        "large_m_is_poor_by_loss",
        "The loss at 5000-perturbed points correlates poorly with the test loss.",
        "Section 5.2, Figure 3, conclusion",
        "Pearson's r of the adversarial loss of the large m with the test loss is below 0.5: no "
        "large positive correlation, as a proxy of the test loss has.",
        parts.poorly_correlated("adversarial_loss", ("large",), parts.RHOS),
    ),
    Claim(
        "large_m_is_poor_by_sharpness",
        "5000-sharpness correlates poorly with the test loss.",
        "Section 5.2, conclusion",
        "The same of the adversarial sharpness, the difference that its name stands for, which "
        "the study did not correlate.",
        parts.poorly_correlated("adversarial_sharpness", ("large",), parts.RHOS),
    ),
    Claim(
        "small_m_is_better_by_loss",
        "The loss at 5000-perturbed points is a worse proxy for the test loss than at "
        "128-perturbed ones.",
        "Section 5.2, Figure 3",
        "Pearson's r of the adversarial loss with the test loss is higher for the small m.",
        parts.small_is_the_better_proxy("adversarial_loss"),
    ),
    Claim(
        "small_m_is_better_by_sharpness",
        "5000-sharpness is a worse proxy for the test loss than 128-sharpness.",
        "Section 5.2",
        "The same of the adversarial sharpness.",
        parts.small_is_the_better_proxy("adversarial_sharpness"),
    ),
    Claim(
        "average_measures_are_poor",
        "Average perturbation measures correlate poorly with the test loss.",
        "Figure 10",
        "Pearson's r of the loss at randomly perturbed points with the test loss is below 0.5, "
        "in every setting.",
        parts.poorly_correlated("average_loss", ("small", "large"), parts.SIGMAS),
    ),
    Claim(
        "own_measure_by_loss",
        "Each SAM optimiser minimises the perturbed loss that it trains for.",
        "Expected in the captions of Tables 2 and 5, asked by contribution 4",
        "Of all models, each SAM model has the lowest adversarial loss with its own m and ρ.",
        parts.minimises_its_own("adversarial_loss"),
    ),
    Claim(
        "own_measure_by_sharpness",
        "Each SAM optimiser minimises its own sharpness measure.",
        "Expected in the captions of Tables 2 and 5, asked by contribution 4",
        "Of all models, each SAM model has the lowest adversarial sharpness with its own m and ρ.",
        parts.minimises_its_own("adversarial_sharpness"),
    ),
    Claim(
        "as_flat_by_large_m",
        "128-SAM reaches about the same perturbed loss as 5000-SAM, measured with m = 5000.",
        "Section 5.2, Table 2",
        "The means of small- and large-batch SAM differ by less than a tenth (90% intervals: two "
        "one-sided tests at 5%).",
        parts.as_flat_by_large_batches,
    ),
    Claim(
        "larger_rho_is_flatter",
        "128-SAM with ρ = 0.1 is better than with ρ = 0.05 at minimising the loss of ρ = 0.05.",
        "Caption of Table 2",
        "Its mean adversarial loss with the small m and ρ = 0.05 is lower.",
        parts.larger_rho_is_flatter,
    ),
    Claim(
        "average_is_flatter",
        "Average 5000-SAM performs better than adversarial 5000-SAM at the losses of m = 5000.",
        "Caption of Table 2",
        "Its mean adversarial loss with the large m is lower, for every ρ.",
        parts.average_is_flatter,
    ),
    Claim(
        "sometimes_sharper",
        "In some instances SAM is drawn to minima of a higher sharpness than other optimisers.",
        "Abstract",
        "Large-batch SAM has a higher adversarial sharpness (ρ = 0.1) than SGD with at least one "
        "m (97.5% intervals).",
        parts.sometimes_sharper,
        combine="any",
    ),
    Claim(
        "average_sam_does_not_improve",
        "Average SAM does not improve generalisation.",
        "Introduction, section 5.3",
        "Average SAM lowers the mean test loss of SGD by less than 5% of it, at either batch.",
        parts.average_does_not_improve,
    ),
    Claim(
        "average_sam_is_constant",
        "The test loss of average SAM is almost constant.",
        "Section 5.3",
        "The mean test loss of each average SAM is within a tenth of that of the others (90% "
        "intervals: two one-sided tests at 5%).",
        parts.average_is_constant,
    ),
    Claim(
        "average_factors_range",
        "The models of average SAM have a range of asymmetry factors.",
        "Section 5.3",
        "Of the average SAMs, the mean Ω of the highest is above that of the lowest (an interval "
        "for the most different of all pairs).",
        asymmetry.average_factors_range,
    ),
    Claim(
        "batch_rules_curves",
        "The batch and not the optimiser determines the sharpness (loss curves).",
        "Section 5.3, Figure 6",
        "The batch changes the rise of the loss at the ends of the curves of Figure 6 by more "
        "than the choice of SAM or average SAM does: each large-batch group rises faster than "
        "the small-batch group of the other optimiser.",
        asymmetry.batch_rules(Quantity("curve_rise")),
    ),
    Claim(
        "batch_rules_sharpness",
        "The batch and not the optimiser determines the sharpness (adversarial sharpness).",
        "Section 5.3",
        "The same of the adversarial sharpness (ρ = 0.1) with the small and the large m.",
        asymmetry.batch_rules(
            Quantity("adversarial_sharpness", "small", 0.1),
            Quantity("adversarial_sharpness", "large", 0.1),
        ),
    ),
    Claim(
        "basins_by_curve",
        "128-SAM and SGD, and 128-SAM and 5000-SAM, lie in different basins of the test loss.",
        "Abstract, contribution 3, section 5.1, Figures 2 and 8",
        "Along the trained curve the test loss rises above the higher of its ends by more than a "
        "tenth of their mean. A curve without such a rise is a way around: in every seed it "
        "refutes the claim. One with it leaves it undecided, for another curve may be without. "
        "The study's own curves say nothing: in every committed version of its code, and in its "
        "four released planes, the curves do not connect the models and the test labels are "
        "wrong.",
        curves.separated_by_curves,
    ),
    Claim(
        "basins_by_line",
        "The same pairs are separated by a barrier along the straight line between them.",
        "Abstract, contribution 3",
        "The same rise along the straight line, batch norm recalibrated. The study drew no lines.",
        curves.separated_by_lines,
    ),
    Claim(
        "connected",
        "The same pairs can be connected by a polygonal chain, of low training loss for most of "
        "its trajectory.",
        "Section 5.1, Figures 2 and 8",
        "More than half of the trained curve has a training loss of at most 1.1 times that of the "
        "higher of its ends, in every seed. A curve that has not leaves the claim undecided, for "
        "another may have. The study's own curves say nothing, as above.",
        curves.connected,
    ),
    Claim(
        "contours_are_sharper",
        "The contour maps show sharper minima for batches of 5000.",
        "Section 5.2, Figure 4",
        "The share of the plane of Figure 4 where the training loss is less than 0.5 above that "
        "of the model is smaller for the large batch. The study names no number that a map gives.",
        parts.smaller_basins,
    ),
    Claim(
        "longer_is_worse",
        "SGD over 400 epochs does worse than over 200.",
        "Section 5",
        "The mean test loss of SGD is higher after twice the epochs.",
        parts.longer_is_worse,
    ),
)
