"""The training loop: state, losses, step, loop, checkpoints, records and measurements."""

from sam_jax.extras import needs

needs(__name__, "lab", "absl", "flax", "ml_collections")
