"""Configs of single runs and, in folders, of whole studies."""
