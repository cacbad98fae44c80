"""Run the study: python -m experiments.even_better --config=CONFIG --workdir=DIR.

Trains its models, measures their minima and the planes around them, and trains the curves between
pairs of them. Writes the report to DIR/report/index.html; beside it stand the study's own numbers,
recomputed (published.html), and its claims, tested (claims.html). The same command goes on where a
cut run stopped.

Try all of it on a few small nets first, and see what a config changes by --print_config:

    python -m experiments.even_better --config=configs/even_better/digits.py:smoke \\
        --workdir=runs/try
"""

from experiments.even_better.arms import FIELDS, PER_MODEL, Plan, plan, training_config
from experiments.even_better.pages.index import report, summary_text
from experiments.even_better.read.results import read_results
from experiments.even_better.run.measure import fits, measure, measure_curves
from experiments.study.command import main
from experiments.study.study import Settings, Study


def shared_settings(plan: Plan, settings: Settings) -> Settings:
    """Return the settings that the report shows: those that the study sets for all models alike."""
    training = settings["training"]
    for group, name in PER_MODEL:
        del (training[group] if group else training)[name]
    return settings


STUDY = Study(
    config="configs/even_better/digits.py",
    plan=plan,
    training_config=training_config,
    measure=measure,
    measure_across=measure_curves,
    read=read_results,
    report=report,
    fits=fits,
    summary=summary_text,
    settings=shared_settings,
    fields=FIELDS,
)

if __name__ == "__main__":
    main(STUDY)
