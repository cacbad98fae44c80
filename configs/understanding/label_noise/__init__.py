"""The configs of the study label_noise."""
