"""A run on disk: its folder, config, checkpoints, records and progress."""

from sam_jax import extras

extras.needs(
    __name__, "lab", "absl", "ml_collections", "orbax", "tensorboardX", "tensorstore", "tqdm"
)
