"""Tables, correlations and comparisons of these runs."""
