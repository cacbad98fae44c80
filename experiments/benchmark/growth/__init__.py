"""How time and memory grow: a model, the measurements beside it, and forecasts.

- model.py: what is predicted for every point of a sweep, from one point that calibrates it.
- hardware.py, forecast.py: published numbers of accelerators, and times of whole studies.
- page.py: the figures, the tables and the page.
"""
