"""The live page of runs: `python -m sam_jax.dashboard DIR` serves it.

- `folders` finds the runs below a folder;
- `logs` reads what is new in a file that grows;
- `summary` makes of the files of a run what the page shows: its row and its curves;
- `watch` remembers all runs from one look to the next, and answers what changed;
- `page` and `server` show it.

Nothing here writes to a run or takes its lock, and no file of a run, damaged or half written, is an
error: what cannot be read is a note at its run.
"""

from sam_jax import extras

extras.needs(__name__, "lab", "jinja2")
