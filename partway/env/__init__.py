"""Environments for reinforcement learning: functional in JAX, and around it Gymnasium's and PettingZoo's.

Importing this package registers `partway/Device-v0` and `partway/System-v0` where Gymnasium is installed.
"""

import importlib.util

if importlib.util.find_spec("gymnasium") is not None:
    import gymnasium

    for _name in ("Device", "System"):
        gymnasium.register(
            f"partway/{_name}-v0",
            entry_point=f"partway.env.single:{_name}Env",
            vector_entry_point=f"partway.env.vector:{_name}VectorEnv",
        )
