"""Where a method departs from released code its docstring says so, one sentence a departure."""

import inspect
import re

import pytest

from sam_jax import optim

# What the docstring of a method says, as patterns; a blank stands for any white space.
DEPARTURES = {
    "asam": [r'"weight" in their name', r"davda54/sam", r"normalize_bias", r"layerwise"],
    "usam": [r"sam_no_grad_norm"],
    "unified_sam": [r"float32, also where parameters are float64"],
    "wsam": [r"1 / \(1 - momentum\)", r"max_norm", r"GNP", r"0\.8 to 0\.95 .* uses 0\.9"],
    "decoupled_wsam": [r"max_norm"],
    "looksam": [r"paper uses 0\.7"],
    "entropy_sgd": [r"published algorithm", r"momentum and weight decay", r"never advances t"],
    "saf": [r"epochs above 5", r"predictions of zero"],
    "mesa": [r"six epochs", r"averages the running statistics", r"0\.9998"],
    "awp": [r"decays w \+ epsilon"],
    "momentum_sam": [r"weight decay of the perturbed parameters", r"AdamW decays after"],
    "esam": [r"k - 1 of them", r"norm over the drawn leaves alone"],
    "interval_sam": [r"k - 1, 2k - 1"],
    "smooth_out": [r"by default leaves batch norm without noise"],
    "friendly_sam": [r"first step is a SAM step in the released code"],
    "ae_sam": [r"averages start there is unverified"],
    "gsam_rho": [r"goes on beyond both ends", r"first learning rate twice"],
    "layer_sam": [r"norm of the weights is unverified"],
    "weight_ema": [r"starts at the initial parameters"],
    "average_sam": [r"draw for every weight"],
}


def missing(text, patterns):
    return [p for p in patterns if not re.search(p.replace(" ", r"\s+"), text, re.DOTALL)]


@pytest.mark.parametrize("name", DEPARTURES)
def test_a_departure_is_said(name):
    text = inspect.getdoc(getattr(optim, name))
    assert missing(text, DEPARTURES[name]) == []
    assert missing("", DEPARTURES[name]) == DEPARTURES[name]
