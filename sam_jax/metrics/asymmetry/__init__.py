"""How the two sides of a minimum differ."""
