"""From ERM to SAM and back: what a few epochs change, and the line between start and end."""
