"""Trainings and measurements in this process, several at once in threads."""

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Generic, TypeVar

from sam_jax.runs import signals

R = TypeVar("R")


class Work(Generic[R]):
    """Things that are made and then measured, by workers that take what is due next.

    A worker measures what is made before it makes more, so that one worker alone finishes one thing
    after the other. Until the first measurement is done nobody begins a second one, which would
    compile the same programs at the same time; the others make ahead.
    """

    def __init__(
        self,
        makes: Sequence[Callable[[], R]],
        measure: Callable[[R], None],
        after: Sequence[int | None],
        outlived: tuple[type[Exception], ...] = (),
    ) -> None:
        """Take what there is to do.

        Args:
          makes: what makes each thing.
          measure: measures one.
          after: the number of what each thing waits for, or None.
          outlived: errors of making a thing that end nothing but it and what waits for it.
        """
        self._makes, self._measure, self._after = makes, measure, after
        self._outlived = outlived
        self.failed: dict[int, Exception] = {}  # by its number: what it or its start met
        self._to_make = list(range(len(makes)))
        self._to_measure: list[int] = []
        self._made: dict[int, R] = {}
        self._begun = self._done = 0  # measurements
        self._stopped = False
        self._changed = threading.Condition()

    def run(self, workers: int) -> list[R]:
        """Return what is made, in order, once all is measured; `failed` has the others.

        After an error that is not outlived nothing more is begun; what runs is finished, and the
        error is raised.

        Args:
          workers: threads; one alone is the calling thread itself.
        """
        if workers == 1:
            self._work()
        else:
            with futures.ThreadPoolExecutor(workers) as executor:
                for worker in [executor.submit(self._work) for _ in range(workers)]:
                    worker.result()
        return [self._made[number] for number in sorted(self._made)]

    def _work(self) -> None:
        try:
            while (task := self._next()) is not None:
                signals.stop_if_asked()
                task()
        except BaseException:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            raise

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next task; None where all are begun, or after an error."""
        with self._changed:
            while not self._stopped and self._begun + len(self.failed) < len(self._makes):
                task = self._due()
                if task is not None:
                    return task
                self._changed.wait()
        return None

    def _due(self) -> Callable[[], None] | None:
        if self._to_measure and (self._done or not self._begun):
            self._begun += 1
            return functools.partial(self._measure_one, self._to_measure.pop(0))
        for number in self._to_make:
            if self._after[number] is None or self._after[number] in self._made:
                self._to_make.remove(number)
                return functools.partial(self._make_one, number)
        return None

    def _make_one(self, number: int) -> None:
        try:
            made = self._makes[number]()
        except self._outlived as error:
            with self._changed:
                self._give_up(number, error)
                self._changed.notify_all()
            return
        with self._changed:
            self._made[number] = made
            self._to_measure.append(number)
            self._changed.notify_all()

    def _give_up(self, number: int, error: Exception) -> None:
        self.failed[number] = error
        for waiting in [n for n in self._to_make if self._after[n] == number]:
            self._to_make.remove(waiting)
            self._give_up(waiting, error)

    def _measure_one(self, number: int) -> None:
        self._measure(self._made[number])
        with self._changed:
            self._done += 1
            self._changed.notify_all()


def after_the_first(tasks: Sequence[Callable[[], None]], workers: int) -> None:
    """Do the first task alone, which compiles what the others need, and then the others at once.

    Args:
      tasks: what there is to do.
      workers: as in `Work.run`.
    """
    for part, threads in ((tasks[:1], 1), (tasks[1:], workers)):
        Work(part, lambda done: None, [None] * len(part)).run(threads)
