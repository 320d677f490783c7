"""Where the devices are, and the mean channel gain that follows, with log-normal shadowing."""

from dataclasses import dataclass

import numpy as np

from partway.scenario.schema import Scenario
from partway.system.path_loss import gain_from_db, noise_dbw, pathloss_db
from partway.threefry import folded, rounds


@dataclass(frozen=True)
class Placement:
    """Where the devices are: `distance_m` (K,), and `mean_gain_per_w` (K,), gain over noise with shadowing [1/W]."""

    distance_m: np.ndarray
    mean_gain_per_w: np.ndarray


def sample_placement(scenario: Scenario) -> Placement:
    """Devices evenly over the ring between `min_distance_m` and `cell_radius_m`, with log-normal shadowing."""
    from scipy.special import ndtri  # imported here: it takes a quarter of a second

    radio = scenario.radio
    zero, device = np.zeros(1, np.uint32), np.arange(scenario.devices, dtype=np.uint32)
    key = folded((zero, zero + np.uint32(scenario.placement_seed)), 0)
    uniform = [_uniform(np.bitwise_xor(*rounds(folded(key, i), (zero, device)))) for i in range(2)]
    near, far = radio.min_distance_m**2, radio.cell_radius_m**2
    distance = np.sqrt(near + uniform[0] * (far - near))
    classes = scenario.device_classes()
    fixed = [device.distance_m for device in classes]
    distance = np.array([d if f is None else f for d, f in zip(distance, fixed, strict=True)])
    loss_db = pathloss_db(radio, distance) + radio.shadowing_db * ndtri(uniform[1])
    bandwidth_hz = np.array([device.bandwidth_hz for device in classes])
    return Placement(distance, gain_from_db(loss_db, noise_dbw(radio, bandwidth_hz)))


def _uniform(random_words: np.ndarray) -> np.ndarray:
    return (random_words.astype(np.float64) + 0.5) / 2.0**32
