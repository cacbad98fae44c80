"""The instruments applied to a trained model, one record a measurement."""

from sam_jax.extras import needs

needs(__name__, "lab", "flax", "ml_collections")
