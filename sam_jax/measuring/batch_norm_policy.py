"""Where batch norm takes its statistics from when parameters are measured."""

import dataclasses

import jax

from sam_jax.metrics.landscape.grids import BATCH_NORM_POLICIES


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class BatchNormPolicy:
    """Where batch norm takes its statistics from, away from a trained model.

    * "running": the running statistics of the trained model. The loss is then a function of the
      weights alone (Li et al. 2018); far from the model they do not fit, and the loss explodes.
    * "batch": the statistics of each evaluated batch, as in training.
    * "recalibrated": running statistics computed again on the training set at every point (Garipov
      et al. 2018, He et al. 2019).

    Landscapes under different policies cannot be compared; recalibrated ones are far flatter.

    Attributes:
      kind: one of the above.
      batch_size: images that batch norm sees at once, which changes the result; None for "running".

    Raises:
      ValueError: the kind is unknown, or a batch size is missing, not positive or of no use.

    >>> BatchNormPolicy("recalibrated", 128).batch_size
    128
    """

    kind: str = "running"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in BATCH_NORM_POLICIES:
            raise ValueError(
                f"batch_norm must be one of {list(BATCH_NORM_POLICIES)}, got {self.kind!r}."
            )
        if self.kind == "running":
            if self.batch_size is not None:
                raise ValueError(
                    'batch norm with its "running" statistics sees no batch; leave out '
                    f"batch_size, got {self.batch_size}."
                )
        elif self.batch_size is None or self.batch_size < 1:
            raise ValueError(
                f'batch norm by "{self.kind}" needs the images that it sees at once: a positive '
                f"batch_size, got {self.batch_size}."
            )


RUNNING = BatchNormPolicy()


def policy_of(kind: str, batch_size: int) -> BatchNormPolicy:
    """Return the policy of a config, which has a batch size whether the kind needs it or not.

    >>> policy_of("running", 128)
    BatchNormPolicy(kind='running', batch_size=None)
    """
    return BatchNormPolicy(kind, None if kind == "running" else batch_size)


def check_policy(batch_norm: BatchNormPolicy) -> None:
    """Raise a TypeError where the name of a policy was given in its place."""
    if not isinstance(batch_norm, BatchNormPolicy):
        raise TypeError(
            'batch_norm must be a BatchNormPolicy, such as BatchNormPolicy("recalibrated", 128); '
            f"got {batch_norm!r}."
        )
