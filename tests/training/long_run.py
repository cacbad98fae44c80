"""Many epochs of a tiny problem: `long_run.py EPOCHS WORKDIR`; prints what it takes, as JSON.

Prints the resident memory and the number of compiled programs after every epoch, and the seconds of
the processor.
"""

import json
import os
import pathlib
import sys
import time

from training_problems import count_compilations, tiny_config

from sam_jax.training import train_and_evaluate as module

PAGE = os.sysconf("SC_PAGE_SIZE")
epochs, workdir = int(sys.argv[1]), pathlib.Path(sys.argv[2])
memory, programs = [], []


class Watched(module.Progress):
    """A progress that notes the memory and the programs at every call, one an epoch."""

    def advance(self, images, loss, accuracy):
        memory.append(PAGE * int(pathlib.Path("/proc/self/statm").read_text().split()[1]))
        programs.append(len(compiled))
        super().advance(images, loss, accuracy)


module.Progress = Watched
with count_compilations() as compiled:
    often = {"checkpoint__every_epochs": 10, "evaluation__train_every_epochs": 1}
    config = tiny_config(epochs=epochs, **often)
    module.train_and_evaluate(config, workdir)
print(json.dumps({"memory": memory, "programs": programs, "seconds": time.process_time()}))
