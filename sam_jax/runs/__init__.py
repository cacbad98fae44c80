"""What a run is on disk: its folder, config, checkpoints, records and progress."""
