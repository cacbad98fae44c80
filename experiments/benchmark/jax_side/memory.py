"""Task: the memory of compiled steps beside their arguments and results."""

from typing import Any

from experiments.benchmark.jax_side import networks
from experiments.benchmark.jax_side.steps import lowered_step, make_step
from experiments.benchmark.worker import Prepared


def prepare(case: dict[str, Any]) -> Prepared:
    """Return the temporary bytes of each of `case["programs"]`.

    Args:
      case: "net", "precision", "batch"; and of "programs" a method, or "sub_batch" for SAM on one
        sub-batch. m_sam_scan runs on `case["examples"]` in sub-batches of "batch".
    """
    net = networks.network(case["net"], case["precision"])
    found = {}
    for program in case["programs"]:
        examples = case["examples"] if program == "m_sam_scan" else case["batch"]
        batch = networks.random_batch(case["net"], examples)
        made = make_step(net, "sam" if program == "sub_batch" else program, case["batch"])
        compiled = lowered_step(made, batch, case["precision"]).compile()
        found[program] = compiled.memory_analysis().temp_size_in_bytes
    return Prepared(networks.about() | {"parameters": net.size, "bytes": found}, {})
