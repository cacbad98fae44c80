"""The common part of all studies: arms x seeds x measurements, tables, figures, claims and pages.

A study is one value, a `Study`, and its command is `main(study)`. The shortest whole study is
tests/experiments/toy_study.py. The files, from the ground up:

- formats.py, grid.py: numbers and tables as text; CSV, Markdown, plain text and HTML.
- arms.py, results.py: the things a study trains, and the results of the runs, read once.
- table.py, figures.py: means over seeds with their errors; figures with their captions.
- evidence.py, claims.py, verdicts.py: claims as tests, with effect, interval and verdict.
- comparison.py: which arms the seeds separate, and how many seeds would separate the others.
- findings.py, surfaces.py, provenance.py: what was found, in sentences; planes that a reader turns;
  the command, the config beside its base, and the raw records.
- pages.py, embedded.py with templates/: the pages of a report, each one file.
- study.py, compilation.py, runs.py, command.py: train, measure, resume and report.
"""
