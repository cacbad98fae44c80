"""Correlations: closed forms, enumeration, and coverage by simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from sam_jax.statistics import correlation

METHODS = ("pearson", "spearman", "kendall")
SCIPY = {
    "pearson": scipy.stats.pearsonr,
    "spearman": scipy.stats.spearmanr,
    "kendall": scipy.stats.kendalltau,
}


def pairs(n, slope=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, slope * x + rng.normal(size=n)


def by_definition(x, y, method):
    """The coefficient in plain Python; Kendall's is tau-b."""
    n = len(x)
    if method == "kendall":
        signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i in range(n) for j in range(i)]
        untied_x, untied_y = (sum(s[k] != 0 for s in signs) for k in (0, 1))
        return sum(a * b for a, b in signs) / math.sqrt(untied_x * untied_y)
    if method == "spearman":  # the rank of a tie is the mean of its ranks
        x, y = ([sum(w < v for w in z) + sum(w == v for w in z) / 2 for v in z] for z in (x, y))
    dx, dy = (np.array(z) - sum(z) / n for z in (x, y))
    return sum(dx * dy) / math.sqrt(sum(dx**2) * sum(dy**2))


# By hand: about the means 3 and 3.6 the sum of products is 14 and those of squares 10 and 23.2;
# the squared differences of ranks add up to 2, so 1 - 6 * 2 / 120; nine of ten pairs concordant.
@pytest.mark.parametrize(
    ("method", "r"), [("pearson", 14 / math.sqrt(232)), ("spearman", 0.9), ("kendall", 0.8)]
)
def test_five_pairs_by_hand(method, r):
    found = correlation([1, 2, 3, 4, 5], [1, 3, 2, 5, 7], method, resamples=99)
    assert found.r == pytest.approx(r, rel=1e-14)
    assert found.n == 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ties", [False, True])
def test_coefficient_by_its_definition_and_scipy(method, ties):
    x, y = pairs(14)
    if ties:
        x, y = np.round(x), np.round(y)
    found = correlation(x, y, method, resamples=99)
    assert found.r == pytest.approx(by_definition(list(x), list(y), method), rel=1e-12)
    expected = SCIPY[method](x, y)
    assert (found.r, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))


def test_pearsons_p_value_by_students_t():
    x, y = pairs(12)
    found = correlation(x, y, resamples=99)
    t = found.r * math.sqrt(10 / (1 - found.r**2))
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(t), df=10), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ties", [False, True])
def test_permutation_p_value_by_enumeration(method, ties):
    x, y = pairs(6, slope=1.0, seed=4)
    if ties:
        x, y = np.round(x), np.round(2 * y)
    observed = abs(by_definition(list(x), list(y), method))
    orders = list(itertools.permutations(y.tolist()))
    # Orders with equal coefficients differ by rounding.
    reached = sum(abs(by_definition(x.tolist(), o, method)) >= observed - 1e-12 for o in orders)
    found = correlation(x, y, method, resamples=9)  # enumerated whatever resamples says
    assert found.permutation_p_value == pytest.approx(reached / len(orders), rel=1e-12)
    assert 2 / 720 <= found.permutation_p_value < 1


def test_kendalls_p_value_is_the_permutations_without_ties():
    x, y = pairs(7)
    found = correlation(x, y, "kendall", resamples=9)
    assert found.p_value == pytest.approx(found.permutation_p_value, rel=1e-12)


def test_permutation_p_value_from_random_orders():
    x, y = pairs(12, slope=0.3, seed=5)
    found = correlation(x, y, resamples=4999)
    # For a normal sample the two laws agree to a few thousandths; 4 binomial errors are 0.028.
    assert found.permutation_p_value == pytest.approx(found.p_value, abs=0.035)
    assert 0.1 < found.p_value < 0.9  # where the two could differ
    line = correlation(np.arange(20.0), np.arange(20.0) ** 2, resamples=199)
    assert line.permutation_p_value == pytest.approx(1 / 200)  # never zero


@pytest.mark.parametrize(
    ("method", "variance"),
    [
        ("pearson", lambda r, n: 1 / (n - 3)),
        ("spearman", lambda r, n: (1 + r**2 / 2) / (n - 3)),
        ("kendall", lambda r, n: 0.437 / (n - 4)),
    ],
)
def test_fisher_interval(method, variance):
    x, y = pairs(12)
    found = correlation(x, y, method, resamples=99)
    half = 1.959963984540054 * math.sqrt(variance(found.r, 12))
    ends = [math.atanh(end) - math.atanh(found.r) for end in found.fisher_interval]
    assert ends == pytest.approx([-half, half])


@pytest.mark.parametrize("method", METHODS)
def test_leave_one_out(method):
    x, y = pairs(8)
    others = [
        SCIPY[method](np.delete(x, index), np.delete(y, index)).statistic for index in range(8)
    ]
    found = correlation(x, y, method, resamples=99)
    assert found.leave_one_out == pytest.approx((min(others), max(others)))
    assert found.leave_one_out.low < found.r < found.leave_one_out.high


def test_leave_one_out_finds_the_pair_that_makes_it_all():
    x, y = [0.0, 0.0, 1.0, 1.0, 100.0], [0.0, 1.0, 0.0, 1.0, 100.0]
    found = correlation(x, y, resamples=99)
    assert found.r > 0.99 and found.leave_one_out.low == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["bca", "percentile"])
def test_bootstrap_interval_by_scipy_with_a_slow_statistic(method, kind):
    x, y = pairs(15)
    found = correlation(x, y, method, bootstrap=kind, resamples=300, seed=7)
    expected = scipy.stats.bootstrap(
        (x, y),
        lambda x, y: SCIPY[method](x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=300,
        method={"bca": "BCa", "percentile": "percentile"}[kind],
        rng=np.random.default_rng(7),
    )
    assert found.bootstrap_interval == pytest.approx(tuple(expected.confidence_interval))


def test_percentile_interval_by_all_resamples():
    # All 4^4 resamples of four pairs; constant ones have no coefficient.
    x, y = np.array([1.0, 2.0, 3.0, 5.0]), np.array([1.0, 3.0, 2.0, 2.5])
    drawn = [list(index) for index in itertools.product(range(4), repeat=4)]
    coefficients = [
        by_definition(x[i].tolist(), y[i].tolist(), "pearson") for i in drawn if len(set(i)) > 1
    ]
    found = correlation(x, y, bootstrap="percentile", confidence=0.5, resamples=20000)
    # Twenty thousand draws place the quartiles to 0.003 in probability; the quantiles that far
    # and four times as far away enclose what may be found.
    for end, level in zip(found.bootstrap_interval, (0.25, 0.75), strict=True):
        low, high = np.quantile(coefficients, [level - 0.013, level + 0.013])
        assert low - 1e-9 <= end <= high + 1e-9


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_intervals_cover_at_their_rate(confidence):
    rng = np.random.default_rng(1)
    rho, draws, hits, fisher, other = 0.5, 150, 0, 0, 0
    for seed in range(draws):
        x = rng.normal(size=30)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=30)
        found = correlation(x, y, confidence=confidence, resamples=499, seed=seed)
        hits += found.bootstrap_interval.low <= rho <= found.bootstrap_interval.high
        fisher += found.fisher_interval.low <= rho <= found.fisher_interval.high
        other += found.bootstrap_interval.low <= -rho <= found.bootstrap_interval.high
    # Four binomial standard errors, and 0.02 that the bootstrap of thirty pairs is too short by.
    error = math.sqrt(confidence * (1 - confidence) / draws)
    assert hits / draws == pytest.approx(confidence, abs=4 * error + 0.02)
    assert fisher / draws == pytest.approx(confidence, abs=4 * error)
    assert other / draws < 0.02  # a wrong sign is not covered


def test_p_values_are_uniform_without_a_correlation():
    rng = np.random.default_rng(2)
    found = [correlation(rng.normal(size=6), rng.normal(size=6), resamples=9) for _ in range(200)]
    for p_values in ([f.p_value for f in found], [f.permutation_p_value for f in found]):
        # Kolmogorov's bound at one in ten thousand.
        assert scipy.stats.kstest(p_values, "uniform").statistic < 2.23 / math.sqrt(200)


def test_the_seed_makes_the_result():
    x, y = pairs(10)
    first, again = (correlation(x, y, resamples=99, seed=1) for _ in range(2))
    other = correlation(x, y, resamples=99, seed=2)
    assert first == again
    assert first.bootstrap_interval != other.bootstrap_interval and first.r == other.r


@pytest.mark.parametrize("method", METHODS)
def test_sign_units_and_order_of_the_pairs(method):
    x, y = pairs(9)
    found = correlation(x, y, method, resamples=99)
    mirrored = correlation(x, -3e-9 * y + 1e-9, method, resamples=99)
    assert mirrored.r == pytest.approx(-found.r)
    assert mirrored.fisher_interval == pytest.approx(tuple(-e for e in found.fisher_interval[::-1]))
    swapped = correlation(y[::-1], x[::-1], method, resamples=99)
    assert (swapped.r, swapped.p_value) == pytest.approx((found.r, found.p_value))


def test_pairs_that_are_not_finite_are_left_out():
    x = [1.0, 2.0, math.nan, 3.0, 4.0, 5.0, 6.0]
    y = [1.0, 3.0, 100.0, 2.0, math.inf, 5.0, 4.0]
    kept = correlation([1.0, 2.0, 3.0, 5.0, 6.0], [1.0, 3.0, 2.0, 5.0, 4.0])
    assert correlation(x, y) == kept._replace(of=7) and kept.n == kept.of == 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [0.1, 0.1 + 1e-17, 0.1 - 1e-17]),
        ([1.0, 2.0, 3.0, math.nan], [1.0, math.nan, 3.0, 4.0]),
        ([], []),
    ],
)
def test_undetermined_correlations_are_nan(method, x, y):
    found = correlation(x, y, method)
    assert found.n == np.sum(np.isfinite(x) & np.isfinite(y))
    numbers = [*found[:2], *itertools.chain(*found[3:6]), found[6]]
    assert len(numbers) == 9 and np.isnan(numbers).all()


def test_extreme_intervals():
    few = correlation([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    assert few.fisher_interval == (-1.0, 1.0)
    assert math.isnan(few.leave_one_out.low)
    line = correlation([1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 5.0, 7.0, 9.0, 11.0])
    assert line.r == pytest.approx(1.0) and line.p_value < 1e-6
    assert np.isnan([*line.fisher_interval, *line.bootstrap_interval]).all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"y": [1.0, 2.0]}, "one length"),
        ({"y": [[1.0, 2.0, 3.0]]}, "vector"),
        ({"method": "tau"}, "method must be one of"),
        ({"bootstrap": "basic"}, "bootstrap must be one of"),
        ({"confidence": 95}, "between 0 and 1"),
        ({"resamples": 0}, "resamples"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        correlation(**{"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0], **arguments})
