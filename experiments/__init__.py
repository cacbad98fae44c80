"""Experiments, one package a paper."""
