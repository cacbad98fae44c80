"""Task: training steps of several methods on one batch of random data."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from experiments.benchmark.jax_side import networks
from experiments.benchmark.jax_side.steps import lowered_step, make_step, repeated
from experiments.benchmark.machine import cores
from experiments.benchmark.worker import Prepared


def prepare(case: dict[str, Any]) -> Prepared:
    """Compile a step of each of `case["methods"]`, as many at once as there are cores.

    What was compiled before the time was over is in the cache when the row is tried again.

    Args:
      case: "net", "batch", "precision", "methods", and "m" where one of them is m-SAM.
    """
    net = networks.network(case["net"], case["precision"])
    batch = networks.random_batch(case["net"], case["batch"])
    made = {method: make_step(net, method, case.get("m", 0)) for method in case["methods"]}
    lowered = [lowered_step(step, batch, case["precision"]) for step in made.values()]
    with ThreadPoolExecutor(cores()) as pool:
        compiled = list(pool.map(lambda program: program.compile(), lowered))
    steps = zip(made.items(), compiled, strict=True)
    calls = {method: repeated(step, program, batch) for (method, step), program in steps}
    return Prepared(networks.about() | {"parameters": net.size}, calls)
