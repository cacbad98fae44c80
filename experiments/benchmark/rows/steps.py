"""Training steps of SGD and SAM, against the same algorithm in PyTorch."""

from collections.abc import Iterator

from experiments.benchmark import measured, nets
from experiments.benchmark.lab import Lab
from experiments.benchmark.rows.texts import images_per_second, of_case, torch_name
from experiments.benchmark.rows.versus import versus
from experiments.benchmark.tasks import Line, Task
from sam_jax.runs.records import Record

NAMES = {"sgd": "SGD step", "sam": "SAM step"}
CPU_REACH, GPU_REACH = 1.0, 1.5  # of PyTorch's time; times its images/s


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield a record of each of `case["methods"]`."""
    yield from versus(task, lab, task.case["methods"], "training_step", "training_step")


def lines(record: Record) -> list[Line]:
    """Return the line of a record."""
    case = record["case"]
    on_gpu = record["software"]["jax"]["platform"] != "cpu"
    over, under = ("torch", "jax") if on_gpu else ("jax", "torch")
    clock = "wall" if on_gpu else measured.judged_clock(case)
    by_clock = {name: measured.of_record(record, over, under, name) for name in measured.CLOCKS}
    return [
        Line(
            "steps",
            f"{NAMES[record['work']]}, {nets.title(case['net'])}, {of_case(case)}",
            torch_name(record),
            by_clock[clock],
            reach=GPU_REACH if on_gpu else CPU_REACH,
            at_least=on_gpu,
            wall=by_clock["wall"],
            processor=by_clock["processor"],
            ours=images_per_second(record, "jax", clock),
            theirs=images_per_second(record, "torch", clock),
            note=record["torch_error"],
        )
    ]
