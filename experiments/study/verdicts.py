"""Claims on every body of evidence, and their verdicts as tables."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from experiments.study.claims import Part, combined
from experiments.study.evidence import Evidence
from experiments.study.formats import signed, span
from experiments.study.grid import Grid, Marked, csv_text


class Claim(NamedTuple):
    """A claim and how it is tested."""

    key: str
    statement: str
    source: str  # where it is made
    test: str  # the quantity computed
    parts: Callable[[Any], list[Part]]  # of a body of evidence
    combine: str = "all"  # or "any": how many of its parts the claim says

    def verdict(self, found: list[Part]) -> str:
        """Return "holds", "fails", "undecided" or "no data" from the parts."""
        return combined(found, self.combine)


class Tested(NamedTuple):
    """A claim on one body of evidence."""

    claim: Claim
    evidence: str
    parts: list[Part]
    verdict: str


def test_claims(evidence: Sequence[Evidence], claims: Sequence[Claim]) -> list[Tested]:
    """Test every claim on every body of evidence, claim by claim."""
    found = []
    for claim in claims:
        for body in evidence:
            parts = claim.parts(body)
            found.append(Tested(claim, body.name, parts, claim.verdict(parts)))
    return found


test_claims.__test__ = False  # its name is no test for pytest to collect


def claims_of(found: Sequence[Tested]) -> list[Claim]:
    """Return the claims that were tested, in their order."""
    return list(dict.fromkeys(tested.claim for tested in found))


def claims_csv(found: Sequence[Tested]) -> str:
    """Return a line a part, or one for a claim without data, as CSV."""
    heads = (
        "claim evidence claim_verdict part n effect low high confidence part_verdict needed"
    ).split()
    rows = []
    for tested in found:
        first = [tested.claim.key, tested.evidence, tested.verdict]
        for part in tested.parts:
            values = [part.label, part.n, part.effect, *part.interval, part.confidence]
            rows.append([*first, *values, part.verdict, part.needed])
        if not tested.parts:
            rows.append([*first, *[""] * 8])
    return csv_text(pd.DataFrame(rows, columns=heads))


def claims_grids(found: Sequence[Tested]) -> tuple[Grid, Grid]:
    """Return the verdicts, and every part of every claim."""
    parts = [
        [tested.claim.statement, tested.evidence, *part_texts(part)]
        for tested in found
        for part in tested.parts
    ]
    heads = ["Claim", "Evidence", "Part", "n", "Effect", "Interval", "Verdict", "Would decide"]
    return verdicts_grid(found), Grid(heads, parts, text_columns=3)


def verdicts_grid(found: Sequence[Tested]) -> Grid:
    """Return a table of a claim a row and a verdict for every body of evidence."""
    names = list(dict.fromkeys(tested.evidence for tested in found))
    rows = []
    for claim in claims_of(found):
        verdicts = {t.evidence: t.verdict for t in found if t.claim == claim}
        marked = [Marked(verdicts[name], verdicts[name]) for name in names]
        rows.append([claim.statement, claim.source, *marked])
    groups = ["", "", *["Verdict on"] * len(names)]
    return Grid(["Claim", "Source", *names], rows, groups, "Verdicts", 2)


def tests_grid(found: Sequence[Tested]) -> Grid:
    """Return a table of a part a row, of claims that were tested on one body of evidence."""
    rows = []
    for tested in found:
        for part in tested.parts:
            _, n, effect, interval, said, needed = part_texts(part)
            marked = Marked(said, said)
            rows.append([tested.claim.statement, n, effect, interval, marked, needed])
    heads = ["Claim", "n", "Effect", "Interval", "Verdict", "Would decide"]
    return Grid(heads, rows)


def parts_grid(found: Sequence[Tested], claim: Claim) -> Grid:
    """Return a table of all parts of a claim, on all evidence."""
    rows, chosen = [], [tested for tested in found if tested.claim == claim]
    for tested in chosen:
        lines = [part_texts(part) for part in tested.parts] or [["", "—", "—", "—", "no data", ""]]
        for line in lines:
            line[4] = Marked(line[4], line[4])
            rows.append([tested.evidence, *line])
    verdicts = ", ".join(f"{tested.evidence}: {tested.verdict}" for tested in chosen)
    heads = ["Numbers", "Part", "n", "Effect", "Interval", "Verdict", "Would decide"]
    return Grid(heads, rows, caption=verdicts, text_columns=2)


def part_texts(part: Part) -> list[str]:
    """Return label, n, effect, interval, verdict and what would decide, as texts."""
    digits = _digits(part)
    interval = span(part.interval, digits)
    if math.isfinite(part.interval.low):
        interval += f" ({100 * part.confidence:.3g}%)"
    effect = signed(part.effect, digits)
    return [part.label, part.n, effect, interval, part.verdict, part.needed]


def _digits(part: Part) -> int:
    # Two digits of the effect or of the interval's half width, whichever is larger.
    low, high = part.interval
    width = (high - low) / 2 if math.isfinite(high - low) else 0.0
    largest = max(abs(part.effect), width)
    return min(max(1 - math.floor(math.log10(largest)), 2), 6) if largest > 0 else 2
