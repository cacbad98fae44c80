"""Run the study: python -m experiments.variants --config=CONFIG --workdir=DIR.

Trains every method over the seeds, measures its costs beside SGD's and writes the report to
DIR/report/index.html. The same command goes on where a cut run stopped.

Try all of it on a few small nets first, and see what a config changes by --print_config:

    python -m experiments.variants --config=configs/variants/digits.py:smoke --workdir=runs/try
"""

from experiments.study.command import main
from experiments.study.study import Settings, Study
from experiments.variants.measure import measure, measure_costs
from experiments.variants.methods import FIELDS, Plan, plan, training_config
from experiments.variants.report import report
from experiments.variants.results import read_results
from experiments.variants.tables import methods_text


def shared_settings(plan: Plan, settings: Settings) -> Settings:
    """Return the settings that the report shows: those that all methods share."""
    settings["methods"] = [method.label for method in plan.arms]
    del settings["training"]["seed"], settings["training"]["method"]["name"]
    del settings["training"]["instruments"]  # nothing is measured with them here
    return settings


STUDY = Study(
    config="configs/variants/digits.py",
    plan=plan,
    training_config=training_config,
    measure=measure,
    measure_across=measure_costs,
    read=read_results,
    report=report,
    summary=methods_text,
    settings=shared_settings,
    fields=FIELDS,
    compile_ahead=True,
)

if __name__ == "__main__":
    main(STUDY)
