"""Section VI of the paper, reproduced: its claims as data, the runs behind its figures, and a verdict on each claim."""
