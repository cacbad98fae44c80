"""The benchmark: work measured side by side, as ratios, with PyTorch in a process of its own.

The files, from the ground up:

- nets.py, worker.py: what both sides share, in the standard library alone.
- jax_side/ and torch_side/: the work of the two sides, one task a file. torch_side/ is no package
  of the project: it is run by a Python that has PyTorch, and imports neither JAX nor sam_jax.
- sides.py, lab.py: start the sides, and time them in turns.
- rows/: the rows of the table, one kind a file.
- presets.py: which rows, in which sizes, in which order.
- growth/: how time and memory grow, a model beside the measurements, and forecasts.
- report.py, page.py: records -> CSV, Markdown, figures and pages.
"""
