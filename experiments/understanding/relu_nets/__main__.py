"""Train nets with one hidden layer: python -m experiments.understanding.relu_nets --workdir=DIR.

Hardware: two CPU cores, half a minute for the released million iterations. Expected over five seeds
(mean and standard error): 60 +- 1 kinks with GD and 21 +- 2 with SAM; an l1 norm of 770 +- 23 and
398 +- 12.

Try all of it in seconds first:

    python -m experiments.understanding.relu_nets --smoke --workdir=runs/try
"""

from experiments.understanding.command import Experiment, main
from experiments.understanding.relu_nets.report import report
from experiments.understanding.relu_nets.run import SMOKE, Settings, compute

EXPERIMENT = Experiment(Settings(), SMOKE, compute, report)

if __name__ == "__main__":
    main(EXPERIMENT)
