"""Nets with one hidden layer of ReLUs on twelve points, trained by GD and by SAM."""
