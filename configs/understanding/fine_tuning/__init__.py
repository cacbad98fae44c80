"""The configs of the study fine_tuning."""
