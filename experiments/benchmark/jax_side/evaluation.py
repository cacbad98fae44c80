"""Task: the evaluation of a set, as the commands do it after every epoch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.jax_side import networks
from experiments.benchmark.nets import NETS
from experiments.benchmark.worker import Prepared
from sam_jax.training.compiled_evaluation import compile_evaluation
from sam_jax.training.evaluation import Inputs


def prepare(case: dict[str, Any]) -> Prepared:
    """Compile the evaluation of `case["examples"]` random uint8 images in batches."""
    net, image = networks.network(case["net"]), NETS[case["net"]].image
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (case["examples"], *image), np.uint8))
    labels = jnp.asarray(random.integers(0, 10, case["examples"], np.int32))
    inputs = Inputs((0.5,) * image[-1], (0.25,) * image[-1])
    evaluate = compile_evaluation(net.model, inputs, case["batch"], ())

    def call(repeats: int) -> None:
        for _ in range(repeats):
            jax.block_until_ready(evaluate(net.params, net.batch_stats, images, labels))

    call(1)
    return Prepared(networks.about() | {"parameters": net.size}, {"evaluation": call})
