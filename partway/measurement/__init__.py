"""What is measured of a run: metrics and losses of blocks, latency of tasks, and the checkpoint format."""
