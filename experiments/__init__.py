"""Experiments, one package a paper."""

from sam_jax.extras import needs

needs(__name__, "lab", "absl", "flax", "jinja2", "markupsafe", "matplotlib", "ml_collections")
needs(__name__, "lab", "orbax", "pandas", "scipy", "sklearn")
