"""The statistics of ours that statsmodels has, too."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower

from sam_jax import statistics

P_VALUES = np.array([0.001, 0.2, 0.04, 0.04, 0.013, 0.9, 0.03])


@pytest.mark.parametrize("ours, theirs", [("holm", "holm"), ("benjamini_hochberg", "fdr_bh")])
def test_adjusted_p_values(ours, theirs):
    _, expected, _, _ = multipletests(P_VALUES, method=theirs)
    np.testing.assert_allclose(statistics.adjust_p_values(P_VALUES, ours), expected, rtol=1e-14)


@pytest.mark.parametrize("effect", [0.3, 0.8, 2.0])
@pytest.mark.parametrize("paired, theirs", [(True, TTestPower()), (False, TTestIndPower())])
def test_seeds_to_separate_two_means(paired, theirs, effect):
    needed = theirs.solve_power(effect, alpha=0.05, power=0.8)
    found = statistics.seeds_to_separate(0.1 * effect, 0.1, paired=paired)
    assert found == np.ceil(needed)
