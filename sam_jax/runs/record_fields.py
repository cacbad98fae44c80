"""The kinds of the fields of records, which are checked when a record is read.

Values are data: nothing in a record is called, imported or formatted into code.
"""

import math
import re
from typing import Any

_INTEGERS = """
batch_norm_batch_size batch_size bisections call_steps checksum count device_count doublings draws
epoch first_point images m measurements method_state_bytes n num_censored num_directions
nonfinite_steps
num_not_positive num_points passes points process_count reference_images restarts seed skipped_steps
state_bytes
step steps temporary_bytes times_epochs
"""
_NUMBERS = """
batch_accuracy batch_loss bottom_eigenvalue bottom_residual compiled_flops distance factor
first_share flops index length limit loss lower margin max_distance mean_absolute_odd
mean_absolute_odd_stderr mean_eigenvalue mean_eigenvalue_stderr mean_even mean_even_stderr
mean_test_loss_rise mean_test_loss_rise_stderr mean_train_loss_rise mean_train_loss_rise_stderr
mean_width mean_width_stderr measured_rho negative_share negative_share_stderr perturbed_loss ratio
rho rise second_share sharpness signed_mean signed_stderr start_loss step_size
test_accuracy_integral
test_accuracy_maximum test_accuracy_mean test_accuracy_minimum test_barrier test_barrier_position
test_loss_integral test_loss_maximum test_loss_mean test_loss_minimum test_topK_accuracy
top_eigenvalue top_residual trace trace_stderr train_accuracy_integral train_accuracy_maximum
train_accuracy_mean train_accuracy_minimum train_barrier train_barrier_position
train_clean_accuracy train_clean_loss train_loss_integral train_loss_maximum train_loss_mean
train_loss_minimum train_noisy_accuracy train_noisy_loss train_noisy_true_accuracy
train_topK_accuracy upper validation_accuracy validation_loss validation_topK_accuracy weight_decay
width
"""
_TEXTS = """
batch batch_norm distribution folder kind label measure measured_batch model norm normalisation
optimiser preset settings shape step_rule
"""
_LISTS = """
call_passes checkpoints coordinates density distances eigenvalues grid landmarks losses minus
minus_censored not_finite pair per_batch_loss per_batch_perturbed_loss per_draw_perturbed_loss plus
plus_censored positions ratios reference_seconds residuals ritz_values ritz_weights seconds signed
squared_norm xs ys
"""
# One number in some records, a list in others.
_NUMBERS_OR_LISTS = "stderr test_accuracy test_loss train_accuracy train_loss"
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
    "diverged": ("boolean",),
    "examples": ("integer", "list"),
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
        kinds = KINDS.get(name) or KINDS.get(_TOP_K.sub("_topK_", name))
        if kinds is None or (value is None and name not in _NEVER_NULL):
            continue
        if not any(_is_kind(value, kind) for kind in kinds):
            return f"{name} must be {' or '.join(kinds)}, got {_shown(value)}"
        if isinstance(value, int | float):
            if name.endswith("accuracy") and not (0 <= value <= 1 or math.isnan(value)):
                return f"{name} must be in [0, 1], got {value}"
            if value < 0 and (name.endswith("stderr") or kinds == ("integer",)):
                return f"{name} must not be negative, got {value}"
    return ""


def _is_kind(value: Any, kind: str) -> bool:
    # A truth value is an integer for Python.
    return isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
