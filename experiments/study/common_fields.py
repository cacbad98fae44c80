"""What fields may hold that the configs of several studies have."""

from sam_jax.metrics.landscape.grids import BATCH_NORM_POLICIES
from sam_jax.runs.fields import Field, one_of, several, whole

SEEDS = several(whole(0, 2**32 - 1), least=1, distinct=True)
# Of a group whose landscapes may be measured at other statistics of batch norm.
BATCH_NORM: dict[str, Field] = {
    "batch_norm": one_of(BATCH_NORM_POLICIES),
    "batch_norm_batch_size": whole(1),
}
