"""What the study's tables hold, and what they say of each other."""

import numpy as np
import pytest

from experiments.even_better.paper.published import published_cells, published_values
from sam_jax.statistics import correlation


@pytest.mark.parametrize(
    ("batch", "rho", "r"),
    [
        ("small", 0.05, 0.8367),
        ("small", 0.1, 0.8426),
        ("small", 0.2, 0.8626),
        ("large", 0.05, 0.9530),
        ("large", 0.1, 0.9419),
        ("large", 0.2, 0.9392),
    ],
)
def test_the_sharpness_goes_with_the_test_loss(batch, rho, r):
    # r of the study's unrounded data, which it did not print. The two or three digits of Table 5
    # move it by less than 0.01.
    values = published_values("adversarial_sharpness", batch, rho)
    found = correlation(values, published_values("test_loss"), resamples=9)
    assert found.n == 10
    assert found.r == pytest.approx(r, abs=0.01)


def test_perturbed_loss_minus_sharpness_is_the_unperturbed_loss():
    # It does not depend on the perturbation's size, only on m; the rounding of the four numbers
    # to 3 digits (2 for m = 128, rho = 0.2, and for Tables 6 and 7) adds up to these bounds,
    # and the order of the examples moves the loss at m = 128 by up to 0.002 more.
    def unperturbed(kind, batch, rho):
        loss = published_values(f"{kind}_loss", batch, rho)
        return loss - published_values(f"{kind}_sharpness", batch, rho)

    for rho in (0.1, 0.2):
        difference = unperturbed("adversarial", "large", rho) - unperturbed(
            "adversarial", "large", 0.05
        )
        assert np.abs(difference).max() <= 0.002 + 1e-9
    for batch in ("small", "large"):
        difference = unperturbed("average", batch, 0.5) - unperturbed("average", batch, 1.0)
        assert np.abs(difference).max() <= 0.02 + 1e-9


def test_published_cells_are_complete_and_corrections_carry_notes():
    cells = published_cells()
    counts = {number: sum(cell.table == number for cell in cells) for number in (1, 2, 5, 6, 7)}
    assert counts == {1: 40, 2: 60, 5: 60, 6: 40, 7: 40}
    assert len({(cell.table, cell.row, cell.column) for cell in cells}) == 240
    changed = [cell for cell in cells if cell.printed != cell.corrected]
    assert {(cell.table, *cell.column[1:]) for cell in changed} == {
        (2, "large", 0.05),
        (2, "large", 0.1),
        (6, "large", 1.0),
    }
    assert len(changed) == 30
    assert {bool(cell.note) for cell in changed} == {True}
    # What Table 6 prints there is Table 7's column.
    printed = [float(c.printed) for c in cells if c.column == ("average_sharpness", "large", 1.0)]
    np.testing.assert_array_equal(printed, published_values("average_loss", "large", 1.0))
