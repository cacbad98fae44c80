"""What was found, in sentences with their numbers: what a report begins with."""

import collections
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from experiments.study.arms import Arm
from experiments.study.claims import Part, difference
from experiments.study.contrasts import Contrast, contrast
from experiments.study.evidence import RunEvidence
from experiments.study.formats import cell_texts, decimals, p_text, span
from experiments.study.pages import Opening, write_table
from experiments.study.results import Results
from experiments.study.table import Cell, Column, means_over_seeds
from experiments.study.verdicts import (
    Claim,
    Tested,
    claims_csv,
    part_texts,
    test_claims,
    tests_grid,
)
from sam_jax import statistics
from sam_jax.statistics import MeanAndStderr, mean_difference
from sam_jax.statistics.sample_size import LEVEL

WORDS = {
    "holds": ("holds", "hold"),
    "fails": ("fails", "fail"),
    "undecided": ("is undecided", "are undecided"),
    "no data": ("has no data", "have no data"),
}
UNITS = ("%", "nats")
SETS = ("test", "train")  # which stand below the quantity in a heading, and before it in a sentence
MOST_NAMES = 3  # of arms in a tie
DECISIVE = ("holds", "fails")


def name_of(column: Column) -> str:
    """Return the name of a quantity inside a sentence, without its unit.

    >>> name_of(Column("Test", "loss / nats", "test_loss")), name_of(Column("Loss", "test", "x"))
    ('test loss', 'test loss')
    """
    name, _, _ = column.name.partition(" / ")
    if column.name in SETS:
        return f"{column.name} {column.group.lower()}"
    words = column.group if name in UNITS else f"{column.group} {name}".strip()
    return words[:1].lower() + words[1:]


def unit_of(column: Column) -> str:
    """Return the unit of a quantity with a space before it, "" where it has none.

    >>> unit_of(Column("Test", "accuracy / %", "a")), unit_of(Column("Error", "%", "e"))
    (' %', ' %')
    """
    _, _, unit = column.name.partition(" / ")
    unit = column.name if column.name in UNITS else unit
    return f" {unit}" if unit else ""


def of_arms(
    results: Results,
    column: Column,
    reference: Arm | None = None,
    arms: Sequence[Arm] | None = None,
    most: int = 5,
) -> list[str]:
    """Return sentences on a quantity of some arms: the best, its lead, the seeds, the others.

    Args:
      results: the results of the runs.
      column: the quantity; its `best` says which end is better.
      reference: the arm that the best is compared with; None for the first.
      arms: those that are spoken of; None for all.
      most: how many sentences, the most telling ones first.
    """
    arms = list(results.arms if arms is None else arms)
    cells = means_over_seeds(results, column, arms)
    sign = -1 if column.best == "max" else 1
    order = [i for i, cell in enumerate(cells) if math.isfinite(cell.mean)]
    order.sort(key=lambda i: sign * cells[i].mean)
    if not order:
        return [f"No arm has a {name_of(column)} that is finite."]
    ordered, texts = [arms[i] for i in order], _texts(cells, len(results.seeds), column)
    reference = arms[0] if reference is None else reference
    best_end, worst_end = ("highest", "lowest") if column.best == "max" else ("lowest", "highest")
    means = [cells[i].mean for i in order]
    first = ordered[: means.count(means[0])]  # more than one in a tie
    last = ordered[len(ordered) - means.count(means[-1]) :]
    name = f"{name_of(column)} of {len(order)} arms"
    found = [f"{_have(first, best_end)} {name}, {texts[order[0]]}{_over(results)}."]
    if first != last:
        rivals = [arm for arm in (reference, ordered[len(first)]) if arm in ordered[len(first) :]]
        leads = [_lead(results, column, first[0], arm) for arm in dict.fromkeys(rivals)]
        end = f"{_have(last, worst_end)}, {texts[order[-1]]}."
        found += [*leads[:1], _separated(results, column, ordered), *leads[1:], end]
    return found[:most]


def words_of(row: Contrast) -> str:
    """Return the texts at the left of a row."""
    return ", ".join(row.heads)


def of_contrasts(
    results: Results,
    rows: Sequence[Contrast],
    column: Column,
    names: tuple[str, str],
    words: Callable[[Contrast], str] = words_of,
) -> list[str]:
    """Return sentences on pairs of arms: how often the second is better, by how much, how surely.

    Args:
      results: the results of the runs.
      rows: the pairs.
      column: the quantity.
      names: what the reference and the arm of every row are called.
      words: what a row is called.
    """
    sign = -1 if column.best == "max" else 1
    found = [(row, contrast(results, row, column)) for row in rows]
    found = [(row, pair) for row, pair in found if math.isfinite(pair.difference.mean)]
    if not found:
        return [f"No pair of {names[0]} and {names[1]} has a {name_of(column)} that is finite."]
    better = sum(sign * pair.difference.mean < 0 for _, pair in found)
    more = "higher" if column.best == "max" else "lower"
    first = f"{names[1][:1].upper()}{names[1][1:]}"
    sentences = [
        f"{first} has the {more} mean {name_of(column)} in {better} of {len(found)} comparisons "
        f"with {names[0]}{_over(results)}."
    ]
    ordered = sorted(found, key=lambda each: sign * each[1].difference.mean)
    ends = [("best for", ordered[0]), ("worst for", ordered[-1])]
    for place, (row, pair) in ends[: len(ordered)]:
        texts = _texts([pair.reference, pair.arm], len(results.seeds), column)
        (by,) = cell_texts([_mean(pair.difference)], pair.difference.n, sign="+")
        sentences.append(
            f"The comparison {place} {names[1]} is {words(row)}: {texts[1]} beside "
            f"{texts[0]}, a difference of {by}{unit_of(column)}{_p(pair.p_value)}."
        )
    if len(results.seeds) > 1:
        p_values = np.array([pair.p_value for _, pair in found])
        holm = statistics.adjust_p_values(p_values)
        sentences.append(
            f"Paired over the seeds, {int(np.sum(p_values < LEVEL))} of {len(found)} differences "
            f"are separated from zero at the 5% level, and {int(np.sum(holm < LEVEL))} corrected "
            "for their number (Holm)."
        )
    means = {
        label: cell
        for row, pair in found
        for label, cell in (
            (f"{names[0]} ({words(row)})", pair.reference),
            (f"{names[1]} ({words(row)})", pair.arm),
        )
    }
    best = min(means, key=lambda label: sign * means[label].mean)
    (text,) = _texts([means[best]], len(results.seeds), column)
    least = "highest" if column.best == "max" else "lowest"
    alike = [label for label, cell in means.items() if cell.mean == means[best].mean]
    sentences.append(f"The {least} mean of all is that of {_joined(alike)}, {text}.")
    return sentences


def of_claims(tested: Sequence[Tested], most: int = 5) -> list[str]:
    """Return how the verdicts are spread, and the clearest of them with its numbers.

    Args:
      tested: claims on one body of evidence.
      most: how many sentences.
    """
    counts = collections.Counter(each.verdict for each in tested)
    parts = [f"{counts[key]} {WORDS[key][counts[key] > 1]}" for key in WORDS if counts[key]]
    sentences = [f"Of {len(tested)} claims, {_joined(parts)}."]
    known = [each for each in tested if any(math.isfinite(p.effect) for p in each.parts)]
    known.sort(key=lambda each: (each.verdict in DECISIVE, _clarity(each)), reverse=True)
    for each in known[: most - 1]:
        deciding = [part for part in each.parts if part.verdict == each.verdict] or each.parts
        label, n, effect, interval, *_ = part_texts(max(deciding, key=_ratio))
        ends, _, level = interval.partition(" (")
        sentences.append(
            f"“{each.claim.statement.rstrip('.')}” {WORDS[each.verdict][0]}: {label} {effect} "
            f"({level.rstrip(')')} CI {ends}, {n})."
        )
    return sentences


def better_than(
    results: Results,
    column: Column,
    pairs: Sequence[tuple[str, Arm, Arm]],
    source: str = "this comparison",
) -> list[Tested]:
    """Test for every pair of arms that the first is better than the second, paired over seeds.

    Args:
      results: the results of the runs.
      column: the quantity; its `best` says which direction is better.
      pairs: a name, an arm and the one that it is compared with.
      source: where the claims are made.
    """
    direction = "positive" if column.best == "max" else "negative"
    more = "higher" if column.best == "max" else "lower"
    rows = {arm: row for row, arm in enumerate(results.arms)}
    claims = [
        Claim(
            f"{arm.name}_{other.name}_{column.quantity}",
            f"{words}: a {more} {name_of(column)} than {other.label}",
            source,
            f"Paired difference of the {name_of(column)}.",
            lambda evidence, arm=arm, other=other: difference(
                evidence, f"{arm.label} − {other.label}", [rows[arm]], [rows[other]], column,
                direction,
            ),
        )
        for words, arm, other in pairs
    ]  # fmt: skip
    return test_claims([RunEvidence(results, column)], claims)


def _joined(words: Sequence[str]) -> str:
    """Return words with commas, and "and" before the last."""
    return ", ".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"


def pairs_of(rows: Sequence[Contrast]) -> list[tuple[str, Arm, Arm]]:
    """Return the pairs of `better_than` that stand in the rows of a table."""
    return [(f"{row.arm.label} ({words_of(row)})", row.arm, row.reference) for row in rows]


def opening(folder: pathlib.Path, found: Sequence[str], tested: Sequence[Tested]) -> Opening:
    """Write the verdicts of claims, `verdicts.csv` and `.md`, and return what a report opens with.

    Args:
      folder: of the report.
      found: the sentences.
      tested: the claims.
    """
    verdicts = write_table(folder, "verdicts", claims_csv(tested), tests_grid(tested))
    return Opening(found, [verdicts] if tested else [])


def _have(arms: Sequence[Arm], end: str) -> str:
    """Return that an arm has the highest or lowest of something, or that several share it."""
    verb = "has" if len(arms) == 1 else "share"
    names = [arm.label for arm in arms]
    if len(names) > MOST_NAMES:
        names = [*names[:MOST_NAMES], f"{len(names) - MOST_NAMES} more"]
    return f"{_joined(names)} {verb} the {end}"


def _lead(results: Results, column: Column, arm: Arm, other: Arm) -> str:
    own, rival = results.by_seed(
        column.quantity, column.where, arms=[arm, other], scale=column.scale
    )
    found = mean_difference(own, rival, paired=True)
    mean = MeanAndStderr(found.difference, found.stderr, found.n[0])
    (text,) = cell_texts([mean], found.n[0])
    interval = span(found.interval, decimals([mean]))
    between = "" if interval == "—" else f" (95% CI {interval})"
    return (
        f"The difference of {arm.label} from {other.label} is {text}{unit_of(column)}"
        f"{between}{_p(found.p_value)}."
    )


def _separated(results: Results, column: Column, arms: Sequence[Arm]) -> str:
    if len(results.seeds) < 2:
        return "There is one seed, so that nothing says which differences are chance."
    values = results.by_seed(column.quantity, column.where, arms=arms, scale=column.scale)
    pairs = [(i, j) for j in range(len(arms)) for i in range(j)]
    p_values = np.array(
        [mean_difference(values[j], values[i], paired=True).p_value for i, j in pairs]
    )
    holm = statistics.adjust_p_values(p_values)
    return (
        f"By the {name_of(column)} these seeds separate {int(np.sum(p_values < LEVEL))} of "
        f"{len(pairs)} pairs of arms at the 5% level, and {int(np.sum(holm < LEVEL))} corrected "
        "for their number (Holm)."
    )


def _texts(cells: Sequence[Cell], seeds: int, column: Column) -> list[str]:
    texts = cell_texts([_mean(cell) for cell in cells], seeds)
    return [f"{text.replace(' ± —', '')}{unit_of(column)}" for text in texts]


def _mean(cell: Cell) -> MeanAndStderr:
    return MeanAndStderr(cell.mean, cell.stderr, cell.n)


def _over(results: Results) -> str:
    count = len(results.seeds)
    return f" (mean ± standard error over {count} seeds)" if count > 1 else " (one seed)"


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    text = p_text(value)
    return f", p {text}" if text.startswith("<") else f", p = {text}"


def _clarity(tested: Tested) -> float:
    return max(map(_ratio, tested.parts))


def _ratio(part: Part) -> float:
    """Return how many half widths of its interval an effect is from zero."""
    half = (part.interval.high - part.interval.low) / 2
    effect = abs(part.effect)
    return effect / half if half > 0 and math.isfinite(effect) else 0.0
