"""Where the devices are, and the mean channel gain that follows: path loss, shadowing, noise."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from partway.rng import folded, rounds
from partway.scenario.schema import Radio, Scenario

DBM_PER_DBW = 30.0
"""0 dBW is 30 dBm."""


@dataclass(frozen=True)
class Placement:
    """Where the devices are: `distance_m` (K,), and `mean_gain_per_w` (K,), gain over noise with shadowing [1/W]."""

    distance_m: np.ndarray
    mean_gain_per_w: np.ndarray


def noise_dbw(radio: Radio, bandwidth_hz: np.ndarray) -> np.ndarray:
    """Noise power in each bandwidth [dBW]: density, noise figure and bandwidth, or the total if that is given."""
    if radio.noise_dbm_per_hz is None:
        return np.full(np.shape(bandwidth_hz), radio.noise_dbw, np.float64)
    return radio.noise_dbm_per_hz - DBM_PER_DBW + radio.noise_figure_db + 10.0 * np.log10(bandwidth_hz)


def gain_from_db(loss_db: np.ndarray, noise_dbw: np.ndarray | float) -> np.ndarray:
    """Gain over noise [1/W]. The only place where dB becomes a ratio."""
    return 10.0 ** (-(loss_db + noise_dbw) / 10.0)


def sample_placement(scenario: Scenario) -> Placement:
    """Devices evenly over the ring between `min_distance_m` and `cell_radius_m`, with log-normal shadowing."""
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


def pathloss_db(radio: Radio, distance_m: np.ndarray) -> np.ndarray:
    """Section VI: 30.6 + 37.6 log10(d) [dB] in the preset `paper`."""
    return radio.pathloss_db_at_1m + radio.pathloss_slope_db * np.log10(distance_m)


def _uniform(random_words: np.ndarray) -> np.ndarray:
    return (random_words.astype(np.float64) + 0.5) / 2.0**32
