"""Progress of a run: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from sam_jax.training.records import Record

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows the epoch, the loss, the accuracy, images per second and the time left."""

    def __init__(self, label: str, epochs: int, images_per_epoch: int, first_epoch: int) -> None:
        """Start at `first_epoch` (finished epochs, not zero when resumed) of `epochs`."""
        self._label, self._epochs, self._images_per_epoch = label, epochs, images_per_epoch
        self._first = self._done = first_epoch * images_per_epoch
        self._start = self._last_line = time.perf_counter()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=epochs * images_per_epoch,
                initial=self._first,
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
            return
        now = time.perf_counter()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = (self._done - self._first) / (now - self._start)
            left = (self._epochs * self._images_per_epoch - self._done) / rate
            print(
                f"{self._label}: epoch {epoch:.4g}/{self._epochs}, loss {loss:.4f}, "
                f"accuracy {accuracy:.2%}, {rate:.0f} images/s, {left:.0f} s left",
                flush=True,
            )

    def finish(self, message: str) -> None:
        """Close the bar and print one line on how the run ended."""
        if self._bar is not None:
            self._bar.close()
        seconds = time.perf_counter() - self._start
        print(f"{self._label}: {message} ({seconds:.1f} s)", flush=True)


def watch(label: str, measured: Iterable[Record]) -> Iterator[Record]:
    """Pass records on as they are measured, showing which one was the last."""
    if sys.stderr.isatty():
        yield from tqdm(measured, desc=f"{label} measuring", unit=" records", leave=False)
        return
    last_line = time.perf_counter()
    for record in measured:
        if time.perf_counter() - last_line >= SECONDS_BETWEEN_LINES:
            last_line = time.perf_counter()
            print(f"{label}: measured {record['measure']}, {record['preset']}", flush=True)
        yield record
