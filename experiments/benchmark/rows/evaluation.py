"""The evaluation of a set, against PyTorch."""

from collections.abc import Iterator

from experiments.benchmark import measured, nets
from experiments.benchmark.lab import Lab
from experiments.benchmark.rows.texts import images_per_second, of_case, torch_name
from experiments.benchmark.rows.versus import versus
from experiments.benchmark.tasks import Line, Task
from sam_jax.runs.records import Record

REACH = 2.5  # times PyTorch's images/s


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield the record of a case."""
    yield from versus(task, lab, ["evaluation"], "evaluation", "evaluation")


def lines(record: Record) -> list[Line]:
    """Return the line of a record."""
    case = record["case"]
    on_gpu = record["software"]["jax"]["platform"] != "cpu"
    clock = "wall" if on_gpu else measured.judged_clock(case)
    by_clock = {name: measured.of_record(record, "torch", "jax", name) for name in measured.CLOCKS}
    return [
        Line(
            "evaluation",
            f"Evaluation, {nets.title(case['net'])}, {of_case(case)}",
            torch_name(record),
            by_clock[clock],
            reach=REACH,
            at_least=True,
            wall=by_clock["wall"],
            processor=by_clock["processor"],
            ours=images_per_second(record, "jax", clock),
            theirs=images_per_second(record, "torch", clock),
            note=record["torch_error"],
        )
    ]
