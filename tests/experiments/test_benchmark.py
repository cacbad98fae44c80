"""The benchmark: ratios, tables from stored records, workers, and the command in its smoke form."""

import importlib.util
import json
import math
import pathlib
import sys

import numpy as np
import pandas as pd
import pytest
from real_commands import made_once, output_of, run_here

from experiments.benchmark import lab, machine, measured, run, sides, tasks, worker
from experiments.benchmark.into_page import write_into
from experiments.benchmark.nets import NETS
from experiments.benchmark.presets import PRESETS, chosen
from experiments.benchmark.report import lines_csv, report
from experiments.benchmark.rows import ROWS
from sam_jax.runs import records

# ---------------------------------------------------------------------------- numbers


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians():
    # The medians are 4 and 2; a disturbance that both sides meet leaves the ratios alone.
    ours, theirs = [1.0, 4.0, 40.0], [1.0, 2.0, 10.0]
    found = measured.ratio(ours, theirs)
    assert found == measured.Ratio(2.0, 1.0, 4.0, 3)
    assert measured.ratio(ours, theirs, factor=2).median == 1.0
    assert measured.ratio([2.0, 1.0], [1.0, 1.0]).median == 1.5  # an even number of rounds


def test_what_was_not_measured_is_nan():
    record = {"sides": {"jax": {"wall": [1.0], "processor": [2.0]}}}
    assert measured.of_record(record, "jax", "torch", "wall").rounds == 0
    assert math.isnan(measured.median(record, "torch", "wall"))
    assert measured.median(record, "jax", "processor") == 2.0
    assert measured.ratio([1.0], [0.0]).rounds == 0


@pytest.mark.parametrize(
    "at_least, value, reached",
    [(False, 1.0, True), (False, 1.01, False), (True, 1.0, True), (True, 0.99, False)],
)
def test_reached(at_least, value, reached):
    number = measured.Ratio(value, value, value, 1)
    line = tasks.Line("steps", "work", "against", number, reach=1.0, at_least=at_least)
    assert line.reached is reached
    assert line._replace(reach=math.nan).reached is None
    assert line._replace(number=measured.NOTHING).reached is None


def test_one_thread_is_judged_by_its_processor():
    assert measured.judged_clock({"threads": 1}) == "processor"
    assert measured.judged_clock({"threads": 2}) == measured.judged_clock({}) == "wall"


def test_the_name_of_a_processor(tmp_path):
    text = "model name\t: Some CPU\ncpu family\t: 6\nmodel\t\t: 143\nflags\t\t: fpu avx2 avx512f\n"
    (tmp_path / "cpuinfo").write_text(text + text.replace("Some", "Other"))
    found = machine.processor(tmp_path / "cpuinfo")
    assert found == "Some CPU, family 6, model 143, avx512f"
    assert machine.processor(tmp_path / "none")  # the platform's own word


# ---------------------------------------------------------------------------- presets


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_rows_and_nets_that_exist_and_no_task_twice(name):
    found = PRESETS[name].tasks()
    assert {task.row for task in found} <= set(ROWS)
    assert {task.case["net"] for task in found if "net" in task.case} <= set(NETS)
    assert all(not run.latest([task], [])[0][1] for task in found)
    for i, task in enumerate(found):
        assert [tasks.is_of(tasks.about(task), other) for other in found].index(True) == i


def test_the_smoke_preset_has_every_row():
    assert {task.row for task in PRESETS["smoke"].tasks()} == set(ROWS)


def test_rows_can_be_chosen():
    assert {task.row for task in chosen("cpu", ["memory"])} == {"memory"}
    assert chosen("gpu", []) == PRESETS["gpu"].tasks()
    with pytest.raises(ValueError, match="speed"):
        chosen("cpu", ["speed"])


# ---------------------------------------------------------------------------- sides

TASK = '''
"""A task of the standard library."""
import os, time

class Prepared:
    def __init__(self, about, calls):
        self.about, self.calls = about, calls

def prepare(case):
    if case["more"] == "wait":
        time.sleep(60)
    if case["fails"]:
        raise RuntimeError("it cannot be prepared")
    print("chatter")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    calls = {"count": lambda repeats: repeats + case["more"], "end": lambda repeats: os._exit(3)}
    return Prepared({"processors": processors}, calls)
'''


@pytest.fixture
def side(tmp_path, monkeypatch):
    (tmp_path / "toy_task.py").write_text(TASK)

    def start(ends=math.inf, **case):
        return sides.Side(
            sys.executable,
            "toy_task",
            {"threads": 1, "fails": False, "more": 1} | case,
            log=tmp_path / "log",
            environment={"PYTHONPATH": str(tmp_path)},
            ends=ends,
        )

    return start


@pytest.mark.commands
def test_a_side_answers_and_uses_the_processors_it_was_given(side, tmp_path):
    one = side(more=5)
    assert one.ready(60) == {"processors": 1, "calls": ["count", "end"]}
    answer = one.time("count", 3)
    assert answer["result"] == 8 and answer["wall"] >= 0 <= answer["processor"]
    assert "chatter" in (tmp_path / "log").read_text()
    with pytest.raises(sides.SideFailed, match="code 3"):
        one.time("end", 1)
    one.close()


@pytest.mark.commands
def test_a_side_that_fails_or_is_late_says_so(side):
    broken, slow, over = side(fails=True), side(), side(ends=0.0, more="wait")
    with pytest.raises(sides.SideFailed, match="RuntimeError: it cannot be prepared"):
        broken.ready(60)
    slow.ready(60)
    slow._process.stdin.write("")  # no request, hence no answer
    with pytest.raises(sides.SideFailed, match="no answer within 0"):
        slow._answer(0.0)
    with pytest.raises(sides.SideFailed, match="no answer within 0"):
        over.ready(60)  # its time was over before it began
    for one in (broken, slow, over):
        one.close()


class Fake:
    """A side whose times are given."""

    def __init__(self, times):
        self.times, self.asked = iter(times), []

    def time(self, call, repeats):
        self.asked.append((call, repeats))
        value = next(self.times)
        return {"wall": value, "processor": 2 * value}


def test_sides_are_timed_in_turns():
    a, b = Fake([1.0, 2.0, 3.0]), Fake([4.0, 5.0, 6.0])
    calls = {"a": (a, "x"), "b": (b, "y")}
    found = sides.alternate(calls, rounds=3, repeats={"a": 1, "b": 7}, seconds=100)
    assert found["a"] == {"wall": [1.0, 2.0, 3.0], "processor": [2.0, 4.0, 6.0]}
    assert b.asked == [("y", 7)] * 3
    few = sides.alternate({"a": (Fake([1.0] * 9), "x")}, rounds=9, seconds=-1.0, least=2)
    assert len(few["a"]["wall"]) == 2  # no time is left, and two rounds are made


def test_a_worker_serves_what_it_prepared(tmp_path):
    output = (tmp_path / "output").open("w+")
    calls = {"twice": lambda repeats: 2 * repeats, "fails": lambda repeats: repeats / 0}
    asked = [json.dumps({"call": call, "repeats": 4}) for call in ("fails", "twice")]
    worker.serve(worker.Prepared({"known": 1}, calls), asked, output)
    output.seek(0)
    lines = [json.loads(line.removeprefix(worker.MARK)) for line in output]
    output.close()
    assert lines[0] == {"known": 1, "calls": ["twice", "fails"]}
    assert "ZeroDivisionError" in lines[1]["error"]  # and the next call is made
    assert lines[2]["result"] == 8


# ---------------------------------------------------------------------------- records and report


def stored(task, work="sam", torch=(2.0, 2.0), **fields):
    """A record of training steps as the row writes it."""
    times = {"jax": [1.0, 2.0], "torch": list(torch)}
    found = {side: {"wall": t, "processor": t} for side, t in times.items() if t}
    platform = {"platform": "cpu", "jax": "0.1", "device": "cpu"}
    return tasks.about(task) | {
        "work": work,
        "sides": found,
        "torch_mode": "eager" if torch else "",
        "torch_error": "" if torch else "PyTorch is not installed here",
        "software": {"jax": platform, "torch": {"torch": "9.9"} if torch else {}},
        "machine": {"processor": "Some CPU"},
        **fields,
    }


@pytest.fixture
def two_tasks():
    return [task for task in PRESETS["cpu"].tasks() if task.row == "steps"][:2]


def write(folder, *found):
    for record in found:
        records.append(folder / "records.jsonl", record)


def test_the_report_of_stored_records(tmp_path, two_tasks, undrawn):
    first, second = two_tasks
    error = tasks.about(second) | {"error": "no memory | at all", "machine": {}}
    write(tmp_path, stored(first), stored(first, "sgd", torch=()), error)
    (page,), grid, made_with = report(two_tasks, tmp_path)
    table = grid.markdown()
    frame = pd.read_csv(tmp_path / "report" / "tables" / "benchmark.csv")
    assert frame.ratio.tolist()[:1] == [0.75] and frame.rounds.tolist() == [2, 0, 0]
    assert (frame.low[0], frame.high[0], frame.reached[0]) == (0.5, 1.0, True)
    assert "**0.750**" in table and "85.3 images/s" in table  # 128 images in 1.5 s
    assert table.count("not measured") == 2 and "failed: no memory \\| at all" in table
    text = page.read_text()
    for words in ("Some CPU", "jax 0.1", "torch 9.9", "PyTorch is not installed here"):
        assert words in text
    assert 'href="figures/ratios.png"' in text
    readme = tmp_path / "README.md"
    readme.write_text("Before.\n<!-- table cpu -->\nold\n<!-- end -->\nAfter.\n")
    write_into(readme, "cpu", grid, made_with)
    inside = readme.read_text()
    assert inside.startswith("Before.") and inside.endswith("<!-- end -->\nAfter.\n")
    assert "**0.750**" in inside and "Some CPU" in inside and "old" not in inside
    with pytest.raises(ValueError, match="table gpu"):
        write_into(readme, "gpu", grid, made_with)


def test_a_report_of_nothing_says_that_nothing_was_measured(tmp_path, two_tasks, undrawn):
    table = report(two_tasks, tmp_path).table
    assert table.markdown().count("no time was left") == 2
    assert lines_csv([]) == "\n"


def test_the_newest_record_of_each_work_counts(two_tasks):
    task = two_tasks[0]
    old, new = stored(task, mark=1), stored(task, mark=2)
    error = tasks.about(task) | {"error": "late"}
    other = stored(two_tasks[1])
    ((_, found),) = run.latest([task], [old, other, new, stored(task, "sgd"), error])
    assert [(r["work"], r.get("mark")) for r in found] == [("sam", 2), ("sgd", None)]
    ((_, failed),) = run.latest([task], [error, other])
    assert failed == [error]


def test_what_was_measured_is_not_measured_again(tmp_path, two_tasks, monkeypatch):
    done, missing = two_tasks
    asked = []

    def measure(task, place):
        asked.append(task.case)
        if task.case == missing.case and len(asked) == 1:
            raise sides.SideFailed("the first time")
        for work in task.case["methods"]:
            yield stored(task, work, torch=() if not place.torch_python else (2.0, 2.0))

    monkeypatch.setitem(ROWS, "steps", ROWS["steps"]._replace(measure=measure))
    place = lab.Lab(tmp_path)
    write(tmp_path, stored(done), stored(done, "sgd"))
    assert not run.is_done(done, [stored(done)], has_torch=False)  # it was cut in between
    run.run(two_tasks, place)  # fails
    run.run(two_tasks, place)  # measures without PyTorch
    run.run(two_tasks, place)  # nothing is left to do
    assert asked == [missing.case] * 2
    run.run(two_tasks, lab.Lab(tmp_path, torch_python="python"))  # now with it
    assert asked == [missing.case] * 3
    errors = [r for r in records.read(tmp_path / "records.jsonl") if "error" in r]
    assert [r["error"] for r in errors] == ["the first time"]


def test_no_row_begins_after_the_budget(tmp_path, two_tasks, monkeypatch, capsys):
    monkeypatch.setitem(ROWS, "steps", ROWS["steps"]._replace(measure=None))  # would not run
    run.run(two_tasks, lab.Lab(tmp_path, ends=0.0))
    assert capsys.readouterr().out.count("The budget ended before") == 2


# ---------------------------------------------------------------------------- the command


@pytest.fixture(scope="session")
def smoked(tmp_path_factory):
    def make(folder):
        command = ("experiments.benchmark", f"--workdir={folder}", "--preset=smoke")
        return output_of(*command, "--torch_python=")

    return made_once(tmp_path_factory, "benchmark", make)


@pytest.mark.e2e
def test_the_smoke_preset_measures_every_row(smoked):
    folder, output = smoked
    found = records.read(folder / "records.jsonl")
    assert not [record for record in found if "error" in record]
    assert {record["row"] for record in found} == set(ROWS)
    assert "MobileNetV2" in output and (folder / "report" / "index.html").exists()
    checks = [record for record in found if record["row"] == "correctness"]
    assert len(checks) > 10
    for check in checks:
        assert check["error_found"] <= check["bound"], check["work"]
    # The negative control: a bound that every rounding breaks is not a bound of zero.
    rounded = [check for check in checks if "bfloat16" in check["work"]]
    assert rounded and all(check["error_found"] > check["bound"] / 1000 for check in rounded)
    instruments = {r["work"]: r["results"]["jax"] for r in found if r["row"] == "instruments"}
    assert all(np.isfinite(value) for value in instruments.values()) and len(instruments) == 3


@pytest.mark.e2e
def test_the_same_command_goes_on(smoked, tmp_path):
    folder, _ = smoked
    before = (folder / "records.jsonl").read_text()
    (tmp_path / "records.jsonl").write_text(before)
    result = run_here("experiments.benchmark", f"--workdir={tmp_path}", "--preset=smoke")
    assert result.returncode == 0, result.stderr
    if importlib.util.find_spec("torch") is None:  # else the rows without it are measured again
        assert (tmp_path / "records.jsonl").read_text() == before


def test_a_wrong_flag_is_refused():
    result = run_here("experiments.benchmark", "--workdir=x", "--preset=fast")
    assert result.returncode == 2 and "preset" in result.stderr


# ---------------------------------------------------------------------------- PyTorch


@pytest.fixture
def torch_side(monkeypatch):
    """The folder of both sides on the path, as the worker under PyTorch's Python has it."""
    pytest.importorskip("torch", reason="needs PyTorch, which is no dependency")
    monkeypatch.syspath_prepend(str(pathlib.Path(lab.__file__).parent))


def test_both_sides_take_the_same_step_of_sam(torch_side):
    import jax
    import torch
    from torch_side import networks as torch_networks
    from torch_side.training_step import Trainer

    from experiments.benchmark.jax_side import networks
    from experiments.benchmark.jax_side.steps import make_step

    net = networks.network("small_conv_net")
    images, labels = networks.random_batch("small_conv_net", 16)

    def arrays(params, batch_stats):
        flat, _ = jax.tree.flatten_with_path({"params": params, "batch_stats": batch_stats})
        return {"/".join(k.key for k in path): np.array(x) for path, x in flat}

    made = make_step(net, "sam")
    after = made.step(made.state, (images, labels))
    theirs, wanted = (torch_networks.build("small_conv_net").train() for _ in range(2))
    torch_networks.load_flax(theirs, arrays(net.params, net.batch_stats))
    torch_networks.load_flax(wanted, arrays(after.params, after.batch_stats))
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous()
    trainer = Trainer(theirs, pixels, torch.from_numpy(np.array(labels)).long())
    trainer.sam()
    # PyTorch's running variance follows the unbiased variance, hence the looser tolerance there.
    for name, value in theirs.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        tolerance = 0.02 if name.endswith("running_var") else 1e-5
        np.testing.assert_allclose(value, wanted.state_dict()[name], rtol=tolerance, atol=1e-6)
    trainer.sgd()
    assert not np.allclose(theirs[0].weight.detach(), wanted[0].weight.detach(), atol=1e-6)
