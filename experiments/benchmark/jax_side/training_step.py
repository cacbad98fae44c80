"""Task: training steps of several methods on one batch of random data."""

from typing import Any

from experiments.benchmark.jax_side import networks
from experiments.benchmark.jax_side.steps import compiled_step, make_step, repeated
from experiments.benchmark.worker import Prepared


def prepare(case: dict[str, Any]) -> Prepared:
    """Compile a step of each of `case["methods"]`.

    Args:
      case: "net", "batch", "precision", "methods", and "m" where one of them is m-SAM.
    """
    net = networks.network(case["net"], case["precision"])
    batch = networks.random_batch(case["net"], case["batch"])
    calls = {}
    for method in case["methods"]:
        made = make_step(net, method, case.get("m", 0))
        calls[method] = repeated(made, compiled_step(made, batch, case["precision"]), batch)
    return Prepared(networks.about() | {"parameters": net.size}, calls)
