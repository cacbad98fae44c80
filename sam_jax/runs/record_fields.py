"""The kinds of the fields of records, which are checked when a record is read.

Values are data: nothing in a record is called, imported or formatted into code.
"""

import functools
import re
from typing import Any, NamedTuple

_INTEGERS = """
batch_norm_batch_size batch_size bisections call_steps checksum count device_count doublings draws
epoch first_point images m measurements method_state_bytes n num_censored num_directions
nonfinite_steps
num_not_positive num_points passes process_count reference_images restarts seed skipped_steps
state_bytes
step steps temporary_bytes times_epochs
"""
_NUMBERS = """
batch_accuracy batch_loss bottom_eigenvalue bottom_residual compiled_flops distance factor
first_share flops gradient_norm images_per_second index learning_rate length limit loss lower margin
max_distance mean_absolute_odd mean_absolute_odd_stderr mean_eigenvalue mean_eigenvalue_stderr
mean_even mean_even_stderr mean_test_loss_rise mean_test_loss_rise_stderr mean_train_loss_rise
mean_train_loss_rise_stderr mean_width mean_width_stderr measured_rho negative_share
negative_share_stderr perturbation_norm perturbed_loss ratio rho rise second_share sharpness
sharpness_stderr signed_mean signed_stderr start_loss step_size test_accuracy_integral
test_accuracy_maximum test_accuracy_mean test_accuracy_minimum test_barrier test_barrier_position
test_loss_integral test_loss_maximum test_loss_mean test_loss_minimum test_topK_accuracy time
top_eigenvalue top_residual trace trace_stderr train_accuracy_integral train_accuracy_maximum
train_accuracy_mean train_accuracy_minimum train_barrier train_barrier_position train_clean_accuracy
train_clean_loss train_loss_integral train_loss_maximum train_loss_mean train_loss_minimum
train_noisy_accuracy train_noisy_loss train_noisy_true_accuracy train_topK_accuracy upper
validation_accuracy validation_loss validation_topK_accuracy weight_decay width
"""
_TEXTS = """
batch batch_norm checkpoint checkpoint_digest data_digest
distribution folder kind label measure measured_batch model normalisation
optimiser preset settings shape step_rule target
"""
_LISTS = """
call_passes checkpoints coordinates density distances eigenvalues grid landmarks losses minus
minus_censored not_finite pair per_batch_loss per_batch_perturbed_loss per_draw_perturbed_loss plus
plus_censored positions ratios reference_seconds residuals ritz_values ritz_weights signed
squared_norm xs ys
"""
# One number in some records, a list in others.
_NUMBERS_OR_LISTS = "seconds stderr test_accuracy test_loss train_accuracy train_loss"
_TYPES = {
    "integer": (int,),
    "number": (int, float),
    "text": (str,),
    "boolean": (bool,),
    "list": (list,),
}
KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_INTEGERS.split(), ("integer",)),
    **dict.fromkeys(_NUMBERS.split(), ("number",)),
    **dict.fromkeys(_TEXTS.split(), ("text",)),
    **dict.fromkeys(_LISTS.split(), ("list",)),
    **dict.fromkeys(_NUMBERS_OR_LISTS.split(), ("number", "list")),
    "adaptive": ("boolean",),
    "norm": ("text", "number"),  # the name of one, and of weights in a study of one's own
    "diverged": ("boolean",),
    **dict.fromkeys(("examples", "points"), ("integer", "list")),
}
_TOP_K = re.compile(r"_top\d+_")
_NEVER_NULL = ("epoch", "seed", "measure", "settings")


def wrong(record: dict[str, Any]) -> str:
    """Return in words which field of a record has another kind than it must; nothing where none.

    Fields that no table names may have any value. Null is let through where it may stand.

    >>> wrong({"epoch": 1, "test_accuracy": 0.5, "mine": "x"})
    ''
    >>> wrong({"epoch": 1.5})
    'epoch must be integer, got 1.5'
    >>> wrong({"test_accuracy": 1.5})
    'test_accuracy must be in [0, 1], got 1.5'
    """
    for name, value in record.items():
        rule = _rule(name)
        if rule is None or (value is None and name not in _NEVER_NULL):
            continue
        if type(value) not in rule.types:  # as JSON gives them; a truth value is no integer
            return f"{name} must be {' or '.join(rule.kinds)}, got {_shown(value)}"
        if rule.low is None or value is None or type(value) is list:
            continue
        if value < rule.low and rule.high is None:
            return f"{name} must not be negative, got {value}"
        if rule.high is not None and (value < rule.low or value > rule.high):
            return f"{name} must be in [0, 1], got {value}"
    return ""


class _Rule(NamedTuple):
    """What a field must hold: its kinds, the types of JSON, and the range of its numbers."""

    kinds: tuple[str, ...]
    types: frozenset[type]
    low: int | None
    high: int | None


@functools.lru_cache(maxsize=1024)  # a log of 100,000 lines is checked in a third of a second
def _rule(name: str) -> _Rule | None:
    """Return the rule of a field; None for one that no table names."""
    kinds = KINDS.get(name) or KINDS.get(_TOP_K.sub("_topK_", name))
    if kinds is None:
        return None
    share = name.endswith("accuracy")
    low = 0 if share or name.endswith("stderr") or kinds == ("integer",) else None
    types = frozenset(x for kind in kinds for x in _TYPES[kind])
    return _Rule(kinds, types, low, 1 if share else None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
