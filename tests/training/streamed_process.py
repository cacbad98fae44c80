"""One process of a streamed epoch: `streamed_process.py INDEX PROCESSES PORT`; prints what it has.

It prints how many examples this one read for training, and
the sums of the parameters and the test loss after the epoch.
"""

import json
import sys

import jax
import numpy as np
from training_problems import tiny_config

from sam_jax.data.splits import InMemory
from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.step import order_after_previous

index, processes, port = map(int, sys.argv[1:])
if processes > 1:
    jax.distributed.initialize(f"localhost:{port}", processes, index)

reads = []
read = InMemory.read


def counted(examples, rows, image_shape):
    reads.extend(rows)
    return read(examples, rows, image_shape)


InMemory.read = counted
config = tiny_config(data__streaming="always", batch_size=8)
source, data = build.load_data(config)
program = build.make_program(config, source, len(data.train_labels))
key = jax.random.key(config.seed)
state = program.init(key)
order = order_after_previous(stream(key, "order"), 0, len(data.train_labels), config.batch_size)
for run_steps, arrays in build.training_calls(config, program, data, order):
    state, _ = run_steps(
        state, *arrays, stream(key, "augmentation"), build.traced_hyperparameters(config)
    )
trained_on = len(reads)
result = program.evaluate(state.params, state.batch_stats, data.test_images, data.test_labels)
sums = [float(np.sum(np.asarray(x), dtype=np.float64)) for x in jax.tree.leaves(state.params)]
print(json.dumps({"reads": trained_on, "sums": sums, "test_loss": float(result.loss)}))
