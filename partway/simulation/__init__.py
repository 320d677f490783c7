"""The simulator: one step of the system, and rollouts of it over blocks and runs on all cores."""
