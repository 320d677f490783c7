"""Sweeps: schemes at every point of a grid over scenario fields, on processes or a cluster, resumable."""
