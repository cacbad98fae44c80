"""Experiments, one package a paper."""

from sam_jax import extras

extras.needs(
    __name__, "lab", "absl", "flax", "jinja2", "markupsafe", "matplotlib", "ml_collections"
)
extras.needs(__name__, "lab", "filelock", "orbax", "pandas", "scipy", "sklearn", "submitit")
extras.needs(__name__, "lab", "PIL", "plotly")
