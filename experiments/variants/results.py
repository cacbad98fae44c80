"""The results in a work directory, as numbers for every method and seed.

`workdir/models/METHOD/seed_S/records.jsonl` has the outcome of a training, one JSON object;
`workdir/models/METHOD/costs.jsonl` has the costs of the method. Where a file has several lines, the
last one holds.
"""

import dataclasses
import math
import pathlib
from typing import NamedTuple

import numpy as np

from experiments.study.arms import arm_folder
from experiments.study.results import Results, read_records
from experiments.variants.methods import Method, Plan
from sam_jax.runs.records import Record, read

OUTCOME = {"measure": "evaluation"}
TWO_PHASES = 0.1  # difference in the share of passes from which early and late calls differ


@dataclasses.dataclass(frozen=True)
class VariantsResults(Results[Method]):
    """The outcomes of all methods and seeds, and the costs; the first arm is the reference."""

    costs: dict[str, Record]  # by the name of the arm


class Speed(NamedTuple):
    """Images per second beside the reference, timed in turns."""

    images_per_second: float  # median over rounds
    reference_images_per_second: float  # of the same rounds
    ratio: float  # of the medians
    low: float  # quartiles of the rounds' ratios
    high: float
    n: int  # rounds


def read_results(workdir: pathlib.Path | str, plan: Plan) -> VariantsResults:
    """Read the records of the methods and seeds of a plan; missing ones are left out.

    Raises:
      ValueError: there is none.
    """
    outcomes = read_records(workdir, plan.arms, plan.seeds)
    found = {method.name: read(costs_path(workdir, method)) for method in plan.arms}
    costs = {name: lines[-1] for name, lines in found.items() if lines}
    return VariantsResults(plan.arms, plan.seeds, outcomes, costs)


def costs_path(workdir: pathlib.Path | str, method: Method) -> pathlib.Path:
    """Return the file with the costs of a method."""
    return arm_folder(workdir, method) / "costs.jsonl"


def over_seeds(results: VariantsResults, method: Method, quantity: str) -> np.ndarray:
    """Return a quantity of the outcomes of a method, [seeds], NaN where it is missing."""
    return results.by_seed(quantity, OUTCOME, arms=[method])[0]


def share_of_passes(results: VariantsResults, method: Method) -> float:
    """Return the share of steps that made the pass at w + epsilon; NaN without a schedule."""
    made, steps = (over_seeds(results, method, name) for name in ("passes", "step"))
    return (
        float(np.nansum(made) / np.sum(steps[~np.isnan(made)])) if np.any(made >= 0) else math.nan
    )


def gradients_per_step(results: VariantsResults, method: Method) -> float:
    """Return the floating-point operations of a step relative to the reference's.

    For a scheduled method they are 1 + share * (ratio - 1). Here `share` counts the steps that made
    the pass at the perturbed weights, and `ratio` belongs to a step that makes it.
    """
    return _gradients(results, method, "flops")


def compiled_gradients_per_step(results: VariantsResults, method: Method) -> float:
    """Return the same as `gradients_per_step`, for the steps' compiled programs."""
    return _gradients(results, method, "compiled_flops")


def total_gradients(results: VariantsResults, method: Method) -> float:
    """Return the floating-point operations of the whole training relative to the reference's."""
    return gradients_per_step(results, method) * method.times_epochs


def memory(results: VariantsResults, method: Method) -> float:
    """Return the bytes that training holds: the step's temporary ones and the state."""
    found = results.costs.get(method.name)
    return found["temporary_bytes"] + found["state_bytes"] if found else math.nan


def speed(results: VariantsResults, method: Method) -> Speed:
    """Return images per second over a whole training, beside the reference.

    The calls from the initial and from the trained state weigh the same. If their shares of passes
    differ clearly, the weights are chosen to give the training's own share.
    """
    found = results.costs.get(method.name)
    if found is None:
        return Speed(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    late = _weight_of_late_calls(results, method)
    weights = np.array([1 - late, late])
    own = found["images"] / (np.array(found["seconds"]) @ weights)
    other = found["reference_images"] / np.mean(found["reference_seconds"], axis=1)
    low, high = np.quantile(own / other, (0.25, 0.75))
    own_median, other_median = float(np.median(own)), float(np.median(other))
    ratio = own_median / other_median
    return Speed(own_median, other_median, ratio, float(low), float(high), len(own))


def total_time(results: VariantsResults, method: Method) -> float:
    """Return the time of the whole training relative to the reference's."""
    return method.times_epochs / speed(results, method).ratio


def _gradients(results: VariantsResults, method: Method, flops: str) -> float:
    own, reference = (results.costs.get(m.name) for m in (method, results.arms[0]))
    if own is None or reference is None:
        return math.nan
    ratio = own[flops] / reference[flops]
    share = share_of_passes(results, method)
    return ratio if math.isnan(share) else 1 + share * (ratio - 1)


def _weight_of_late_calls(results: VariantsResults, method: Method) -> float:
    found = results.costs[method.name]
    share = share_of_passes(results, method)
    if found["call_passes"] is None or math.isnan(share):
        return 0.5
    early, late = (made / found["call_steps"] for made in found["call_passes"])
    if abs(late - early) < TWO_PHASES:
        return 0.5
    return min(max((share - early) / (late - early), 0.0), 1.0)
