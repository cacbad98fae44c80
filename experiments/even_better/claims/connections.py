"""The tests of the claims about the paths between models."""

import numpy as np

from experiments.even_better.claims.evidence import Evidence
from experiments.even_better.thresholds import BARRIER, MOST
from experiments.study import claims as tests
from experiments.study.claims import Part


def separated_by_curves(evidence: Evidence) -> list[Part]:
    """Along the trained curve of every pair the test loss rises by more than `BARRIER`.

    The curves can only refute that. A curve without a rise is a way around, in every seed for
    itself. A curve with a rise proves nothing, because another curve may have none.
    """
    found = []
    for pair in evidence.connections:
        (part,) = tests.above(pair.label, pair.curve, BARRIER)
        around = bool(np.all(pair.curve <= BARRIER))
        found.append(_decided(part, "fails" if around else "undecided", "all curves"))
    return found


def separated_by_lines(evidence: Evidence) -> list[Part]:
    """Along the straight line of every pair the test loss rises by more than `BARRIER`."""
    return [
        part
        for pair in evidence.connections
        for part in tests.above(pair.label, pair.line, BARRIER)
    ]


def connected(evidence: Evidence) -> list[Part]:
    """Most of the trained curve of every pair has a low training loss.

    The curves can only show that. A low curve is a connection, in every seed for itself. A curve
    that is not low proves nothing, because another curve may be low.
    """
    found = []
    for pair in evidence.connections:
        (part,) = tests.above(pair.label, pair.low_share, MOST)
        low = bool(np.all(pair.low_share > MOST))
        found.append(_decided(part, "holds" if low else "undecided", "another curve"))
    return found


def _decided(part: Part, verdict: str, needed: str) -> Part:
    if part.verdict == "no data":
        return part
    return part._replace(verdict=verdict, needed=needed if verdict == "undecided" else "")
