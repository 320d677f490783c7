"""A proven lower bound on the cost of every policy, and the tables that say how far above it a block is."""
