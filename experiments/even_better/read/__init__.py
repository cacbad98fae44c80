"""The files of the runs, read into values."""
