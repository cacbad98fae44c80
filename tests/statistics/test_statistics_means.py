"""Means, their differences, the seeds these take, and verdicts on claims."""

import math

import numpy as np
import pytest
import scipy.stats

from sam_jax.statistics import mean_and_stderr, mean_difference, seeds_to_separate, verdict


def test_mean_and_stderr_by_hand():
    # Deviations -3, -1, 4: s^2 = 26 / 2, and the standard error is s / sqrt(3).
    found = mean_and_stderr([2.0, 4.0, 9.0])
    assert found == pytest.approx((5.0, math.sqrt(13 / 3), 3))
    assert mean_and_stderr([[2.0, math.nan], [4.0, 9.0]]) == pytest.approx(found)


@pytest.mark.filterwarnings("error")
def test_means_of_too_few():
    for values, mean, n in (([3.0], 3.0, 1), ([1.0, math.inf], math.inf, 2)):
        found = mean_and_stderr(values)
        assert (found.mean, found.n) == (mean, n) and math.isnan(found.stderr)
    for values, n in (([math.nan], 0), ([], 0), ([math.inf, -math.inf], 2)):
        found = mean_and_stderr(values)
        assert math.isnan(found.mean) and math.isnan(found.stderr) and found.n == n


def test_paired_difference_by_hand():
    # Differences 1, 2, 3: mean 2, s = 1; t(0.975, 2) = 4.302653 and p for t = 2 sqrt(3) with two
    # degrees of freedom is 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14).
    found = mean_difference([2.0, 5.0, 7.0], [1.0, 3.0, 4.0], paired=True)
    assert found[:3] == pytest.approx((2.0, 1 / math.sqrt(3), 2.0))
    half = 4.3026527297 / math.sqrt(3)
    assert found.interval == pytest.approx((2 - half, 2 + half))
    assert found.p_value == pytest.approx(1 - math.sqrt(12 / 14))
    assert found.cohens_d == pytest.approx(2.0)
    assert found.n == (3, 3)


def test_unpaired_difference_by_hand():
    # Means 2 and 5, variances 1 over 3 and 10 over 5: e = 1 / 3, e' = 2; the degrees of freedom
    # are (7 / 3)^2 / (1 / 18 + 4 / 4), the pooled variance (2 * 1 + 4 * 10) / 6 = 7.
    found = mean_difference([1.0, 2.0, 3.0], [1.0, 3.0, 5.0, 7.0, 9.0])
    assert found.difference == -3.0
    assert found.stderr == pytest.approx(math.sqrt(7 / 3))
    assert found.degrees_of_freedom == pytest.approx((49 / 9) / (19 / 18))
    assert found.cohens_d == pytest.approx(-3 / math.sqrt(7))
    assert found.n == (3, 5)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_differences_by_scipy(paired, confidence):
    rng = np.random.default_rng(0)
    values, others = rng.normal(size=7), 3 * rng.normal(size=7 if paired else 11)
    found = mean_difference(values, others, paired=paired, confidence=confidence)
    test = scipy.stats.ttest_rel if paired else scipy.stats.ttest_ind
    expected = test(values, others, **({} if paired else {"equal_var": False}))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == pytest.approx(expected.df)
    assert found.difference / found.stderr == pytest.approx(expected.statistic)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(confidence)))


def test_pairs_share_what_the_unpaired_test_takes_for_noise():
    rng = np.random.default_rng(1)
    seeds = rng.normal(size=8)
    values, others = seeds + 0.1 + 0.02 * rng.normal(size=8), seeds
    assert mean_difference(values, others, paired=True).p_value < 0.001
    assert mean_difference(values, others).p_value > 0.5


def test_swapping_the_models_changes_the_signs():
    values, others = [1.0, 2.0, 4.0], [2.0, 2.5, 7.0]
    for paired in (True, False):
        found = mean_difference(values, others, paired=paired)
        swapped = mean_difference(others, values, paired=paired)
        assert swapped.interval == pytest.approx((-found.interval.high, -found.interval.low))
        assert swapped.cohens_d == pytest.approx(-found.cohens_d)
        assert swapped.p_value == pytest.approx(found.p_value)
        assert found.difference < 0 < swapped.difference


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_of_differences_cover_at_their_rate(paired):
    rng = np.random.default_rng(2)
    draws, truth = 1000, 0.7
    intervals = np.array(
        [
            mean_difference(
                truth + rng.normal(size=4), 2 * rng.normal(size=4 if paired else 6), paired=paired
            ).interval
            for _ in range(draws)
        ]
    )

    def rate(value):
        return np.mean((intervals[:, 0] <= value) & (value <= intervals[:, 1]))

    # Four binomial standard errors are 0.028; Welch's law is within 0.01 at these sizes.
    assert rate(truth) == pytest.approx(0.95, abs=0.038)
    assert rate(truth + 4) < 0.8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("paired", [True, False])
def test_undetermined_differences(paired):
    single = mean_difference([2.0, math.nan], [1.0, math.nan], paired=paired)
    assert single.difference == 1.0 and single.n == (1, 1)
    assert np.isnan([single.stderr, single.degrees_of_freedom, single.p_value]).all()
    assert np.isnan([*single.interval, single.cohens_d]).all()
    # Runs that repeat each other, up to rounding, are no evidence about other seeds.
    equal = mean_difference([1.1, 2.1 - 1.0, 1.1], [0.3, 0.3, 0.3], paired=paired)
    assert equal.difference == pytest.approx(0.8) and equal.stderr == 0.0
    assert np.isnan([*equal.interval, equal.p_value, equal.cohens_d]).all()
    assert verdict(equal.interval, "positive") == "undecided"
    infinite = mean_difference([1.0, math.inf], [1.0, 2.0], paired=paired)
    assert infinite.difference == math.inf and math.isnan(infinite.p_value)
    both = mean_difference([2.0, math.inf], [1.0, math.inf], paired=paired)
    assert math.isnan(both.difference) and both.n == (2, 2)
    none = mean_difference([], [], paired=paired)
    assert math.isnan(none.difference) and none.n == (0, 0)


def test_pairs_with_nan_are_left_out_as_pairs():
    found = mean_difference(
        [2.0, 5.0, math.nan, 7.0, 1.0], [1.0, 3.0, 9.0, 4.0, math.nan], paired=True
    )
    assert found == mean_difference([2.0, 5.0, 7.0], [1.0, 3.0, 4.0], paired=True)


def test_differences_that_do_not_pair():
    with pytest.raises(ValueError, match="one length"):
        mean_difference([1.0, 2.0], [1.0, 2.0, 3.0], paired=True)
    with pytest.raises(ValueError, match="vector"):
        mean_difference([[1.0, 2.0]], [1.0, 2.0])
    with pytest.raises(ValueError, match="confidence"):
        mean_difference([1.0, 2.0], [1.0, 2.0], confidence=1.0)


# ---------------------------------------------------------------------------- seeds


@pytest.mark.parametrize(
    ("effect", "unpaired", "paired"), [(0.2, 394, 199), (0.5, 64, 34), (0.8, 26, 15)]
)
def test_seeds_by_the_standard_tables(effect, unpaired, paired):
    # Cohen's small, medium and large effects, at a power of 0.8 and a level of 0.05.
    assert seeds_to_separate(effect, 1.0) == unpaired
    assert seeds_to_separate(-effect, [1.0, 1.0]) == unpaired
    assert seeds_to_separate(effect, 1.0, paired=True) == paired


def test_seeds_scale_with_units():
    assert seeds_to_separate(0.003, [0.01, 0.02]) == seeds_to_separate(3.0, [10.0, 20.0])
    assert seeds_to_separate(0.003, [0.01, 0.02]) == seeds_to_separate(0.003, [0.02, 0.01])


@pytest.mark.parametrize("paired", [True, False])
def test_power_by_simulation_at_the_number_of_seeds(paired):
    deviations = [1.0] if paired else [1.0, 2.0]
    n = seeds_to_separate(1.5, deviations, paired=paired)
    assert 5 < n < 25

    def power(n, truth):
        rng = np.random.default_rng(3)
        values = truth + rng.normal(size=(4000, n))
        if paired:
            return np.mean(scipy.stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05)
        others = 2 * rng.normal(size=(4000, n))
        p_values = scipy.stats.ttest_ind(values, others, axis=1, equal_var=False).pvalue
        return np.mean(p_values < 0.05)

    # Four binomial standard errors, sqrt(0.8 * 0.2 / 4000) = 0.0063; one seed adds up to 0.09.
    assert 0.8 - 0.026 <= power(n, 1.5) <= 0.89 + 0.026
    assert power(n - 2, 1.5) < 0.8
    assert power(n, 0.0) < 0.07


def test_seeds_of_unequal_deviations_by_welchs_degrees_of_freedom():
    # Against a model that does not vary, the test is that of one sample.
    for effect in (0.4, 0.9, 2.0):
        one_sample = seeds_to_separate(effect, 1.0, paired=True)
        assert seeds_to_separate(effect, [1.0, 0.0]) == one_sample
    # At deviations 3 and 2: 13 / n and 169 / 97 (n - 1), at every n around the answer.
    for effect in np.linspace(2.0, 12.0, 21):
        found = seeds_to_separate(effect, [3.0, 2.0])
        sizes = np.arange(2, found + 2)
        law = scipy.stats.nct(df=169 / 97 * (sizes - 1), nc=effect / np.sqrt(13 / sizes))
        critical = scipy.stats.t.ppf(0.975, 169 / 97 * (sizes - 1))
        assert found == sizes[np.argmax(law.sf(critical) >= 0.8)]


def test_more_power_and_a_stricter_level_take_more_seeds():
    least = seeds_to_separate(1.0, 1.0)
    assert seeds_to_separate(1.0, 1.0, power=0.95) > least
    assert seeds_to_separate(1.0, 1.0, level=0.01) > least
    assert seeds_to_separate(1.0, [1.0, 0.0]) < least
    for deviations in (0.0, [1e-9, 0.0], 1e-200, 1e-9):
        assert seeds_to_separate(1.0, deviations) == 2


def test_many_seeds_by_the_normal_law():
    z = scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)
    for effect in (0.02, 0.005):
        # Student's law adds z^2 / 4 seeds, about one.
        assert seeds_to_separate(effect, 1.0) == pytest.approx(2 * (z / effect) ** 2, abs=3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"difference": 0.0}, "No number of seeds"),
        ({"difference": math.nan}, "No number of seeds"),
        ({"difference": 1e-6}, "more than 1000000 seeds"),
        ({"deviations": 1e200}, "more than 1000000 seeds"),
        ({"deviations": -1.0}, "zero or positive"),
        ({"deviations": math.nan}, "zero or positive"),
        ({"deviations": [1.0, 1.0, 1.0]}, "one for each"),
        ({"deviations": [1.0, 1.0], "paired": True}, "for pairs"),
        ({"power": 1.0}, "power must lie"),
        ({"level": 0.0}, "level must lie"),
        ({"power": 0.04}, "above level"),
    ],
)
def test_seeds_of_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        seeds_to_separate(**{"difference": 1.0, "deviations": 1.0, **arguments})


# ---------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("interval", "margin", "positive", "negative", "equivalent"),
    [
        ((0.1, 0.4), 0.0, "holds", "fails", None),
        ((-0.4, -0.1), 0.0, "fails", "holds", None),
        ((-0.1, 0.4), 0.0, "undecided", "undecided", None),
        ((0.0, 0.4), 0.0, "undecided", "fails", None),
        ((0.1, 0.4), 0.2, "undecided", "fails", "undecided"),
        ((0.1, 0.4), 0.5, "fails", "fails", "holds"),
        ((0.2, 0.4), 0.2, "undecided", "fails", "fails"),
        ((-0.4, -0.3), 0.2, "fails", "holds", "fails"),
        ((-0.1, 0.2), 0.2, "fails", "fails", "undecided"),
        ((-math.inf, math.inf), 0.2, "undecided", "undecided", "undecided"),
        ((math.nan, math.nan), 0.2, "undecided", "undecided", "undecided"),
        ((math.nan, 0.1), 0.2, "undecided", "undecided", "undecided"),
    ],
)
def test_verdicts(interval, margin, positive, negative, equivalent):
    assert verdict(interval, "positive", margin=margin) == positive
    assert verdict(interval, "negative", margin=margin) == negative
    if equivalent:
        assert verdict(interval, "equivalent", margin=margin) == equivalent


def test_verdicts_by_the_points_of_the_interval():
    claims = {
        "positive": lambda e, margin: e > margin,
        "negative": lambda e, margin: e < -margin,
        "equivalent": lambda e, margin: abs(e) < margin,
    }
    ends = np.linspace(-1, 1, 9)
    for direction, claim in claims.items():
        for margin in (0.25, 0.5):
            for low in ends:
                for high in ends[ends >= low]:
                    fits = {bool(claim(e, margin)) for e in np.linspace(low, high, 65)}
                    expected = {(True,): "holds", (False,): "fails"}.get(tuple(fits), "undecided")
                    assert verdict((low, high), direction, margin=margin) == expected


def test_false_verdicts_are_as_rare_as_the_interval_says():
    rng = np.random.default_rng(4)
    intervals = [
        mean_difference(rng.normal(size=5), rng.normal(size=5)).interval for _ in range(800)
    ]
    wrong = [verdict(i, d) == "holds" for i in intervals for d in ("positive", "negative")]
    # At most 0.05 of the samples, in either direction; four binomial standard errors are 0.031.
    assert sum(wrong) / 800 < 0.081
    assert sum(verdict(i, "positive") == "undecided" for i in intervals) / 800 > 0.9


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"direction": "up"}, "direction must be one of"),
        ({"interval": (1.0, 0.0)}, "must be \\(low, high\\)"),
        ({"margin": -1.0}, "zero or positive"),
        ({"margin": math.nan}, "zero or positive"),
        ({"direction": "equivalent"}, "margin must be positive"),
    ],
)
def test_verdicts_of_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        verdict(**{"interval": (0.0, 1.0), "direction": "positive", **arguments})
