"""The mean channel gain over noise at a distance: path loss and noise."""

import numpy as np

from partway.scenario.schema import Radio

DBM_PER_DBW = 30.0
"""0 dBW is 30 dBm."""


def pathloss_db(radio: Radio, distance_m: np.ndarray) -> np.ndarray:
    """Section VI: 30.6 + 37.6 log10(d) [dB] in the preset `paper`."""
    return radio.pathloss_db_at_1m + radio.pathloss_slope_db * np.log10(distance_m)


def noise_dbw(radio: Radio, bandwidth_hz: np.ndarray) -> np.ndarray:
    """Noise power in each bandwidth [dBW]: density, noise figure and bandwidth, or the total if that is given."""
    if radio.noise_dbm_per_hz is None:
        return np.full(np.shape(bandwidth_hz), radio.noise_dbw, np.float64)
    return radio.noise_dbm_per_hz - DBM_PER_DBW + radio.noise_figure_db + 10.0 * np.log10(bandwidth_hz)


def gain_from_db(loss_db: np.ndarray, noise_dbw: np.ndarray | float) -> np.ndarray:
    """Gain over noise [1/W]. The only place where dB becomes a ratio."""
    return 10.0 ** (-(loss_db + noise_dbw) / 10.0)
