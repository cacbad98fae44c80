"""One of several processes that train, evaluate and measure tiny models.

`several_processes.py all FOLDER [FLAGS]` trains, evaluates and measures, with the flags of several
processes or alone. `several_processes.py killed FOLDER FLAGS` is the command of a training in which
process 1 is killed before the second checkpoint. The file is also the config of this command.
"""

import os
import pathlib
import signal
import sys
import unittest.mock

from absl import flags, logging
from training_problems import tiny_config

from sam_jax.measuring.measure import measure_run
from sam_jax.runs import checkpoints
from sam_jax.runs.flags import define_distributed, run_command
from sam_jax.training.train_and_evaluate import train_and_evaluate

# The folder of a run -> where its gradients of the perturbation are averaged, a method, one of them
# with a key in its state, and whether the set is streamed.
RUNS = {
    "local": ("local", "ss_sam", "never"),
    "groups": ("2", "sam", "always"),
    "all": ("all", "sam", "never"),
}
MEASURED = "local"
# An instrument of each way to share the work: examples, batches, directions, products, grid points.
MEASURES = ("evaluation", "adversarial_sharpness", "asymmetry_factor", "hessian", "loss_line")


def get_config(run=MEASURED):
    """Return the config of a run."""
    synchronise, method, streaming = RUNS[run]
    changes = {"method__synchronise": synchronise, "method__name": method}
    changes["data__streaming"] = streaming
    return tiny_config(epochs=2, batch_size=16, checkpoint__every_epochs=1, **changes)


def train_and_measure(folder):
    logging.set_verbosity(logging.WARNING)  # as the commands do
    for run in RUNS:
        train_and_evaluate(get_config(run), folder / run)
    train_and_evaluate(get_config(), folder / "uninterrupted")
    measure_run(folder / MEASURED, measures=MEASURES)


def train_until_killed(argv):
    from sam_jax import train  # which defines flags, as other commands do

    save = checkpoints.save

    def save_or_die(manager, epoch, state):
        if epoch == 2 and flags.FLAGS.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        save(manager, epoch, state)

    with unittest.mock.patch.object(checkpoints, "save", save_or_die):
        train.main(argv)


if __name__ == "__main__":
    _, what, folder = sys.argv[:3]
    if what == "killed":
        import sam_jax.train  # noqa: F401  (before its flags are parsed)

        sys.argv[1:3] = [f"--config={__file__}", f"--workdir={folder}"]
        run_command(train_until_killed)
    else:
        define_distributed()
        del sys.argv[1:3]
        run_command(lambda _: train_and_measure(pathlib.Path(folder)))
