"""The page itself: one file with its style, its script and plotly.js in it."""

import pathlib
from typing import Any

import jinja2

from sam_jax.live.curves import CHARTS
from sam_jax.live.summary import STATES
from sam_jax.plotting import page_parts

TEMPLATES = pathlib.Path(__file__).with_name("templates")
COLUMNS = (
    ("Arm", True),  # whether it holds texts
    ("Seed", False),
    ("State", True),
    ("Epoch", False),
    ("Training loss", False),
    ("Training accuracy", False),
    ("Test loss", False),
    ("Test accuracy", False),
    ("Images/s", False),
    ("Time left", False),
    ("Notes", True),
)


def page(folder: str, data: dict[str, Any] | None = None) -> bytes:
    """Return the page as HTML.

    Args:
      folder: the name of the folder of the runs, for the title.
      data: all runs, as `watch.everything` returns them, for a page that stays as it is; None for
        one that asks its server for `runs.json` again and again.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, page_parts.TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("dashboard.html.j2").render(
        title=folder,
        columns=COLUMNS,
        about={"charts": [chart._asdict() for chart in CHARTS], "states": STATES},
        data=data,
        library=page_parts.plotting_library,
    )
    return text.encode(errors="replace")  # a name of a folder may be no text
