"""The settings of the first SAM paper: one config a training, and the study over them."""
