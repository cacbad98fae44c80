"""The page of the claims: each one's verdict on the study's numbers and on these runs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from experiments.even_better.claims.claims import CLAIMS, Claim
from experiments.even_better.claims.evidence import Evidence
from experiments.even_better.claims.tests import Part
from experiments.study.formats import csv_text, markdown, signed, span
from experiments.study.page import Markup, element, grid, links

STEM = "claims"
TITLE = "The study's claims, tested"


class Tested(NamedTuple):
    """A claim on one body of evidence."""

    claim: Claim
    evidence: str
    parts: list[Part]
    verdict: str


def test_claims(evidence: Sequence[Evidence], claims: Sequence[Claim] = CLAIMS) -> list[Tested]:
    """Test every claim on every body of evidence, claim by claim."""
    found = []
    for claim in claims:
        for body in evidence:
            parts = claim.parts(body)
            found.append(Tested(claim, body.name, parts, claim.verdict(parts)))
    return found


test_claims.__test__ = False  # its name is no test for pytest to collect


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
    return csv_text(heads, rows)


def claims_markdown(found: Sequence[Tested]) -> str:
    """Return the verdicts, then every part, as Markdown tables."""
    names, rows = _verdicts(found)
    verdicts = markdown(["Claim", "Source", *names], rows, 2)
    parts = [
        [tested.claim.statement, tested.evidence, *line]
        for tested in found
        for line in map(_texts, tested.parts)
    ]
    heads = ["Claim", "Evidence", "Part", "n", "Effect", "Interval", "Verdict", "Would decide"]
    return "\n".join([verdicts, markdown(heads, parts, 3)])


def claims_html(found: Sequence[Tested]) -> list[Markup]:
    """Return what the page of the claims shows."""
    names, rows = _verdicts(found)
    rows = [[*row[:2], *map(_coloured, row[2:])] for row in rows]
    summary = grid("Verdicts", ["", "", *["Verdict on"] * len(names)],
                   ["Claim", "Where", *names], rows, 2)  # fmt: skip
    children = [
        element("h1", TITLE),
        element("p", element("a", "Report of these runs", href="index.html")),
        *map(_paragraph, _INTRODUCTION),
        element("div", summary, class_="wide"),
        links(STEM),
        element("h2", "Every claim and its tests"),
    ]
    for claim in dict.fromkeys(tested.claim for tested in found):
        children += [
            element("h3", claim.statement, id=claim.key),
            element("p", f"{claim.source}. Tested: {claim.test}", class_="muted"),
            _parts_html([tested for tested in found if tested.claim == claim]),
        ]
    return children


_INTRODUCTION = (
    "Each claim of the study's abstract, contributions and section 5 as a test, on the study's own "
    "numbers (corrected tables) and on these runs with each preset. A claim holds if the whole "
    "interval of every one of its parts fits it, fails if some part's interval does not fit it "
    "anywhere, and is undecided otherwise, also where a part has no data. (“In some instances” is "
    "the other way round, one part is enough; and the trained curves decide by what they are, as "
    "said there.) Of a claim with k parts a false “fails” has a probability of up to k × 2.5%, a "
    "false “holds” one of up to 2.5%; twice that for the claims with 90% intervals. Of this many "
    "verdicts some are wrong by chance. Losses, accuracies, planes and curves do not depend on the "
    "preset: such claims have the same verdict under both.",
    "The study's tables show one run a model. Its files hold a second one of SGD and of 128-SAM "
    "(ρ = 0.1), with losses and asymmetry factor, which join their groups here. Groups are "
    "compared over their runs (Welch's t), so that the spread holds the effect of ρ too; of single "
    "runs there is no spread and nothing is decided. These runs compare seed by seed (paired t "
    "over the seeds). Correlations are over models in both. Verdicts on these runs are about this "
    "model and data set, not about those of the study. “Would decide” is what 80% power at the "
    "interval's level needs if the effect and the spread are as found; it is not given for losses "
    "said to be alike, nor for a difference of correlations.",
)


def _paragraph(text: str) -> Markup:
    return element("p", text)


def _verdicts(found: Sequence[Tested]) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(tested.evidence for tested in found))
    rows = []
    for claim in dict.fromkeys(tested.claim for tested in found):
        verdicts = {t.evidence: t.verdict for t in found if t.claim == claim}
        rows.append([claim.statement, claim.source, *(verdicts[name] for name in names)])
    return names, rows


def _parts_html(found: Sequence[Tested]) -> Markup:
    rows = []
    for tested in found:
        lines = [_texts(part) for part in tested.parts] or [["", "—", "—", "—", "no data", ""]]
        for line in lines:
            line[4] = _coloured(line[4])
            rows.append([tested.evidence, *line])
    verdicts = ", ".join(f"{tested.evidence}: {tested.verdict}" for tested in found)
    heads = ["Numbers", "Part", "n", "Effect", "Interval", "Verdict", "Would decide"]
    return grid(verdicts, [""] * len(heads), heads, rows, 2)


def _texts(part: Part) -> list[str]:
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


def _coloured(text: str) -> Markup:
    return element("span", text, class_=text.replace(" ", "-"))
