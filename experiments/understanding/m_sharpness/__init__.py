"""Figure 1 of the paper: which m makes SAM generalise, at every radius."""
