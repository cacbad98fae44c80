"""Progress of a run: a bar in a terminal, plain lines elsewhere, of the first process alone."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from sam_jax.runs import heartbeat, signals
from sam_jax.runs.distributed import is_first

SECONDS_BETWEEN_LINES = 10.0

Item = TypeVar("Item")


class Progress:
    """Shows the epoch, the loss, the accuracy, images per second and the time left."""

    def __init__(self, label: str, epochs: int, images_per_epoch: int, first_epoch: float) -> None:
        """Start at `first_epoch` (finished epochs, not zero when resumed) of `epochs`."""
        self._label, self._epochs, self._images_per_epoch = label, epochs, images_per_epoch
        self._done = round(first_epoch * images_per_epoch)
        self._start = self._last_line = time.perf_counter()
        self._timed_from: tuple[float, int] | None = None  # when, after so many images
        self._bar = None
        self._shown = is_first()
        if self._shown and sys.stderr.isatty():
            self._bar = tqdm(
                total=epochs * images_per_epoch,
                initial=self._done,
                desc=label,
                unit="img",
                unit_scale=True,
                leave=False,
            )

    def advance(self, images: int, loss: float, accuracy: float) -> None:
        """Show that so many more images were trained on, with the latest loss and accuracy."""
        self._done += images
        epoch = self._done / self._images_per_epoch
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"epoch {epoch:.4g}/{self._epochs}, loss {loss:.4f}, accuracy {accuracy:.2%}",
                refresh=False,
            )
            self._bar.update(images)
            heartbeat.shown()
            return
        now = time.perf_counter()
        if self._shown and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(
                f"{self._label}: epoch {epoch:.4g}/{self._epochs}, loss {loss:.4f}, "
                f"accuracy {accuracy:.2%}{self._speed(now)}",
                flush=True,
            )
            heartbeat.shown()
        if self._timed_from is None:  # the time of the first steps holds their compilation
            self._timed_from = now, self._done

    def _speed(self, now: float) -> str:
        """Return images/s and the time left, with the comma before them; "" if not known yet."""
        if self._timed_from is None or now <= self._timed_from[0]:
            return ""
        rate = (self._done - self._timed_from[1]) / (now - self._timed_from[0])
        left = (self._epochs * self._images_per_epoch - self._done) / rate
        return f", {rate:.0f} images/s, {duration(left)} left"

    def finish(self, message: str) -> None:
        """Close the bar and print one line on how the run ended."""
        if self._bar is not None:
            self._bar.close()
        seconds = time.perf_counter() - self._start
        if self._shown:
            print(f"{self._label}: {message} ({seconds:.1f} s)", flush=True)


def each(
    label: str, items: Sequence[Item], name: Callable[[Item], str] = lambda item: ""
) -> Iterator[Item]:
    """Pass items on one by one, showing how many are done, since when, and the time left.

    An item is done when the next one is asked for, so that work on it counts. Without a terminal
    this is a line every so many seconds, and none where everything takes less. Before each item a
    signal that asked the command to end is answered.

    Args:
      label: their name in the progress.
      items: the work to do.
      name: of an item, for where it takes long; "" for its number alone.

    Yields:
      The items, in their order.
    """
    if not is_first() or sys.stderr.isatty():
        bar = tqdm(items, desc=label, leave=False, disable=not is_first())
        for number, item in enumerate(bar, start=1):
            signals.stop_if_asked()
            heartbeat.shown()
            with heartbeat.doing(_place(label, number, len(items), name(item))):
                yield item
        return
    start = last_line = time.perf_counter()
    for done, item in enumerate(items, start=1):
        signals.stop_if_asked()
        with heartbeat.doing(_place(label, done, len(items), name(item))):
            yield item
        now = time.perf_counter()
        if now - last_line >= SECONDS_BETWEEN_LINES:
            last_line = now
            elapsed = now - start
            left = elapsed / done * (len(items) - done)
            times = f"{duration(elapsed)}, {duration(left)} left"
            print(f"{label}: {done}/{len(items)}, {times}", flush=True)
            heartbeat.shown()


def duration(seconds: float) -> str:
    """Return a time in words, in the two units that suit it.

    >>> duration(12.4), duration(200), duration(15_000), duration(200_000)
    ('12 s', '3 min 20 s', '4 h 10 min', '2 d 07 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def _place(label: str, number: int, count: int, name: str) -> str:
    return f"{label}, {number} of {count}{f': {name}' if name else ''}"
