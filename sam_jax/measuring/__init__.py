"""The instruments applied to a trained model, one record a measurement."""

from sam_jax import extras

extras.needs(__name__, "lab", "absl", "flax", "ml_collections")
