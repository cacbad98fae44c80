"""Train the diagonal networks: python -m experiments.understanding.diagonal_nets --workdir=DIR.

Hardware: two CPU cores, half a minute. Expected: every recorded test loss to a relative 1e-6.

Try all of it in seconds first:

    python -m experiments.understanding.diagonal_nets --smoke --workdir=runs/try
"""

from experiments.understanding.command import Experiment, main
from experiments.understanding.diagonal_nets.report import report
from experiments.understanding.diagonal_nets.run import SMOKE, Settings, compute

EXPERIMENT = Experiment(Settings(), SMOKE, compute, report)

if __name__ == "__main__":
    main(EXPERIMENT)
