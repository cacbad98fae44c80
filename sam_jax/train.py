"""Train one model: python -m sam_jax.train --config=configs/digits.py --workdir=runs/digits.

Writes metrics.jsonl, checkpoints, config.json and TensorBoard files to WORKDIR. Any field of the
config can be given on the command line. The same command goes on where a cut run stopped.

Try it in seconds, see what a config changes, and train with another method:

    python -m sam_jax.train --config=configs/digits.py:smoke --workdir=runs/try
    python -m sam_jax.train --config=configs/cifar10.py --print_config
    python -m sam_jax.train --config=configs/digits.py --workdir=runs/asam \\
        --config.method.name=asam --config.method.rho=0.5

Then measure the minimum: python -m sam_jax.evaluate --workdir=runs/asam.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from sam_jax.measuring import settings
from sam_jax.mistakes import checking
from sam_jax.runs import config_flag, signals
from sam_jax.runs.distributed import is_first
from sam_jax.runs.flags import define_config, define_distributed, define_workdir, run_command
from sam_jax.training.replay import NonFiniteError
from sam_jax.training.train_and_evaluate import train_and_evaluate

_CONFIG = define_config()
_WORKDIR = define_workdir("The folder of the run.")
_ACCEPT = flags.DEFINE_bool(
    "accept_config_changes", False, "Go on in a folder that was made with another config."
)
define_distributed()


def main(argv: Sequence[str]) -> int:
    """Train the config that the flags name; 1 where numbers that are not finite stopped it."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    with checking():
        settings.check(_CONFIG.value.instruments)
    workdir = pathlib.Path(_WORKDIR.value)
    try:
        with signals.handled():
            record = train_and_evaluate(
                _CONFIG.value, workdir, accept_config_changes=_ACCEPT.value, tell=_describe
            )
    except NonFiniteError as error:
        if is_first():
            print(error, file=sys.stderr)
        return 1
    if not is_first():
        return 0
    print(
        f"epoch {record['epoch']}: train loss {record['train_loss']:.4f}, "
        f"train accuracy {record['train_accuracy']:.2%}, test loss {record['test_loss']:.4f}, "
        f"test accuracy {record['test_accuracy']:.2%}; everything is in {workdir}"
    )
    return 0


def _describe() -> None:
    """Say what the config changes of its base, once nothing speaks against the training."""
    if is_first():
        print(config_flag.description(apart="instruments"), flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_command(main)
