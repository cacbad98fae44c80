"""Curves between trained models: trained, evaluated, and ensembles along them."""

from sam_jax.extras import needs

needs(__name__, "lab", "flax", "ml_collections")
