"""Curves between trained models: trained, evaluated, and ensembles along them."""

from sam_jax import extras

extras.needs(__name__, "lab", "flax", "ml_collections")
