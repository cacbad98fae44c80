"""The difference of two correlations, and what would decide: against draws of known laws."""

import math

import numpy as np
import pytest
import scipy.stats

from sam_jax import statistics
from sam_jax.statistics.correlation_difference import correlation_difference
from sam_jax.statistics.sample_size import models_needed, seeds_needed


def test_the_difference_of_correlations_covers_at_its_rate():
    # Of a trivariate normal law with r(x, z) = .6, r(y, z) = .3, r(x, y) = .5; 400 samples of 30.
    law = np.array([[1, 0.5, 0.6], [0.5, 1, 0.3], [0.6, 0.3, 1]])
    rng = np.random.default_rng(3)
    hits = positive = 0
    for _ in range(400):
        found = correlation_difference(*rng.multivariate_normal(np.zeros(3), law, size=30).T)
        hits += found.interval.low <= 0.3 <= found.interval.high
        positive += found.interval.low > 0
    # Four binomial standard errors, sqrt(.95 * .05 / 400) = 0.011; the interval is approximate.
    assert hits / 400 == pytest.approx(0.95, abs=0.045)
    assert 0.1 < positive / 400 < 0.9  # not by being wide


def test_the_difference_of_correlations_of_a_measure_with_itself_is_none():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 12))
    found = correlation_difference(x, -z, z)
    assert found.difference == pytest.approx(np.corrcoef(x, z)[0, 1] + 1)
    assert math.isnan(found.interval.low)  # r = -1 has no interval
    y = x + 1e-6 * rng.normal(size=12)
    found = correlation_difference(x, y, z)
    # With c = 1 what is left is the difference of the two arms of Fisher's interval.
    low, high = statistics.correlation(x, z, resamples=1).fisher_interval
    r = np.corrcoef(x, z)[0, 1]
    arms = abs((high - r) - (r - low))
    assert found.interval == pytest.approx((-arms, arms), abs=1e-4)
    assert arms < 0.1 < high - low  # as wide as the interval itself if c were zero
    assert correlation_difference(x, y, np.ones(12)).n == 12


def test_seeds_needed_have_the_power_that_they_say():
    rng = np.random.default_rng(1)
    pairs = rng.normal(size=(2, 5)) + [[0.4], [0.0]]
    found = statistics.mean_difference(*pairs, paired=True)
    n = seeds_needed(found)
    deviation = found.stderr * math.sqrt(5)
    drawn = found.difference + deviation * rng.normal(size=(4000, n))
    rejected = np.mean(scipy.stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05)
    # The smallest n with at least 80%; four binomial errors are 0.025, a seed more is below 0.1.
    assert 0.775 < rejected < 0.9
    assert seeds_needed(found, level=0.01) > n
    same = statistics.mean_difference([1.0, 2.0], [1.0, 2.0], paired=True)
    assert seeds_needed(same) is None


def test_models_needed_have_the_power_that_they_say():
    n, r = models_needed(0.6), 0.6
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1500, n))
    y = r * x + math.sqrt(1 - r**2) * rng.normal(size=(1500, n))
    rejected = np.mean(
        [scipy.stats.pearsonr(a, b).pvalue < 0.05 for a, b in zip(x, y, strict=True)]
    )
    assert 0.76 < rejected < 0.87  # four binomial errors are 0.04, and n is rounded up
    assert models_needed(0.6, 0.5) > 10 * n
    assert models_needed(1.0) is None and models_needed(math.nan) is None
