"""Partial correlations: the recursion, the precision matrix, uniform p values."""

import math

import numpy as np
import pytest
import scipy.stats

from sam_jax.statistics import correlation, partial_correlation

SCIPY = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}


def pairs(n):
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    return x, 0.5 * x + rng.normal(size=n)


def recursion(x, y, given, correlate):
    """The partial correlation from those of pairs, covariate after covariate."""
    if not given:
        return correlate(x, y).statistic
    *rest, last = given
    xy, xz, yz = (recursion(*pair, rest, correlate) for pair in ((x, y), (x, last), (y, last)))
    return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("covariates", [0, 1, 2, 3])
def test_partial_correlation_by_recursion(method, covariates):
    x, y = pairs(15)
    rng = np.random.default_rng(8)
    given = [rng.normal(size=15) + x - y for _ in range(covariates)]
    found = partial_correlation(x, y, np.reshape(given, (covariates, 15)).T, method)
    r = recursion(x, y, given, SCIPY[method])
    assert found.r == pytest.approx(r, rel=1e-9)
    assert found.degrees_of_freedom == 13 - covariates
    t = abs(r) * math.sqrt(found.degrees_of_freedom / (1 - r**2))
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(t, 13 - covariates), rel=1e-7)
    inflation = 1 + r**2 / 2 if method == "spearman" else 1
    half = 1.959963984540054 * math.sqrt(inflation / (12 - covariates))
    assert found.fisher_interval == pytest.approx(
        (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)), rel=1e-7
    )


def test_partial_correlation_is_the_precision_matrix():
    rng = np.random.default_rng(9)
    table = rng.normal(size=(20, 4)) @ rng.normal(size=(4, 4))
    precision = np.linalg.inv(np.cov(table.T))
    expected = -precision[0, 1] / math.sqrt(precision[0, 0] * precision[1, 1])
    found = partial_correlation(table[:, 0], table[:, 1], table[:, 2:])
    assert found.r == pytest.approx(expected, rel=1e-9)


def test_a_common_cause_is_taken_out_and_a_true_link_is_not():
    rng = np.random.default_rng(10)
    cause = rng.normal(size=400)
    x, y = cause + 0.3 * rng.normal(size=400), cause + 0.3 * rng.normal(size=400)
    assert correlation(x, y, resamples=9).r > 0.85
    # Four standard errors of a zero correlation, 1 / sqrt(400).
    assert abs(partial_correlation(x, y, cause).r) < 0.2
    assert partial_correlation(x, x + y, cause).r > 0.5


def test_p_values_of_partial_correlations_are_uniform():
    rng = np.random.default_rng(11)
    p_values, wrong = [], []
    for _ in range(500):
        given = rng.normal(size=(6, 2))
        x, y = (given @ rng.normal(size=2) + rng.normal(size=6) for _ in range(2))
        found = partial_correlation(x, y, given)
        p_values.append(found.p_value)
        t = abs(found.r) * math.sqrt(4 / (1 - found.r**2))  # as if nothing had been regressed
        wrong.append(2 * scipy.stats.t.sf(t, 4))
    bound = 2.23 / math.sqrt(500)  # Kolmogorov's at one in ten thousand
    assert scipy.stats.kstest(p_values, "uniform").statistic < bound
    assert scipy.stats.kstest(wrong, "uniform").statistic > bound


def test_covariates_that_add_nothing_cost_no_degree_of_freedom():
    x, y = pairs(12)
    given = np.random.default_rng(12).normal(size=12)
    once = partial_correlation(x, y, given)
    again = partial_correlation(x, y, np.stack([given, 1e6 * given + 2, np.full(12, 0.1)], axis=1))
    assert again.degrees_of_freedom == once.degrees_of_freedom == 9
    assert again.r == pytest.approx(once.r, rel=1e-9)


def test_undetermined_partial_correlations():
    x, y = pairs(6)
    determined = partial_correlation(x, y, 2 * x + 1)
    assert math.isnan(determined.r) and determined.degrees_of_freedom == 3
    assert math.isnan(partial_correlation(np.full(6, 0.1), y, x + y).r)
    assert math.isnan(partial_correlation(x[:3], y[:3], [1.0, 3.0, 2.0]).p_value)
    assert partial_correlation([math.nan], [1.0], [1.0]).n == 0
    least = partial_correlation(x[:4], y[:4], [1.0, 3.0, 2.0, 5.0])
    assert least.degrees_of_freedom == 1 and least.fisher_interval == (-1.0, 1.0)


def test_models_without_a_covariate_are_left_out():
    x, y = pairs(9)
    given = np.random.default_rng(13).normal(size=9)
    given[3], kept = math.nan, np.arange(9) != 3
    assert partial_correlation(x, y, given) == partial_correlation(x[kept], y[kept], given[kept])


@pytest.mark.parametrize("shape", [(4,), (4, 5), (5, 1, 1), ()])
def test_covariates_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match="given must have shape"):
        partial_correlation(np.arange(5.0), np.arange(5.0), np.zeros(shape))


def test_kendalls_has_no_partial_form_here():
    with pytest.raises(ValueError, match="method must be one of"):
        partial_correlation([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], "kendall")
