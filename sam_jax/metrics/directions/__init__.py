"""Directions in the space of the parameters, and their lengths."""
