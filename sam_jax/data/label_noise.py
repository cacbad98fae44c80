"""Label noise: a share of the training labels replaced, from a seed of its own."""

import numbers
from typing import NamedTuple

import numpy as np

from sam_jax.data.checks import check_source, check_whole, described
from sam_jax.data.sources import Source
from sam_jax.data.splits import Split
from sam_jax.data.streaming import StreamedSplit
from sam_jax.suggestions import did_you_mean

KINDS = ("symmetric", "asymmetric")
# Labels that asymmetric noise takes for one another, by the name of the set. In all other sets a
# label becomes the next one, and the last the first.
CONFUSIONS = {
    # truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog
    "cifar10": {9: 1, 2: 0, 4: 7, 3: 5, 5: 3},
}


class LabelNoise(NamedTuple):
    """What becomes of the labels at every place of a set.

    Attributes:
      chosen: bool [n], the places whose labels are replaced.
      shifts: int32 [n], from 1 to C - 1, what symmetric noise adds to a label, modulo C.
      confused: int32 [C] what asymmetric noise makes of each label; None for symmetric noise.
      classes: C.
    """

    chosen: np.ndarray
    shifts: np.ndarray
    confused: np.ndarray | None
    classes: int

    def __call__(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the noisy labels of the examples at some places, whose true labels are given."""
        replaced = (labels + self.shifts[rows]) % self.classes
        if self.confused is not None:
            replaced = self.confused[labels]
        return np.where(self.chosen[rows], replaced, labels).astype(labels.dtype)

    def pairs(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the noisy labels beside the true ones, [n, 2]."""
        return np.stack([self(rows, labels), labels], axis=1)


def label_noise(source: Source, examples: int, share: float, kind: str, seed: int) -> LabelNoise:
    """Draw label noise of a training set.

    Args:
      source: the set.
      examples: n, how many labels there are.
      share: of the n labels that are chosen, in [0, 1]; their number is n * share, rounded. A
        larger share of the same seed chooses the same ones and more.
      kind: "symmetric": a chosen label becomes any of the C - 1 others with equal probability, and
        never itself. "asymmetric": it becomes the one of `CONFUSIONS`, or the next one.
      seed: of the choice and the new labels. The places are numbered in the order of the set.

    Returns:
      A LabelNoise.

    Raises:
      ValueError: the source, the share or the kind is none, or n or the seed is no such number.

    >>> from sam_jax.data import SOURCES
    >>> noise = label_noise(SOURCES["digits"], 4, share=0.5, kind="symmetric", seed=0)
    >>> noise(np.arange(4), np.zeros(4, np.int32)).tolist()
    [0, 0, 8, 4]

    Source: tml-epfl/understanding-sam, which draws among the other classes and takes these
    confusions. A definition that draws among all classes, the true one included, calls s what is
    s (C - 1) / C here: 0.72 for 0.8 and ten classes. Where asymmetric noise leaves a label as it
    is, as on half of CIFAR-10's classes, the example counts as clean, in the metrics too. The
    released code counts it as noisy. It also makes held-out labels wrong, which are right here.
    """
    check_source(source)
    check_label_noise(share, kind)
    check_whole("examples", examples)
    check_whole("seed", seed, 0, 2**32 - 1)
    random = np.random.RandomState(seed)  # whose numbers numpy keeps as they are
    chosen = np.zeros(examples, bool)
    chosen[random.permutation(examples)[: round(share * examples)]] = True
    classes = source.num_classes
    shifts = random.randint(1, classes, examples).astype(np.int32)
    confused = None
    if kind == "asymmetric":
        confused = ((np.arange(classes) + 1) % classes).astype(np.int32)
        if source.name in CONFUSIONS:
            confusion = CONFUSIONS[source.name]
            confused = np.array([confusion.get(c, c) for c in range(classes)], np.int32)
    return LabelNoise(chosen, shifts, confused, classes)


def check_label_noise(share: float, kind: str) -> None:
    """Raise a ValueError that names the field of a config that cannot be.

    Args:
      share: as in `label_noise`.
      kind: likewise.
    """
    if not isinstance(share, numbers.Real) or not 0 <= share <= 1:
        raise ValueError(
            f"data.label_noise must be a share of the training labels, in [0, 1], got {share!r}."
        )
    if kind not in KINDS:
        raise ValueError(
            f"data.label_noise_kind must be one of {', '.join(KINDS)}, got {kind!r}."
            f"{did_you_mean(kind, KINDS)}"
        )


def with_label_noise(
    split: Split | StreamedSplit, noise: LabelNoise
) -> tuple[Split | StreamedSplit, Split | StreamedSplit]:
    """Return a split with noisy labels, and the same with the labels in pairs.

    Args:
      split: in memory or streamed; of a streamed one labels are replaced as they are read.
      noise: from `label_noise`, of as many examples.

    Returns:
      The split with labels [n], and with labels [n, 2], each noisy one beside the true one.

    Raises:
      ValueError: the split or the noise is none, or they have other numbers of examples.
    """
    if not isinstance(noise, LabelNoise):
        raise ValueError(f"noise must come from label_noise, got {described(noise)}.")
    if not isinstance(split, Split | StreamedSplit):
        raise ValueError(
            f"split must be a Split or a StreamedSplit, such as load(NAME).train, got "
            f"{described(split)}."
        )
    if len(split.labels) != len(noise.chosen):
        raise ValueError(
            f"The noise is of {len(noise.chosen)} examples, and the split has "
            f"{len(split.labels)}: draw it with examples={len(split.labels)}."
        )
    if isinstance(split, StreamedSplit):
        return split.relabelled(noise), split.relabelled(noise.pairs)
    rows = np.arange(len(split.labels))
    return (
        split._replace(labels=noise(rows, split.labels)),
        split._replace(labels=noise.pairs(rows, split.labels)),
    )
