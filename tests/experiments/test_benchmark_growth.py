"""Growth: the model where the world is as it says, forecasts by hand, and the page."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.benchmark import tasks
from experiments.benchmark.growth import forecast, model, page
from experiments.benchmark.growth.hardware import SAM_RATE, TPU_V4
from experiments.benchmark.presets import PRESETS
from experiments.benchmark.report import report
from sam_jax.runs import records


def points_of(xs, **values):
    """Points as a sweep measures them, each value a function of x."""
    return [{"x": x} | {name: value(x) for name, value in values.items()} for x in xs]


@pytest.mark.parametrize(
    "sweep, memory",
    [
        ("batch", lambda x: 8 * 100 + 50 * x),
        ("m_scan", lambda x: (8 + 4 * (x < 8)) * 100 + 50 * x),
        ("m_vmap", lambda x: 50 * 8 + 8 * 100 * 8 / x),
        ("seeds", lambda x: 70 * x),
        ("points", lambda x: 900),
        ("directions", lambda x: 900),
    ],
)
def test_the_model_is_exact_where_the_world_is_as_it_says(sweep, memory):
    """A hundred parameters of four bytes; a gradient and a perturbation are two copies."""
    time = {
        "batch": lambda x: 0.1 * x,
        "seeds": lambda x: 0.1 * x,
        "points": lambda x: 0.1 * x,
        "directions": lambda x: 0.1 * (1 + 2 * x),
    }.get(sweep, lambda x: 0.5)
    points = points_of(
        (2, 4, 8), seconds=time, operations=lambda x: 7.0 * x, temporary_bytes=memory
    )
    for found, point in zip(model.predicted(sweep, points, 100), points, strict=True):
        np.testing.assert_allclose(found, [point["seconds"], point["temporary_bytes"]])
    points[0]["temporary_bytes"] *= 2  # of a point that calibrates nothing
    assert model.predicted(sweep, points, 100)[0][1] != points[0]["temporary_bytes"]


def test_a_common_perturbation_sums_the_gradient_twice():
    points = points_of((1, 2, 8), operations=lambda x: 80.0 / x)
    common, local = (
        model.predicted(f"devices_{name}", points, 100) for name in ("common", "local")
    )
    assert [operations for operations, _ in common] == [80.0, 40.0, 10.0]
    assert [summed for _, summed in common] == [0.0, 800.0, 800.0]
    assert [summed for _, summed in local] == [0.0, 400.0, 400.0]


def test_forecasts_follow_their_assumptions():
    trained, evaluated, seeds = forecast.study_on_one_gpu(rate=5000.0)
    assert seeds.high == pytest.approx(3 * (trained.high + evaluated.high))
    # Eleven models: SGD 1 and 2, five SAMs 2 each, four average SAMs 1 each; and two curves.
    assert trained.low == pytest.approx((3 + 10 + 4 + 2) * 200 * 50_000 / 10_000)
    assert trained.low == pytest.approx(2 * forecast.study_on_one_gpu(10_000.0)[0].low)
    assert evaluated.high == 2 * evaluated.low > trained.low
    one = forecast.by_operations("x", "ResNet-50", 1e6, 2, 1, TPU_V4, bfloat16=True)
    # 8.2 G operations forward, three times that for a gradient, and two gradients.
    assert one.low == pytest.approx(6 * 8.2e15 / (0.45 * 275e12))
    many = forecast.by_operations("x", "ResNet-50", 1e6, 2, 64, TPU_V4, bfloat16=True)
    assert one.high / many.high == pytest.approx(64)
    rows = forecast.paper_on_eight_gpus()
    assert forecast.whole_paper_table(rows).low == pytest.approx(6 * sum(r.low for r in rows))


def test_the_page_of_growth_from_stored_records(tmp_path, undrawn):
    task = next(task for task in PRESETS["growth"].tasks() if task.case["sweep"] == "batch")
    points = points_of(
        task.case["values"],
        seconds=lambda x: 0.01 * x,
        operations=lambda x: 1e6 * x,
        temporary_bytes=lambda x: 1e5 * x,
        collective_bytes=lambda x: 0,
    )
    software = {"jax": {"jax": "0.1", "platform": "cpu", "parameters": 100}}
    fields = {"work": "batch", "points": points, "software": software}
    records.append(tmp_path / "records.jsonl", tasks.about(task) | fields)
    table = report([task], tmp_path).table.markdown()
    assert "A SAM step over the batch" in table and "| 1.00 |" in table
    text = (tmp_path / "report" / "growth.html").read_text()
    rate = f"{SAM_RATE:,.0f} images/s"
    for words in ("growth_batch.png", "NVLink", rate, "the whole table", "ImageNet"):
        assert words in text
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "growth.csv")
    assert numbers.shape == (10, 6) and not numbers.isna().any(axis=None)


def test_the_worst_misses_of_the_model_come_first():
    rows = [
        ("batch", "seconds", 2.0, 2.5),
        ("batch", "seconds", 4.0, 4.0),
        ("batch", "temporary_bytes", 0.0, 0.0),  # nothing was measured to miss
        ("points", "seconds", 1.0, 0.2),
        ("seeds", "seconds", math.nan, 1.0),
    ]
    frame = pd.DataFrame(rows, columns=["sweep", "quantity", "measured", "model"])
    assert page.sentences(frame) == [
        "A loss surface over its points: the model misses the seconds by at most 80%.",
        "A SAM step over the batch: the model misses the seconds by at most 25%.",
    ]
    assert len(page.sentences(frame, most=1)) == 1
