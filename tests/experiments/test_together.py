"""Several threads make and measure: in which order, what waits for what, and what an error ends."""

import threading
import time

import pytest

from experiments.study.together import Work, after_the_first


def made(number, log, seconds=0.0):
    def make():
        log.append(("make", number))
        time.sleep(seconds)
        log.append(("made", number))
        return number

    return make


def test_one_worker_finishes_one_after_the_other():
    log = []
    work = Work([made(i, log) for i in range(3)], lambda i: log.append(("measure", i)), [None] * 3)
    assert work.run(1) == [0, 1, 2]
    assert [event for event in log if event[0] != "made"] == [
        (what, i) for i in range(3) for what in ("make", "measure")
    ]


@pytest.mark.parametrize("workers", [2, 5])
def test_everything_is_done_once_and_the_first_measurement_alone(workers):
    log, measuring, most = [], [], []

    def measure(number):
        measuring.append(number)
        most.append((len(done), len(measuring)))
        time.sleep(0.02)
        measuring.remove(number)
        done.append(number)

    done = []
    n = 8
    work = Work([made(i, log, 0.001) for i in range(n)], measure, [None] * n)
    assert work.run(workers) == list(range(n))
    assert sorted(done) == list(range(n))
    assert sorted(log) == sorted((what, i) for i in range(n) for what in ("make", "made"))
    assert all(at_once == 1 for before, at_once in most if not before)
    assert max(at_once for _, at_once in most) > 1  # the others are not alone


def test_what_starts_from_another_waits_for_it():
    log = []
    makes = [made(0, log), made(1, log, 0.02), made(2, log)]
    Work(makes, lambda i: None, [1, None, 0]).run(3)
    assert [i for what, i in log if what == "make"] == [1, 0, 2]
    assert log.index(("made", 1)) < log.index(("make", 0))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_ends_the_work(workers):
    log = []

    def fail():
        raise ValueError("no")

    makes = [made(0, log), fail, *(made(i, log, 0.01) for i in range(2, 20))]
    with pytest.raises(ValueError, match="no"):
        Work(makes, lambda i: None, [None] * len(makes)).run(workers)
    assert len(log) < 20
    assert threading.active_count() == 1 or all("Pool" not in t.name for t in threading.enumerate())


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_that_is_outlived_ends_what_waits_for_it(workers):
    log, measured, error = [], [], ArithmeticError("not finite")

    def fail():
        raise error

    makes = [made(0, log), fail, made(2, log), made(3, log, 0.01), made(4, log)]
    work = Work(makes, measured.append, [2, None, 1, None, 3], outlived=(ArithmeticError,))
    assert work.run(workers) == sorted(measured) == [3, 4]
    assert work.failed == {0: error, 1: error, 2: error}
    work = Work([fail], measured.append, [None], outlived=(ValueError,))
    with pytest.raises(ArithmeticError, match="not finite"):
        work.run(workers)


def test_the_first_task_is_alone():
    events = []

    def task(number):
        events.append(("begin", number))
        time.sleep(0.01)
        events.append(("end", number))

    after_the_first([lambda i=i: task(i) for i in range(4)], 3)
    assert events[:2] == [("begin", 0), ("end", 0)] and len(events) == 8
    after_the_first([], 3)
