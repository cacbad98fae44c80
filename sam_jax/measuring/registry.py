"""The instruments by name: all that measure, read records or show them ask here.

A new instrument is a file `sam_jax/measuring/instruments/NAME.py` with an `INSTRUMENT`, and its
name in the list below.
"""

import importlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sam_jax.measuring.instrument import Instrument
from sam_jax.runs.records import Record

NAMES = (  # in the order in which they measure and tables show them
    "evaluation",
    "adversarial_sharpness",
    "average_sharpness",
    "asymmetry_factor",
    "loss_curve",
    "asymmetry_index",
    "level_set_widths",
    "hessian",
    "worst_case_sharpness",
    "top_eigenvalues",
    "spectral_density",
    "loss_line",
    "trajectory_plane",
)


def load(names: Sequence[str]) -> tuple[Instrument, ...]:
    """Return the instruments of the files with these names."""
    files = (importlib.import_module(f"sam_jax.measuring.instruments.{name}") for name in names)
    return tuple(file.INSTRUMENT for file in files)


INSTRUMENTS = load(NAMES)


def by_name() -> Mapping[str, Instrument]:
    """Return the instruments by their names, in their order."""
    return {instrument.name: instrument for instrument in INSTRUMENTS}


def chosen(measures: Collection[str] | None = None) -> tuple[Instrument, ...]:
    """Return the instruments of these names in the registry's order; None: the default ones."""
    return tuple(
        instrument
        for instrument in INSTRUMENTS
        if (instrument.by_default if measures is None else instrument.name in measures)
    )


def identity(record: Record) -> tuple[Any, ...]:
    """Return what tells a record from the others of the same model, epoch and settings.

    That is its measure, its preset and the fields that the instrument names. A record that no
    instrument wrote has its measure alone.

    >>> identity({"measure": "hessian", "preset": "sound", "steps": 20, "trace": 1.5})
    ('hessian', 'sound')
    >>> identity({"measure": "average_sharpness", "preset": "sound", "m": 8, "measured_rho": 0.5})
    ('average_sharpness', 'sound', None, 8, 0.5)
    """
    instrument = by_name().get(record["measure"])
    if instrument is None:
        return (record["measure"],)
    names = ("measure", "preset", *instrument.identity)
    return tuple(_hashable(record.get(name)) for name in names)


def _hashable(value: Any) -> Any:
    """JSON gives lists where a setting was a tuple."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
