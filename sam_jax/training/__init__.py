"""The training loop: state, losses, step, loop, checkpoints, records and measurements."""

from sam_jax import extras

extras.needs(__name__, "lab", "absl", "flax", "ml_collections", "orbax")
