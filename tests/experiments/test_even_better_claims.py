"""Claims of known truth, from synthetic numbers, and those of the study's own tables."""

import csv
import html
import math

import numpy as np
import pytest
import scipy.stats

from experiments.even_better.claims import asymmetry as claim_asymmetry
from experiments.even_better.claims import evidence
from experiments.even_better.claims import losses as claim_parts
from experiments.even_better.claims.claims import CLAIMS
from experiments.even_better.claims.evidence import Connected, Evidence, ModelKey, Quantity
from experiments.even_better.pages.claims import write_tested
from experiments.study.claims import Part, combined
from experiments.study.evidence import compare
from experiments.study.verdicts import claims_csv
from experiments.study.verdicts import test_claims as on_all
from sam_jax import statistics

MODELS = evidence.study().models
BATCHES = {"small": 32, "large": 144}
BY_KEY = {claim.key: claim for claim in CLAIMS}
SMALL_SAM = {("sam", "small")}
LARGE = {("sam", "large"), ("average_sam", "large")}


def made(truth, seeds=8, noise=0.01, models=MODELS, seed=0):
    """Evidence whose quantities are truth(model, quantity) and noise of every seed."""

    def values(quantity):
        rng = np.random.default_rng([seed, len(quantity.name)])
        means = np.array([truth(ModelKey(*model), quantity) for model in models], dtype=float)
        if not seeds:
            return means[:, None]
        return means[:, None] + noise * rng.normal(size=(len(models), seeds))

    return Evidence("made", tuple(models), BATCHES, seeds, values)


def said(key, truth, **arguments):
    claim = BY_KEY[key]
    return claim.verdict(claim.parts(made(truth, **arguments)))


def low_for(groups, amount=1.0):
    return lambda model, _: 1.0 - amount * (model[:2] in groups)


def own_measure(model, quantity):
    """Lowest for the model that was trained with the measure's m and rho."""
    own = model == ("sam", quantity.measured_batch, quantity.measured_rho)
    return 1.0 - 0.5 * own


def batch_wins(model, _):
    return 1.0 + 2.0 * (model.batch == "large") + 0.5 * (model.optimiser == "sam")


def optimiser_wins(model, _):
    return 1.0 + 0.5 * (model.batch == "large") + 2.0 * (model.optimiser == "sam")


def by_index(model, quantity):
    """The test loss rises with the model's place, and so do small-m measures."""
    place = MODELS.index(model)
    if quantity.name == "test_loss" or quantity.measured_batch == "small":
        return float(place)
    return [3, 5, 1, 8, 0, 9, 2, 7, 4, 6][place] / 1.0  # r = 0.26 with the place


def alike(model, quantity):
    return float(MODELS.index(model))


def opposed(model, quantity):
    return MODELS.index(model) * (1.0 if quantity.name == "test_loss" else -1.0)


def good_average(model, quantity):
    """Large-batch average SAM of rho 1 is the lowest in all but the test loss."""
    best = model == ("average_sam", "large", 1.0)
    return 1.0 - 0.5 * best if quantity.name == "train_loss" else 1.0 + 0.5 * best


def rows_of_table_1(model, quantity):
    better = {"test_loss": (0.1, -0.5), "test_accuracy": (0.2, 0.5)}[quantity.name]
    return 1.0 + better[1] * (model == ("sam", "small", better[0]))


# key, a world in which the claim is true, one in which it is false
WORLDS = [
    ("asymmetry_correlates", alike, opposed),
    ("asymmetry_is_moderately_strong", alike, opposed),
    ("best_of_table_1", rows_of_table_1, low_for({("sgd", "small")})),
    ("best_training_is_not_best", good_average, low_for({("average_sam", "small")})),
    (
        "larger_rho_is_flatter",
        lambda model, _: 1.0 - 0.5 * (model == ("sam", "small", 0.1)),
        lambda model, _: 1.0 - 0.5 * (model == ("sam", "small", 0.05)),
    ),
    ("average_is_flatter", low_for({("average_sam", "large")}), low_for({("sam", "large")})),
    ("sam_is_the_most_asymmetric", low_for(SMALL_SAM), low_for({("average_sam", "large")})),
    ("sam_beats_sgd", low_for(SMALL_SAM), low_for({("sgd", "small")})),
    ("sam_is_the_best", low_for(SMALL_SAM), low_for({("sgd", "small")})),
    ("sam_is_flat", low_for(SMALL_SAM), low_for({("sam", "large")})),
    ("large_m_is_poor_by_loss", opposed, alike),
    ("large_m_is_poor_by_sharpness", opposed, alike),
    ("small_m_is_better_by_loss", by_index, None),
    ("small_m_is_better_by_sharpness", by_index, None),
    ("average_measures_are_poor", opposed, alike),
    ("own_measure_by_loss", own_measure, low_for({("sgd", "small")})),
    ("own_measure_by_sharpness", own_measure, low_for({("average_sam", "large")})),
    ("as_flat_by_large_m", low_for(()), low_for(SMALL_SAM, 0.5)),
    ("sometimes_sharper", low_for({("sgd", "small")}), low_for({("sam", "large")})),
    ("average_sam_does_not_improve", low_for(()), low_for({("average_sam", "small")}, 0.5)),
    ("average_sam_is_constant", low_for(()), low_for({("average_sam", "small")}, 0.5)),
    ("batch_rules_curves", batch_wins, optimiser_wins),
    ("batch_rules_sharpness", batch_wins, optimiser_wins),
    ("contours_are_sharper", low_for(LARGE), low_for({("sam", "small"), ("average_sam", "small")})),
]
# Not of the quantities of the ten models: tested on their own.
OTHERS = [
    "average_factors_range",
    "basins_by_curve",
    "basins_by_line",
    "connected",
    "longer_is_worse",
]


@pytest.mark.parametrize(("key", "true", "false"), WORLDS, ids=[w[0] for w in WORLDS])
def test_verdicts_where_the_truth_is_known(key, true, false):
    assert said(key, true) == "holds"
    if false is not None:
        assert said(key, false) == "fails"
    # Nothing but noise decides no direction; that two are alike needs more than a wide interval.
    assert said(key, lambda model, _: 1.0, noise=1.0, seeds=3) != "holds"
    assert said(key, lambda model, _: math.nan) == "no data"


def test_the_worlds_are_of_all_claims():
    assert sorted([world[0] for world in WORLDS] + OTHERS) == sorted(BY_KEY)


@pytest.mark.parametrize("shape", ["curve", "line"])
def test_a_barrier_makes_two_basins(shape):
    noise = 0.01 * np.random.default_rng(0).normal(size=5)
    claim = BY_KEY[f"basins_by_{shape}"]

    def verdict(*heights):
        pairs = []
        for height in heights:
            # What the other shape has decides nothing.
            nothing = {name: np.full(5, np.nan) for name in ("curve", "line", "low_share")}
            pairs.append(Connected("a pair", **nothing | {shape: height + noise}))
        found = made(low_for(()))._replace(connections=tuple(pairs))
        return claim.verdict(claim.parts(found))

    # A trained curve with a rise proves nothing, for there are others.
    assert verdict(0.5, 0.3) == ("holds" if shape == "line" else "undecided")
    assert verdict(0.5, 0.0) == "fails"  # one pair without a barrier is enough
    assert verdict(0.1) == "undecided"
    assert verdict() == "no data"
    assert verdict(math.nan) == "no data" and verdict(0.5, math.nan) == "undecided"


def test_a_way_around_in_every_seed_refutes_two_basins():
    claim, nothing = BY_KEY["basins_by_curve"], np.full(2, np.nan)

    def verdict(*rises):
        pair = Connected("a pair", np.array(rises), nothing, nothing)
        parts = claim.parts(made(low_for(()))._replace(connections=(pair,)))
        assert math.isnan(parts[0].interval.low) == (np.ptp(rises) == 0)  # no spread, no interval
        return claim.verdict(parts)

    assert verdict(0.0, 0.0) == "fails"
    assert verdict(0.0, 0.05) == "fails"
    assert verdict(0.0, 0.2) == "undecided"
    # Of a straight line equal rises say nothing about other seeds.
    line = Connected("a pair", nothing, np.zeros(2), nothing)
    by_line = BY_KEY["basins_by_line"]
    parts = by_line.parts(made(low_for(()))._replace(connections=(line,)))
    assert by_line.verdict(parts) == "undecided"


def test_chains_of_low_training_loss_connect():
    claim, nothing = BY_KEY["connected"], np.full(2, np.nan)

    def verdict(*shares):
        pairs = tuple(Connected("a pair", nothing, nothing, np.array(each)) for each in shares)
        return claim.verdict(claim.parts(made(low_for(()))._replace(connections=pairs)))

    assert verdict([1.0, 1.0], [0.6, 0.9]) == "holds"
    assert verdict([1.0, 0.4], [1.0, 1.0]) == "undecided"
    assert verdict([0.0, 0.0]) == "undecided"  # another curve may be low
    assert verdict() == "no data"


def test_more_epochs_of_sgd():
    claim, rng = BY_KEY["longer_is_worse"], np.random.default_rng(0)

    def verdict(longer):
        values = longer + 0.01 * rng.normal(size=(1, 8))
        found = made(low_for(()))._replace(longer=lambda quantity: values)
        return claim.verdict(claim.parts(found))

    assert (verdict(1.5), verdict(0.5)) == ("holds", "fails")
    assert said("longer_is_worse", low_for(())) == "no data"
    (part,) = claim.parts(evidence.study())
    assert part.effect == pytest.approx(0.2492 - (0.2197 + 0.2233) / 2)
    assert part.verdict == "undecided" and part.n == "1 and 2 runs"


def test_the_most_different_of_the_factors_are_chosen_among_all_pairs():
    def verdicts(truth, **arguments):
        return [said("average_factors_range", truth, seed=s, **arguments) for s in range(200)]

    differing = lambda model, _: 1.0 + 0.5 * (model.batch == "large")  # noqa: E731
    assert set(verdicts(differing)) == {"holds"}
    # Without a difference it holds by chance in at most 5% of the worlds: here fewer than 19 of
    # 200, which has a probability of 1%. Uncorrected, the most different of four would in 20%.
    assert verdicts(lambda model, _: 1.0, noise=1.0, seeds=4).count("holds") < 19
    assert said("average_factors_range", lambda model, _: math.nan) == "no data"


def test_a_worse_small_m_fails():
    def swapped(model, quantity):
        other = {"small": "large", "large": "small"}.get(quantity.measured_batch)
        return by_index(model, quantity._replace(measured_batch=other))

    assert said("small_m_is_better_by_loss", swapped) == "fails"


def test_seeds_are_paired_and_nothing_is_decided_by_chance():
    # A common part of every seed, much larger than the difference, drops out.
    rng = np.random.default_rng(0)
    common = 10 * rng.normal(size=6)

    def values(quantity):
        means = np.array([1.0 - 0.1 * (m[:2] == ("sam", "small")) for m in MODELS])
        return means[:, None] + common + 0.01 * rng.normal(size=(10, 6))

    parts = claim_parts.sam_beats_sgd(Evidence("paired", MODELS, BATCHES, 6, values))
    (part,) = parts
    assert part.verdict == "holds" and part.n == "6 seeds"
    assert part.effect == pytest.approx(-0.1, abs=0.03)


def test_false_verdicts_are_rare():
    # Two-sided intervals of 95%: a claim about a difference of zero holds in 2.5% of the worlds
    # and fails in as many; of 200, 12 and more of either have a probability of 0.2%.
    verdicts = [
        said("sam_beats_sgd", lambda model, _: 1.0, noise=1.0, seeds=4, seed=seed)
        for seed in range(200)
    ]
    assert verdicts.count("holds") < 12 and verdicts.count("fails") < 12
    assert 180 <= verdicts.count("undecided") < 200  # and chance does strike


def test_single_runs_of_single_models_decide_nothing():
    parts = claim_parts.sam_beats_sgd(made(low_for(SMALL_SAM), seeds=0))
    assert [part.verdict for part in parts] == ["undecided"]
    assert parts[0].n == "3 and 1 runs" and math.isnan(parts[0].interval.low)
    assert parts[0].needed == "repeated runs"
    assert said("sam_beats_sgd", low_for(SMALL_SAM), seeds=1) == "undecided"


def test_models_that_were_not_trained_or_diverged_leave_a_claim_undecided():
    models = [model for model in MODELS if model[0] != "average_sam"]
    assert said("average_sam_does_not_improve", low_for(()), models=models) == "no data"
    assert said("sam_is_the_best", low_for(SMALL_SAM), models=models) == "undecided"
    assert said("sam_beats_sgd", low_for(SMALL_SAM), models=models[1:]) == "no data"
    # What the others decide against the claim stays.
    assert said("sam_is_the_best", low_for({("sgd", "small")}), models=models) == "fails"
    for value in (math.nan, math.inf):
        lost = lambda model, _: value if model == ("sgd", "small", 0.0) else 1.0  # noqa: B023, E731
        better = lambda model, q: lost(model, q) - 0.5 * (model[:2] in SMALL_SAM)  # noqa: B023, E731
        assert said("sam_is_the_best", better) == said("sam_is_flat", better) == "undecided"
    half = [model for model in MODELS if model[:2] != ("average_sam", "large")]
    assert said("average_sam_does_not_improve", low_for(()), models=half) == "undecided"
    assert said("average_sam_does_not_improve", low_for(())) == "holds"


@pytest.mark.parametrize(
    ("verdicts", "every", "any_one"),
    [
        (["holds", "holds"], "holds", "holds"),
        (["holds", "undecided"], "undecided", "holds"),
        (["holds", "fails"], "fails", "holds"),
        (["fails", "undecided"], "fails", "undecided"),
        (["fails", "fails"], "fails", "fails"),
        ([], "no data", "no data"),
        (["no data", "no data"], "no data", "no data"),
        (["holds", "no data"], "undecided", "holds"),
        (["fails", "no data"], "fails", "undecided"),
    ],
)
def test_combined(verdicts, every, any_one):
    parts = [Part("", "", 0.0, statistics.Interval(0, 0), 0.95, verdict) for verdict in verdicts]
    assert combined(parts, "all") == every and combined(parts, "any") == any_one


def test_the_studys_own_tables():
    verdicts = {t.claim.key: t.verdict for t in on_all([evidence.study()], CLAIMS)}
    # What its ten runs decide: by the difference the large m correlates well, against the text;
    # by the perturbed loss the small m is the better proxy, as the text says.
    assert verdicts.pop("large_m_is_poor_by_sharpness") == "fails"
    assert verdicts.pop("small_m_is_better_by_loss") == "holds"
    # And its second runs of SGD and of a SAM tell these two apart.
    assert verdicts.pop("sam_beats_sgd") == "holds"
    unknown = ("batch_rules_curves", "contours_are_sharper", "basins_by_curve", "basins_by_line")
    assert {verdicts.pop(key) for key in (*unknown, "connected")} == {"no data"}
    assert set(verdicts.values()) == {"undecided"}
    # As printed, with two columns swapped, the second would be another number.
    claim = BY_KEY["small_m_is_better_by_loss"]
    corrected, printed = (claim.parts(evidence.study(flag))[0].effect for flag in (False, True))
    assert abs(corrected - printed) > 0.1


def test_second_runs_of_the_study_join_their_groups():
    (part,) = claim_parts.sam_beats_sgd(evidence.study())
    sam, sgd = [0.1879, 0.1741, 0.1829, 0.1724], [0.2197, 0.2233]
    welch = scipy.stats.ttest_ind(sam, sgd, equal_var=False)
    assert part.n == "4 and 2 runs"
    assert part.effect == pytest.approx(np.mean(sam) - np.mean(sgd))
    assert part.interval == pytest.approx(tuple(welch.confidence_interval()))
    # One run of each is in the table: without the second ones nothing is decided.
    (alone,) = claim_parts.sam_beats_sgd(evidence.study()._replace(second_runs={}))
    assert alone.n == "3 and 1 runs" and alone.verdict == "undecided"
    # Only the table has sharpness, and correlations are over its ten models.
    assert evidence.study().values(Quantity("test_loss")).shape == (10, 1)
    column = Quantity("adversarial_sharpness", "small", 0.1)
    found = compare(evidence.study(), [1, 2, 3], [0], column)
    assert found.n == (3, 1)


def test_the_studys_asymmetry():
    everyone, nine = claim_asymmetry.asymmetry_correlates()(evidence.study())
    assert (everyone.n, nine.n) == ("10 models", "9 models")
    assert (everyone.effect, nine.effect) == pytest.approx((0.3585, 0.5272), abs=1e-3)
    # 3 + ((1.960 + 0.842) / artanh r)^2.
    assert nine.needed == "about 26 models"


def test_the_page_and_its_tables_have_every_part(tmp_path):
    bodies = [evidence.study(), made(low_for(SMALL_SAM))]
    found = on_all(bodies, CLAIMS)
    rows = list(csv.DictReader(claims_csv(found).splitlines()))
    assert {(row["claim"], row["evidence"]) for row in rows} == {
        (claim.key, body.name) for claim in CLAIMS for body in bodies
    }
    assert len(rows) == sum(max(len(tested.parts), 1) for tested in found)
    write_tested(found, tmp_path)
    page = html.unescape((tmp_path / "claims.html").read_text())
    text = (tmp_path / "tables/claims.md").read_text()
    for claim in CLAIMS:
        assert claim.statement in page and claim.statement in text
    # Verdicts: one of every claim and body, and one of every part.
    count = page.count('class="undecided"')
    assert count == sum(
        (t.verdict == "undecided") + sum(p.verdict == "undecided" for p in t.parts) for t in found
    )


def test_evidence_of_the_study_is_its_tables():
    body = evidence.study()
    assert body.values(Quantity("test_loss")).shape == (10, 1)
    assert body.values(Quantity("test_loss"))[0, 0] == 0.2197
    column = Quantity("adversarial_loss", "large", 0.05)
    assert body.values(column)[0, 0] == 0.258
    assert evidence.study(printed=True).values(column)[0, 0] == 0.295
    assert np.isnan(body.values(Quantity("curve_rise"))).all()
    assert body.group("sam", "small") == [1, 2, 3] and body.group("sam", "small", 0.1) == [2]
