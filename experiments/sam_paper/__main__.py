"""Run the study: python -m experiments.sam_paper --config=CONFIG --workdir=DIR.

Trains SGD and SAM in the settings of the first SAM paper and writes the report to
DIR/report/index.html. The same command goes on where a cut run stopped.

Try all of it on a few small nets first, and see what a config changes by --print_config:

    python -m experiments.sam_paper --config=configs/sam_paper/digits.py:smoke --workdir=runs/try
"""

from experiments.sam_paper.measure import fits, measure
from experiments.sam_paper.report import report
from experiments.sam_paper.results import read_results
from experiments.sam_paper.settings import FIELDS, plan, training_config
from experiments.sam_paper.tables import errors_text
from experiments.study.command import main
from experiments.study.study import Study

STUDY = Study(
    config="configs/sam_paper/digits.py",
    plan=plan,
    training_config=training_config,
    measure=measure,
    read=read_results,
    report=report,
    fits=fits,
    summary=errors_text,
    fields=FIELDS,
    compile_ahead=True,
)

if __name__ == "__main__":
    main(STUDY)
