"""What the runs left, read into values."""
