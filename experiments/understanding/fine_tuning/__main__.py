"""Run the study: python -m experiments.understanding.fine_tuning --config=CONFIG --workdir=DIR.

Trains ERM and SAM, fine-tunes each with either method, measures the lines between start and end
and writes the report to DIR/report/index.html. The same command goes on where a cut run stopped.

Try all of it on a few small nets first, and see what a config changes by --print_config:

    python -m experiments.understanding.fine_tuning --workdir=runs/try \\
        --config=configs/understanding/fine_tuning/digits.py:smoke
"""

from experiments.study.command import main
from experiments.study.outcomes import measure_outcome
from experiments.study.study import Study
from experiments.understanding.fine_tuning.arms import FIELDS, plan, starts_from, training_config
from experiments.understanding.fine_tuning.lines import fits, measure_lines
from experiments.understanding.fine_tuning.report import errors_grid, read_results, report

STUDY = Study(
    config="configs/understanding/fine_tuning/digits.py",
    plan=plan,
    training_config=training_config,
    measure=lambda plan, run: measure_outcome(run),
    measure_across=measure_lines,
    starts_from=starts_from,
    read=read_results,
    report=report,
    fits=fits,
    fields=FIELDS,
    summary=lambda results: errors_grid(results).text(),
)

if __name__ == "__main__":
    main(STUDY)
