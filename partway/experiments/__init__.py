"""Experiments: comparisons, what is prepared before a run, summaries, reports, checkpoints, and sweeps."""
