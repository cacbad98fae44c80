"""The table covers every public method, and the rules leave out only what is listed here."""

import inspect

import optax
import pytest
from contract_table import APPLIES, CASES, METHODS

from sam_jax import optim
from sam_jax.optim import methods

# Public functions of sam_jax.optim that are no methods by themselves.
PARTS = {
    *("value_and_grad", "apply_gradients", "nnx_value_and_grad"),  # adapters
    "accumulated",  # a gradient over sub-batches
    "assert_replicas_agree",  # a check
    "averaged_params",  # reads a state
    "gsam_rho",  # a schedule
    "leaves_where",  # a mask
    "norm_layers",  # a mask
    "sharpness_aware",  # the assembly of all of them
    "m_sam",  # runs in CASES and in test_m_sam.py
}

AVERAGES = {"swa", "weight_ema"}  # averages of the parameters: they call no grad_fn
TERMS = {"saf", "mesa"}  # a term of the loss in place of a perturbation
MEMORY = {
    *("friendly_sam", "vasso", "decoupled_wsam", "momentum_sam", "ae_sam", "looksam"),
    *("saf", "extrap_sgd"),
}
# What each rule leaves out.
LEFT_OUT = {
    "a coefficient": AVERAGES,
    "off at zero": {
        *AVERAGES,
        "entropy_sgd",  # without a scope its gradient is zero
    },
    "a length": {
        *AVERAGES,
        *TERMS,
        *("usam", "unified_sam", "fisher_sam", "amp"),  # depends on the gradient
        *("esam", "esam_whole_batch", "smooth_out", "smooth_out_copies"),  # depends on the draw
        *("weight_noise", "weight_noise_relative"),  # likewise
        "entropy_sgd",  # many points
        "extrap_sgd",  # proportional to the previous gradient
    },
    "zero at a zero gradient": {
        *AVERAGES,
        *TERMS,
        *("average_sam", "smooth_out", "smooth_out_copies", "entropy_sgd"),  # noise
        *("weight_noise", "weight_noise_relative"),  # likewise
        *("momentum_sam", "extrap_sgd"),  # follow past gradients
    },
    "a mask": {*AVERAGES, *TERMS, "entropy_sgd"},
    "passes": AVERAGES,
    "an epsilon": {*AVERAGES, *TERMS, "smooth_out_copies", "entropy_sgd"},  # several points, or w
    "countable operations": {"smooth_out_copies", "entropy_sgd"},  # counts one round of a loop
    # Every device would choose among its own examples, or has too few of them for all parts.
    "the whole batch": {"esam", "entropy_sgd"},
    "m_sam": {*AVERAGES, *MEMORY},
}
# What some rules are about; they leave out all others.
SKIPPING = {"ss_sam", "interval_sam", "late_phase_sam", "between", "looksam"}  # ae_sam: by gradient
ABOUT = {
    "refused by m_sam": MEMORY,
    "skipped passes": SKIPPING,
    "a skip that a constant state tells": SKIPPING - {"ss_sam"},  # a coin, tossed when it runs
}


def public_functions():
    return {
        name
        for name, member in vars(optim).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_the_table_covers_every_public_method():
    names = {case.name for case in METHODS}
    assert len(names) == len(METHODS)
    assert public_functions() - PARTS <= names
    assert PARTS <= public_functions()
    exported = {name for name, member in vars(methods).items() if inspect.isfunction(member)}
    assert exported <= public_functions()


def test_every_row_is_named_after_the_method_that_it_makes():
    for case in METHODS:
        assert any(case.name.startswith(name) for name in public_functions() - PARTS)
        tx = case.make(0.1)
        assert isinstance(tx, optax.GradientTransformationExtraArgs)
        is_sharpness_aware = isinstance(tx, optim.SharpnessAwareTransformation)
        assert is_sharpness_aware == case.evaluates
        if is_sharpness_aware:
            assert case.memory in tx.memory and bool(case.memory) == bool(tx.memory)


@pytest.mark.parametrize("rule", APPLIES)
def test_a_rule_leaves_out_what_is_listed(rule):
    names = {case.name for case in METHODS}
    about = ABOUT[rule] if rule in ABOUT else names - LEFT_OUT[rule]
    assert {case.name for case in METHODS if APPLIES[rule](case)} == about


def test_one_method_of_each_kind_runs_inside_m_sam_everywhere():
    assert [case.name for case in CASES[len(METHODS) :]] == [
        *("m_sam(sam)", "m_sam(average_sam)", "m_sam(interval_sam)", "m_sam(esam)")
    ]
