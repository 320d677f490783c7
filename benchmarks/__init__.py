"""How fast Partway is, against what users write and against what the machine can do: `python -m benchmarks`."""
