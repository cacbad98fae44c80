"""Compute a step of a run once more, watched: python -m sam_jax.replay --workdir=runs/digits.

The run goes on from its newest checkpoint before the step, and writes nothing. Of the step and the
one before it every quantity is shown in the order of computation: the largest number in it, and
the arrays that are not finite.

    python -m sam_jax.replay --workdir=runs/digits --step=120
"""

import pathlib
from collections.abc import Sequence

from absl import app, flags, logging

from sam_jax.runs.distributed import is_first
from sam_jax.runs.flags import define_distributed, define_workdir, run_command
from sam_jax.training.replay_run import lines, replay_run

_WORKDIR = define_workdir("The folder of a run of sam_jax.train.")
_STEP = flags.DEFINE_integer(
    "step", None, "The step, from 1; by default the one that stopped the run.", lower_bound=1
)
define_distributed()


def main(argv: Sequence[str]) -> None:
    """Show the step that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    found = replay_run(pathlib.Path(_WORKDIR.value), _STEP.value)
    if is_first():
        print("\n".join(line for step in found for line in lines(step)))


if __name__ == "__main__":
    run_command(main)
