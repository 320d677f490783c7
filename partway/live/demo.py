"""The scenario of a first live run: four devices of two classes, blocks of a quarter of a second, any network.

Rates are chosen by the network: a task takes so many cycles that a slow device finishes one in a block and gets more.
"""

from pathlib import Path
from typing import Any

from partway.dnn.profile import Profile, write_profile

DEVICE_CYCLES, SERVER_CYCLES = 1e8, 1e7
"""Cycles of a task at a device, and at the server."""
SLOT_S, SLOTS = 0.05, 5
EFFICIENCY = 10.0
"""Spectral efficiency [bit/s/Hz] at which one slot carries the whole encoded input."""


def write_network_profile(profile: Profile, folder: Path) -> Path:
    """Write the profile of a network to a folder; returns the file."""
    path = folder / f"{profile.name}.csv"
    path.write_text(write_profile(profile), encoding="utf-8")
    return path


def scenario_for(profile: Profile, path: Path) -> dict[str, Any]:
    """The tables of the scenario for a network, whose profile is in the file `path`."""
    return {
        "devices": 4,
        "slots_per_block": SLOTS,
        "slot_s": SLOT_S,
        "weights": {
            "server_queue": 1.0 / SERVER_CYCLES,  # a task that waits for a block costs 1, at a device or at the server
            "server_energy": 20.0,
            "device_queue": 1.0 / DEVICE_CYCLES,
            "device_energy": 20.0,  # 36 mJ, a task on the slow CPU, costs 0.7
        },
        "device": {
            "arrival_prob": 0.25,  # five tasks a second
            "cpu_max_hz": 0.6e9,  # a task and a half in a block: it finishes one
            "capacitance": 1e-27,  # 0.2 W at 0.6 GHz
            "macs_per_cycle": profile.macs / DEVICE_CYCLES,
            "bandwidth_hz": profile.input_bits / (SLOT_S * EFFICIENCY),
            "tx_power_max_w": 0.2,
            "task": {"kind": "layers", "profile": str(path), "tensor_dtype": "fp16"},
        },
        "group": [{"name": "slow", "fraction": 0.5}, {"name": "fast", "fraction": 0.5, "cpu_max_hz": 1.0e9}],
        "server": {"cpu_max_hz": 2e9, "capacitance": 5.6e-27, "macs_per_cycle": profile.macs / SERVER_CYCLES},
    }
