"""What every study shares: arms x seeds x measurements, then tables, figures, claims and pages.

A study is one value, a `Study`, and its command is `main(study)`. The files, from the ground up:

- formats.py, grid.py: numbers and tables as text; CSV, Markdown, plain text and HTML.
- arms.py, results.py: what is trained, and what the runs left, read once.
- table.py, figures.py: means over seeds with their errors; figures with their captions.
- evidence.py, claims.py, comparison.py: claims as tests; which arms the seeds separate.
- pages.py with templates/: the pages of a report.
- runs.py, study.py, command.py: train and measure, go on where a cut run stopped, report.
"""
