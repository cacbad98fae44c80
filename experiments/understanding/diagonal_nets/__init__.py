"""Diagonal linear networks trained by GD, n-SAM and 1-SAM, beside the paper's recorded losses."""
