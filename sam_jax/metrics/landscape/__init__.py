"""Losses on a curve, a line or a plane around a minimum."""
