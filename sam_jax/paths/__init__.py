"""Curves between trained models: trained, evaluated, and ensembles along them."""
