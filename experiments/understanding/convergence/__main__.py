"""Test where m-SAM converges: python -m experiments.understanding.convergence --workdir=DIR.

Hardware: two CPU cores, a minute and a half. Expected: all claims hold but one, that SAM's floor on
the net stays: it sinks.

Try all of it in seconds first:

    python -m experiments.understanding.convergence --smoke --workdir=runs/try
"""

from experiments.understanding.command import Experiment, main
from experiments.understanding.convergence.report import report
from experiments.understanding.convergence.run import SMOKE, Settings, check, compute

EXPERIMENT = Experiment(Settings(), SMOKE, compute, report, check)

if __name__ == "__main__":
    main(EXPERIMENT)
