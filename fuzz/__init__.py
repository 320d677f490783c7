"""Inputs that nobody would write by hand, signals at any moment and full disks: what Partway must survive.

A part makes numbered cases from a seed, so that any case can be made again alone, and counts what went wrong. Nothing
here is needed to run Partway; `python -m fuzz --help` says how to run it.
"""
