"""The page of growth: figures of the model and the measurements, their numbers, and forecasts."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.benchmark import nets
from experiments.benchmark.growth import forecast
from experiments.benchmark.growth.hardware import H100, MEASURED, TPU_V4
from experiments.benchmark.growth.model import SWEEPS, predicted
from experiments.study.figures import ReportFigure
from experiments.study.grid import Grid, csv_text
from experiments.study.pages import LinkedGrid, Opening, Section, write_report, write_table
from sam_jax import plotting
from sam_jax.runs.records import Record

TITLE = "How time and memory grow"
INTRODUCTION = (
    "Dots are measurements of this machine, or counts of its compiled programs. Lines are a model "
    "that counts operations, copies of the parameters and collectives. One point calibrates it: "
    "the largest, or for devices a single one.",
    "The devices are eight of one processor, so their operations and collectives are those of the "
    "compiled program, and their time says nothing.",
)
LABELS = {
    "seconds": ("ms", 1e3),
    "operations": ("million operations a device", 1e-6),
    "temporary_bytes": ("temporary memory / MB", 1e-6),
    "collective_bytes": ("bytes of collectives / MB", 1e-6),
}

WIDE = 4.0  # a panel whose numbers differ by more has a logarithmic axis


def write_growth(
    found: Sequence[Record], folder: pathlib.Path, made_with: dict[str, Any]
) -> pathlib.Path:
    """Write `folder/growth.html` with its figures and tables, and return its path.

    Args:
      found: the records of sweeps.
      folder: of the report.
      made_with: the settings that the page shows.
    """
    figures = [_figure(number, record) for number, record in enumerate(found, 1)]
    numbers = _numbers(found)
    sections = [
        *(
            Section(SWEEPS[record["work"]].title, [_words(record)], figures=[figure])
            for record, figure in zip(found, figures, strict=True)
        ),
        Section(
            "Forecasts",
            _forecast_words(),
            [_forecast_table(folder, *parts) for parts in _forecasts()],
        ),
        Section("Numbers", grids=[_numbers_table(folder, numbers)]),
    ]
    opening = Opening(sentences(numbers))
    return write_report(
        folder, TITLE, INTRODUCTION, sections, made_with, name="growth.html", opening=opening
    )


def sentences(numbers: pd.DataFrame, most: int = 5) -> list[str]:
    """Return how far the model is from what was measured, a sentence a sweep, the worst first.

    Args:
      numbers: a line a point, as in `growth.csv`.
      most: how many sentences.
    """
    found = []
    for name, points in numbers.groupby("sweep", sort=False):
        worst = {}
        for quantity, own in points.groupby("quantity", sort=False):
            both = zip(own["model"], own["measured"], strict=True)
            apart = [abs(model / measured - 1) for model, measured in both if measured]
            if apart and all(map(math.isfinite, apart)):
                words = str(quantity).replace("_", " ")
                worst[f"the {words} by at most {100 * max(apart):.2g}%"] = max(apart)
        if worst:
            title = SWEEPS[str(name)].title
            sentence = f"{title}: the model misses {' and '.join(worst)}."
            found.append((max(worst.values()), sentence))
    return [sentence for _, sentence in sorted(found, reverse=True)[:most]]


def _words(record: Record) -> str:
    case, sweep = record["case"], SWEEPS[record["work"]]
    batch = f", {case['batch']} images" if "batch" in case else ""
    return f"{nets.title(case['net'])}{batch}. The model: {sweep.words}."


def _figure(number: int, record: Record) -> ReportFigure:
    sweep, points = SWEEPS[record["work"]], record["points"]
    model = predicted(record["work"], points, record["software"]["jax"]["parameters"])
    figure, panels = plotting.small_multiples(2, 2)
    xs = [point["x"] for point in points]
    for panel, (axes, name) in enumerate(zip(panels, (sweep.quantity, sweep.memory), strict=True)):
        label, scale = LABELS[name]
        measured = [scale * point[name] for point in points]
        line = [scale * numbers[panel] for numbers in model]
        axes.plot(xs, line, color=plotting.GREY, label="model")
        axes.plot(xs, measured, "o", color=plotting.PALETTE[1], label="measured")
        axes.set_xlabel(sweep.x)
        axes.set_ylabel(label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(xs, [str(x) for x in xs])
        axes.minorticks_off()
        finite = [x for x in (*measured, *line) if math.isfinite(x)] or [1.0]
        if min(finite) > 0 and max(finite) > WIDE * min(finite):
            plotting.set_scale(axes, "y", finite, "log")
        else:
            axes.set_ylim(0, 1.15 * max(finite) or 1.0)
    panels[0].legend(frameon=False)
    return ReportFigure(f"Figure {number}", f"growth_{record['work']}", f"{sweep.title}.", figure)


def _numbers(found: Sequence[Record]) -> pd.DataFrame:
    """Return a line a point, with what was measured and what the model says."""
    rows = []
    for record in found:
        sweep = SWEEPS[record["work"]]
        model = predicted(record["work"], record["points"], record["software"]["jax"]["parameters"])
        for point, numbers in zip(record["points"], model, strict=True):
            for panel, name in enumerate((sweep.quantity, sweep.memory)):
                rows.append(
                    {
                        "sweep": record["work"],
                        "axis": sweep.x,
                        "x": point["x"],
                        "quantity": name,
                        "measured": point[name],
                        "model": numbers[panel],
                    }
                )
    columns = ["sweep", "axis", "x", "quantity", "measured", "model"]
    return pd.DataFrame(rows, columns=columns)


def _numbers_table(folder: pathlib.Path, numbers: pd.DataFrame) -> LinkedGrid:
    rows = [
        [
            SWEEPS[row["sweep"]].title,
            f"{row['x']} {row['axis']}",
            row["quantity"].replace("_", " "),
            f"{row['measured']:.4g}",
            f"{row['model']:.4g}",
            f"{row['measured'] / row['model']:.2f}" if row["model"] else "",
        ]
        for row in numbers.to_dict("records")
    ]
    heads = ["Sweep", "At", "Quantity", "Measured", "Model", "Measured / model"]
    return write_table(folder, "growth", csv_text(numbers), Grid(heads, rows, text_columns=3))


def _forecasts() -> list[tuple[str, str, list[forecast.Forecast]]]:
    paper = forecast.paper_on_eight_gpus()
    return [
        ("study", "The study on CIFAR-10; parts of one seed, and all", forecast.study_on_one_gpu()),
        (
            "paper",
            "The CIFAR table of the SAM paper, each net on one set with one augmentation",
            [*paper, forecast.whole_paper_table(paper)],
        ),
        ("imagenet", "ImageNet with SAM, batch 4096", forecast.imagenet_on_a_pod()),
    ]


def _forecast_table(
    folder: pathlib.Path, stem: str, caption: str, rows: Sequence[forecast.Forecast]
) -> LinkedGrid:
    texts = [
        [row.what, row.on, _duration(row.low), _duration(row.high), row.assumption] for row in rows
    ]
    grid = Grid(["What", "On", "From", "To", "Assumptions"], texts, caption=caption, text_columns=5)
    frame = pd.DataFrame([row._asdict() for row in rows])
    return write_table(folder, f"forecast_{stem}", csv_text(frame), grid)


def _duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    >>> _duration(90.0), _duration(7200.0), _duration(864000.0)
    ('1.5 min', '2.0 h', '10.0 d')
    """
    if seconds < forecast.HOUR:
        return f"{seconds / 60:.1f} min"
    if seconds < 2 * forecast.DAY:
        return f"{seconds / forecast.HOUR:.1f} h"
    return f"{seconds / forecast.DAY:.1f} d"


def _forecast_words() -> list[str]:
    mobilenet = 2 * 94e6 * 6 * MEASURED[0].images_per_second
    reductions = [
        f"{1e3 * forecast.reduction_seconds(parameters, chips, chip, 1):.2g} ms for {words}"
        for parameters, chips, chip, words in (
            (36_500_000, 8, H100, "WRN-28-10 on eight H100"),
            (25_600_000, 256, TPU_V4, "ResNet-50 on 256 TPU v4"),
        )
    ]
    rates = "; ".join(f"{rate.what}: {rate.images_per_second:,.0f} images/s" for rate in MEASURED)
    return [
        "None of these was run. Every number rests on the assumptions beside it: change one, and "
        "the forecast changes in proportion.",
        f"Measured in earlier runs: {rates}. At 94 million multiply-adds that is "
        f"{mobilenet / 1e12:.1f} TFLOPS, {100 * mobilenet / H100.float32:.1f} % of the card's TF32 "
        "peak: depthwise convolutions and batch norms are bound by memory, so MobileNetV2 is "
        "forecast from its measured rate. The other nets are dense convolutions, and are forecast "
        "from their operations.",
        f"Peaks: {H100.source}. {TPU_V4.source}.",
        "Summing the gradient over the chips, once a step with local perturbations and twice with "
        f"a common one, takes {', '.join(reductions)}, if nothing overlaps. The numbers leave it "
        "out.",
    ]
