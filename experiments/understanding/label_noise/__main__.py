"""Run the study: python -m experiments.understanding.label_noise --config=CONFIG --workdir=DIR.

Trains ERM and SAM with right and with wrong labels and writes the report to
DIR/report/index.html. The same command goes on where a cut run stopped.

Try all of it on a few small nets first, and see what a config changes by --print_config:

    python -m experiments.understanding.label_noise --workdir=runs/try \\
        --config=configs/understanding/label_noise/digits.py:smoke
"""

from experiments.study.command import main
from experiments.study.outcomes import measure_outcome
from experiments.study.study import Study
from experiments.understanding.label_noise.arms import FIELDS, plan, training_config
from experiments.understanding.label_noise.report import errors_text, read_results, report

STUDY = Study(
    config="configs/understanding/label_noise/digits.py",
    plan=plan,
    training_config=training_config,
    measure=lambda plan, run: measure_outcome(run),
    read=read_results,
    report=report,
    fields=FIELDS,
    summary=errors_text,
    compile_ahead=True,
)

if __name__ == "__main__":
    main(STUDY)
