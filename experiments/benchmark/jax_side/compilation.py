"""Task: trace, lower and compile a SAM step, timed phase by phase; there is nothing to call."""

import time
from typing import Any

import jax

from experiments.benchmark.jax_side import networks
from experiments.benchmark.jax_side.steps import make_step
from experiments.benchmark.worker import Prepared


def prepare(case: dict[str, Any]) -> Prepared:
    """Return the seconds of every phase, by the wall clock and of all threads."""
    net = networks.network(case["net"], case["precision"])
    batch = networks.random_batch(case["net"], case["batch"])
    made = make_step(net, "sam")
    phases = {}

    def timed(name: str, function: Any, *arguments: Any) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = function(*arguments)
        phases[name] = {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
        }
        return result

    with jax.default_matmul_precision(networks.PRECISIONS[case["precision"]][0]):
        traced = timed("trace", jax.jit(made.step, donate_argnums=0).trace, made.state, batch)
        lowered = timed("lower", traced.lower)
        timed("compile", lowered.compile)
    return Prepared(networks.about() | phases, {})
