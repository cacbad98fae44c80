"""How far the loss rises around a minimum."""
