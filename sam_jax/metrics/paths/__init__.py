"""Curves through the space of the parameters."""
