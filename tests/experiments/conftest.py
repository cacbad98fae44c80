"""What the tests of the studies share."""

import pathlib

import pytest

from sam_jax import plotting


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the files of figures empty: drawing takes more than half the time of a report."""

    def save(figure, path_stem):
        png, svg = (pathlib.Path(f"{path_stem}.{kind}") for kind in ("png", "svg"))
        png.parent.mkdir(parents=True, exist_ok=True)
        png.touch()
        svg.touch()
        return png, svg

    monkeypatch.setattr(plotting, "save", save)
