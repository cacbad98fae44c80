"""Task: the evaluation of a set, as the commands do it after every epoch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.jax_side import networks
from experiments.benchmark.nets import NETS
from experiments.benchmark.worker import Prepared
from sam_jax.training.evaluation import Evaluation, Inputs, evaluate_set, make_logits_fn
from sam_jax.typing import Params, PyTree


def prepare(case: dict[str, Any]) -> Prepared:
    """Compile the evaluation of `case["examples"]` random uint8 images in batches."""
    net, image = networks.network(case["net"]), NETS[case["net"]].image
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (case["examples"], *image), np.uint8))
    labels = jnp.asarray(random.integers(0, 10, case["examples"], np.int32))
    inputs = Inputs((0.5,) * image[-1], (0.25,) * image[-1])
    logits_fn = make_logits_fn(net.model, inputs)

    @jax.jit
    @jax.default_matmul_precision("highest")
    def evaluate(
        params: Params, batch_stats: PyTree, images: jax.Array, labels: jax.Array
    ) -> Evaluation:
        of_images = functools.partial(logits_fn, params, batch_stats)
        return evaluate_set(of_images, images, labels, case["batch"])

    def call(repeats: int) -> None:
        for _ in range(repeats):
            jax.block_until_ready(evaluate(net.params, net.batch_stats, images, labels))

    call(1)
    return Prepared(networks.about() | {"parameters": net.size}, {"evaluation": call})
