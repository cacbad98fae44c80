"""What the tests of the studies share."""

import pathlib

import pytest
from PIL import Image

from sam_jax import plotting


@pytest.fixture
def undrawn(monkeypatch):
    """Draw nothing into the files of figures: it takes more than half the time of a report."""

    def save(figure, path_stem):
        png, svg = (pathlib.Path(f"{path_stem}.{kind}") for kind in ("png", "svg"))
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(png)
        svg.touch()
        return png, svg

    monkeypatch.setattr(plotting, "save", save)
