"""One process of a streamed epoch: `streamed_process.py INDEX PROCESSES PORT`; prints what it has.

It prints how many examples this one read for training and for the evaluation, and
the sums of the parameters and the test loss after the epoch.
"""

import json
import sys

import jax
import numpy as np
from training_problems import tiny_config

from sam_jax.data.splits import InMemory
from sam_jax.training import build
from sam_jax.training.train_and_evaluate import training_calls

index, processes, port = map(int, sys.argv[1:])
if processes > 1:
    jax.distributed.initialize(f"localhost:{port}", processes, index)

reads = []
read = InMemory.read


def counted(examples, rows, image_shape, seeds=None):
    reads.extend(rows)
    return read(examples, rows, image_shape, seeds)


InMemory.read = counted
config = tiny_config(data__streaming="always", batch_size=8)
source, data = build.load_data(config)
program = build.make_program(config, source, len(data.train_labels))
state = program.init(jax.random.key(config.seed))
for run_steps, arguments in training_calls(config, program, data, epoch=0):
    state, _ = run_steps(state, *arguments)
trained_on = len(reads)
result = program.evaluate(state.params, state.batch_stats, data.test_images, data.test_labels)
sums = [float(np.sum(np.asarray(x), dtype=np.float64)) for x in jax.tree.leaves(state.params)]
counts = {"reads": trained_on, "evaluated": len(reads) - trained_on}
print(json.dumps(counts | {"sums": sums, "test_loss": float(result.loss)}))
