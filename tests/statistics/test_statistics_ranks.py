"""The granulated rank correlation, and corrections for many hypotheses."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from sam_jax.statistics import adjust_p_values, granulated_kendall


def grid(**axes):
    """A full grid as a mapping of name -> values, and the models' settings."""
    models = list(itertools.product(*axes.values()))
    return {name: [m[i] for m in models] for i, name in enumerate(axes)}, np.array(models, float)


def test_two_by_two_by_hand():
    # Models (0, 0), (0, 1), (1, 0), (1, 1). Along a: 1 < 3 with 1 < 2, and 2 < 4 with 3 < 4, both
    # agree. Along b: 1 < 2 with 1 < 3, 3 < 4 with 2 < 4. Over all: only the middle two disagree.
    hyperparameters, _ = grid(a=[0, 1], b=[0, 1])
    found = granulated_kendall([1, 2, 3, 4], [1, 3, 2, 4], hyperparameters)
    assert found.psi == {"a": 1.0, "b": 1.0} and found.mean == 1.0
    assert found.tau == pytest.approx(4 / 6)
    assert found.num_groups == {"a": 2, "b": 2} and found.n == 4


def test_ties_count_zero():
    found = granulated_kendall([1, 1, 2], [1, 2, 3], {"rho": [0, 1, 2]})
    assert found.psi == {"rho": pytest.approx(2 / 3)} and found.tau == pytest.approx(2 / 3)


def test_a_full_grid_by_its_definition():
    levels = {"a": [0, 1, 2], "b": ["x", "y"], "c": [0.1, 0.2, 0.3, 0.4]}
    models = list(itertools.product(*levels.values()))
    rng = np.random.default_rng(0)
    measure, gap = rng.normal(size=24), rng.normal(size=24)
    values = dict(zip(models, zip(measure, gap, strict=True), strict=True))
    order = rng.permutation(24)  # the order of the models does not matter
    found = granulated_kendall(
        measure[order],
        gap[order],
        {name: [models[i][k] for i in order] for k, name in enumerate(levels)},
    )
    expected = {}
    for k, name in enumerate(levels):
        others = [values for other, values in levels.items() if other != name]
        taus = []
        for rest in itertools.product(*others):
            group = [values[(*rest[:k], level, *rest[k:])] for level in levels[name]]
            taus.append(scipy.stats.kendalltau(*zip(*group, strict=True)).statistic)
        assert found.num_groups[name] == len(taus) == 24 // len(levels[name])
        expected[name] = np.mean(taus)
    assert found.psi == pytest.approx(expected)
    assert found.mean == pytest.approx(np.mean(list(expected.values())))
    assert found.tau == pytest.approx(scipy.stats.kendalltau(measure, gap).statistic)


def test_a_measure_that_follows_one_hyperparameter_is_found_out():
    # The gap is made by a almost alone, and the measure is a with noise.
    hyperparameters, models = grid(a=range(4), b=range(4), c=range(3))
    rng = np.random.default_rng(1)
    gap = models @ [10, 1, 1]
    proxy = models[:, 0] + 0.01 * rng.normal(size=48)
    found = granulated_kendall(proxy, gap, hyperparameters)
    assert found.tau > 0.7 and found.psi["a"] == 1.0
    # The 16 (12) groups' tau have standard deviations of about 0.6 (0.5): four standard errors.
    assert abs(found.psi["b"]) < 0.6 and abs(found.psi["c"]) < 0.6 and found.mean < 0.7
    assert granulated_kendall(-gap, gap, hyperparameters).mean == -1.0


def test_simpsons_paradox():
    # Within every group the order is right, over all models it is wrong.
    hyperparameters = {"rho": [0, 1, 2] * 2, "batch": [0] * 3 + [1] * 3}
    measure, gap = [1, 2, 3, 11, 12, 13], [101, 102, 103, 1, 2, 3]
    found = granulated_kendall(measure, gap, hyperparameters)
    assert found.psi == {"rho": 1.0, "batch": -1.0} and found.tau < 0


def test_seeds_are_compared_with_themselves():
    # The seed shifts everything by more than rho does.
    hyperparameters, models = grid(seed=[0, 1, 2], rho=[0, 1])
    shift = np.array([0.0, 50.0, -30.0])[models[:, 0].astype(int)]
    measure = models[:, 1] + shift
    gap = models[:, 1] - shift
    found = granulated_kendall(measure, gap, hyperparameters, axes=["rho"])
    assert found.psi == {"rho": 1.0} and found.mean == 1.0 and found.num_groups == {"rho": 3}
    assert granulated_kendall(measure, gap, hyperparameters).mean == 0.0


def test_models_that_are_missing():
    hyperparameters, models = grid(a=[0, 1, 2], b=[0, 1])
    measure, gap = models @ [1.0, 3.0], models @ [3.0, 1.0]
    measure[3], gap[5] = math.nan, math.inf  # (1, 1) and (2, 1): b = 1 keeps one model
    found = granulated_kendall(measure, gap, hyperparameters)
    assert found.n == 4 and found.num_groups == {"a": 1, "b": 1}
    assert found.psi == {"a": 1.0, "b": 1.0}


def test_axes_without_a_group():
    found = granulated_kendall([1, 2, 3], [1, 2, 3], {"rho": [0, 1, 2], "m": [8, 8, 8]})
    assert found.num_groups == {"rho": 1, "m": 0}
    assert math.isnan(found.psi["m"]) and found.mean == 1.0
    nothing = granulated_kendall([math.nan], [1.0], {"rho": [0]})
    assert math.isnan(nothing.mean) and math.isnan(nothing.tau) and nothing.n == 0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"gap": [1, 2, 3]}, "one length"),
        ({"hyperparameters": {}}, "axes must name"),
        ({"axes": ["batch"]}, "axes must name"),
        ({"axes": []}, "axes must name"),
        ({"hyperparameters": {"rho": [0]}}, "needs its rho"),
        ({"hyperparameters": {"rho": [1, 1]}}, "share all hyperparameters"),
    ],
)
def test_granulated_of_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        granulated_kendall(
            **{"measure": [1, 2], "gap": [1, 2], "hyperparameters": {"rho": [0, 1]}, **arguments}
        )


# ---------------------------------------------------------------------------- many hypotheses

P_VALUES = [0.01, 0.0005, 0.9, 0.04, 0.03, 0.03, 1.0, 0.0]


def test_holm_is_the_closure_of_bonferroni():
    # A hypothesis is rejected if every set of hypotheses with it is, by the smallest p times the
    # size of the set.
    k = len(P_VALUES)
    sets = [s for size in range(1, k + 1) for s in itertools.combinations(range(k), size)]
    expected = [
        max(min(1.0, len(s) * min(P_VALUES[j] for j in s)) for s in sets if i in s)
        for i in range(k)
    ]
    assert adjust_p_values(P_VALUES).tolist() == pytest.approx(expected)
    assert expected != pytest.approx(np.minimum(1, k * np.array(P_VALUES)))  # not Bonferroni's


def test_benjamini_hochberg_by_scipy_and_by_its_rejections():
    found = adjust_p_values(P_VALUES, "benjamini_hochberg")
    np.testing.assert_allclose(found, scipy.stats.false_discovery_control(P_VALUES))
    for level in (0.011, 0.05, 0.2):
        # The largest i with p(i) <= i / m level; all up to it are rejected.
        ordered = sorted(P_VALUES)
        last = max(i for i, p in enumerate(ordered) if p <= (i + 1) / len(ordered) * level)
        np.testing.assert_array_equal(found <= level, np.array(P_VALUES) <= ordered[last])


@pytest.mark.parametrize("method", ["holm", "benjamini_hochberg"])
def test_adjusted_p_values_keep_order_bounds_and_nan(method):
    given = np.array([0.2, math.nan, 0.01, 0.6, math.nan])
    found = adjust_p_values(given, method)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(given))
    np.testing.assert_allclose(found[[0, 2, 3]], adjust_p_values([0.2, 0.01, 0.6], method))
    assert (found[[0, 2, 3]] >= given[[0, 2, 3]]).all() and found[2] == pytest.approx(0.03)
    assert np.isnan(given[1])  # the argument is not written to
    assert adjust_p_values([0.3], method).tolist() == [0.3]
    assert adjust_p_values([], method).shape == (0,)


def test_errors_are_controlled_and_without_a_correction_they_are_not():
    rng = np.random.default_rng(2)
    draws, true, effects = 600, 15, 5
    any_error, share, bare = [], [], []
    for _ in range(draws):
        z = rng.normal(size=true + effects)
        z[true:] += 3.0
        p_values = 2 * scipy.stats.norm.sf(np.abs(z))
        any_error.append((adjust_p_values(p_values)[:true] <= 0.05).any())
        rejected = adjust_p_values(p_values, "benjamini_hochberg") <= 0.05
        share.append(rejected[:true].sum() / max(rejected.sum(), 1))
        bare.append((p_values[:true] <= 0.05).any())
    # Four binomial standard errors, sqrt(0.05 * 0.95 / 600) = 0.0089.
    assert np.mean(any_error) < 0.05 + 0.036
    assert np.mean(share) < 0.05 + 0.036
    assert np.mean(bare) > 0.4


@pytest.mark.parametrize(
    ("p_values", "method", "match"),
    [
        ([0.5, 1.5], "holm", "lie in"),
        ([-0.1], "holm", "lie in"),
        ([0.5], "bonferroni", "method must be one of"),
        ([[0.5]], "holm", "vector"),
    ],
)
def test_adjusting_bad_arguments(p_values, method, match):
    with pytest.raises(ValueError, match=match):
        adjust_p_values(p_values, method)
