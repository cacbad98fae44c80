"""The training loop: state, losses, step, loop, checkpoints, records and measurements."""
