"""Train and measure."""
