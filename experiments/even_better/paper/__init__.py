"""The numbers that the study printed, and the errors in it."""
