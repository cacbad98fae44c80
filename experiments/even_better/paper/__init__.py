"""What the study printed, and what is wrong in it."""
