"""The live runtime: the same controllers on a clock and a socket, one party at a time; it needs no simulator."""
