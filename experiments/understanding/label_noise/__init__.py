"""Training and test curves with and without wrong labels, and what early stopping saves."""
