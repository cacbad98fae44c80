"""The claims, and the numbers that they are tested on."""
