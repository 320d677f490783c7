"""The system: parties and state, equations (1)-(8), signalling, placement, load, and what is random."""
