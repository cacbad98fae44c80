"""The longer texts of the report's page."""

BOLD = (
    "Bold: the best mean of a column (highest accuracy, lowest of everything else, of Ω the lowest "
    "that is not negative, because a negative Ω means that the loss falls on one side of w*); it "
    "need not differ significantly from the next."
)
PRESETS = (
    "The sound preset measures as sam_jax/metrics/presets.py proposes: running statistics, "
    "normalised images, the same examples for every m, perturbations of fixed norm, isotropic "
    "directions. The published preset measures as the study's released code did. Every seed draws "
    "its own noise, directions and examples, the same for all its models. Beside each table are "
    "the study's own numbers (Boca, Cross, Holm and Korkmaz, 2023; MobileNetV2 on CIFAR-10, one "
    "model a row), as printed and, where its released data files disagree, as corrected."
)
BEYOND = (
    "The study has no such table; its future work asks for an asymmetry that the scale of the "
    "parameters does not change. Index and level sets: along Gaussian directions, filter by filter "
    "as long as the weights. Index: 1 − mean |a|, a = (l₊ − l₋) / (|l₊| + |l₋|), one where both "
    "sides rise alike and zero where only one does, and the mean |odd| and the even part of the "
    "rise. Level sets: how far it is on either side until the training loss has risen by a given "
    "amount, the shorter through the longer side, and the mean; a side that does not reach it "
    "counts with the largest distance in the mean, and its direction not in the ratio (“not "
    "measured” where none reaches it on both sides). Hessian of the training loss: its "
    "extreme eigenvalues (Lanczos; the bottom one lies lower still, by up to its residual in the "
    "records) and its trace (Hutchinson). Distance and rise stand with the correlations below."
)
CORRELATIONS = (
    "Over the models' seed means; n counts the models. “95% CI” is Fisher's interval, “bootstrap” "
    "that of models drawn with replacement (95%, BCa); “one left out” is the range of r when any "
    "one model is left out; “given train loss” is the correlation of what a linear regression on "
    "the training loss leaves; “p, Holm” holds however many of a table's coefficients are looked "
    "at. The study's r is recomputed from its corrected tables (10 models) and shown where the "
    "quantity is the same. p values and intervals take the models as independent, though those of "
    "a seed share their initial weights, and Spearman's are approximate for so few. With this many "
    "coefficients some uncorrected p values fall below 0.05 by chance. The CSV has the intervals "
    "of all three coefficients and the p values of permutation tests too."
)
