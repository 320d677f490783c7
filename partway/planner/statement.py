"""What an engineer states about a link, a device and a server, put together with a scenario. Needs no JAX."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from partway.arguments import as_real, named, whole_number
from partway.dnn.profile import Profile
from partway.errors import InputError, compact, shown
from partway.planner.one_task import Link, Processor, Question
from partway.scenario.loading import load
from partway.scenario.schema import DeviceClass, Scenario
from partway.system.path_loss import gain_from_db, noise_dbw, pathloss_db
from partway.system.placement import Placement, sample_placement
from partway.units import BIT_ENERGY, DEADLINE, FREQUENCY, POWER, RATE, TIME, WORK_RATE, Kind, parsed, quantity

DISTANCES_M = (1e-3, 1e9)
"""Smallest and largest distance, as in the scenario."""
LEAST_POWER_W = 1e-15
"""Least limit of the transmit power, as in the scenario."""
BANDWIDTHS_HZ = (1.0, 1e18)
"""Least and most bandwidth, as in the scenario."""
MACS_PER_CYCLE = (1e-6, 1e12)
"""Least and most work a cycle, as in the scenario."""
MAX_EFFICIENCY = 40.0
"""Highest spectral efficiency of a link [bit/s/Hz], as in `partway.dnn.cuts`, which needs JAX."""


@dataclass(frozen=True)
class Statement:
    """What is stated; None: what the scenario has.

    rate            of the link [bit/s]                       rtt_s       its round trip [s]
    deadline_s      for one task [s]
    device_macs, server_macs    multiply-accumulates a second at full speed
    device_times, server_times  (cuts,) measured time of the layers before each cut [s], instead of these
    cpu_min_hz, cpu_max_hz      the range of the device's CPU rate [Hz]; without a least rate it runs at the largest
    cpu_w           power of the device's CPU at full speed, above idle [W]
    idle_w          power that the device draws all the time [W]
    tx_w            power of the device's radio while it sends, above idle [W]
    j_per_bit       energy of sending [J/bit], instead of `tx_w`
    """

    rate: float | None = None
    rtt_s: float = 0.0
    deadline_s: float | None = None
    device_macs: float | None = None
    server_macs: float | None = None
    device_times: np.ndarray | None = None
    server_times: np.ndarray | None = None
    cpu_min_hz: float | None = None
    cpu_max_hz: float | None = None
    cpu_w: float | None = None
    idle_w: float = 0.0
    tx_w: float | None = None
    j_per_bit: float | None = None


Quantity = str | float
"""Text with a unit, such as "20Mbit/s", or a number in SI units."""
QUANTITIES: dict[str, tuple[str, Kind]] = {
    "rate": ("rate", RATE),
    "rtt": ("rtt_s", TIME),
    "deadline": ("deadline_s", DEADLINE),
    "device_rate": ("device_macs", WORK_RATE),
    "server_rate": ("server_macs", WORK_RATE),
    "cpu_min": ("cpu_min_hz", FREQUENCY),
    "cpu_max": ("cpu_max_hz", FREQUENCY),
    "cpu_power": ("cpu_w", POWER),
    "idle_power": ("idle_w", POWER),
    "tx_power": ("tx_w", POWER),
    "energy_per_bit": ("j_per_bit", BIT_ENERGY),
}
"""The field of a `Statement` and the kind of quantity, by the name of the argument of `cut` and of the flag."""

ALTERNATIVES = (("tx_power", "energy_per_bit"), ("device_rate", "device_times"), ("server_rate", "server_times"))
"""Arguments of `cut` of which at most one can be given."""


def stated_numbers(given: Mapping[str, Any]) -> dict[str, float]:
    """The fields of a `Statement` that arguments of `cut` stand for; raises InputError if one cannot be used."""
    for one, other in ALTERNATIVES:
        if given.get(one) is not None and given.get(other) is not None:
            raise InputError(f"give {named(one)} or {named(other)}, not both")
    return {
        field: parsed(named(name), value, kind)
        for name, (field, kind) in QUANTITIES.items()
        if (value := given.get(name)) is not None
    }


def with_tables(scenario: Scenario, change: Callable[[dict[str, Any]], None], **others: Any) -> Scenario:
    """The scenario with the table of every class of devices changed; raises InputError if it becomes invalid.

    others  tables of which fields are replaced, such as server={"macs_per_cycle": 4.0}; a field of None is removed
    """
    raw = scenario.model_dump(mode="python", exclude_none=True)
    for table in (raw["device"], *(group["device"] for group in raw["group"])):
        change(table)
    for name, fields in others.items():
        raw[name] = {key: value for key, value in (raw[name] | fields).items() if value is not None}
    kinds = {"radio.fading.kind": raw["radio"]["fading"]["kind"], "traffic.kind": raw["traffic"]["kind"]}
    return load(raw, kinds)  # named again: a table alone imports no code


def with_task(scenario: Scenario, task: dict[str, Any]) -> Scenario:
    """The scenario with this task for the devices of all classes; raises InputError if the task is invalid."""
    return with_tables(scenario, lambda table: table.update(task=task))


def with_processors(scenario: Scenario, stated: Statement, profile: Profile) -> Scenario:
    """The scenario with the stated CPUs and powers for the devices of all classes and the server.

    Measured times enter as the mean rate of the whole network.
    """

    def change(table: dict[str, Any]) -> None:
        if stated.cpu_max_hz is not None:
            table["cpu_max_hz"] = stated.cpu_max_hz
        if (rate := _macs_per_s(profile, stated.device_macs, stated.device_times)) is not None:
            table["macs_per_cycle"] = _macs_per_cycle("device", rate, table["cpu_max_hz"])
        if stated.cpu_w is not None:
            table["capacitance"] = stated.cpu_w / table["cpu_max_hz"] ** 3
        if stated.tx_w is not None:
            table["tx_power_max_w"] = max(stated.tx_w, LEAST_POWER_W)
        elif stated.j_per_bit is not None and stated.rate is not None:
            table["tx_power_max_w"] = max(stated.j_per_bit * stated.rate, LEAST_POWER_W)

    rate = _macs_per_s(profile, stated.server_macs, stated.server_times)
    server = {} if rate is None else {"macs_per_cycle": _macs_per_cycle("server", rate, scenario.server.cpu_max_hz)}
    return with_tables(scenario, change, server=server)


def _macs_per_cycle(party: str, rate: float, hertz: float) -> float:
    """Work a cycle at a rate [MAC/s]. Raises InputError, in the words of who stated the rate or times, out of range."""
    least, most = MACS_PER_CYCLE
    if not least <= rate / hertz <= most:
        limits = f"from {quantity(least * hertz, 'MAC/s')} to {quantity(most * hertz, 'MAC/s')}"
        stated = f"{named(f'{party}_rate')}, or what {named(f'{party}_times')} make of it,"
        got = "more" if math.isinf(rate) else quantity(rate, "MAC/s")
        raise InputError(f"{stated} must be {limits} at {quantity(hertz, 'Hz')}, got {got}")
    return rate / hertz


def _macs_per_s(profile: Profile, stated: float | None, times: np.ndarray | None) -> float | None:
    if times is not None and times[-1] > 0:
        with np.errstate(over="ignore"):
            return float(profile.macs / times[-1])
    return stated


def placed(scenario: Scenario, index: int | None = None, distance_m: float | None = None) -> tuple[Placement, int]:
    """The placement of all devices and the number of the one that is planned for: by default the median gain's.

    distance_m  [m] moves the device there, without shadowing

    Raises InputError for an index or a distance out of range.
    """
    if index is not None:
        index = whole_number(named("device"), index, 0, scenario.devices - 1)
    distance = None if distance_m is None else as_real(distance_m)
    if distance is None and distance_m is not None:
        raise InputError(f"{named('distance_m')} must be a number of metres, got {shown(distance_m)}")
    placement = sample_placement(scenario)
    if index is None:
        index = int(np.argsort(placement.mean_gain_per_w)[scenario.devices // 2])
    if distance is not None:
        placement = _moved(scenario, placement, index, distance)
    return placement, index


def _moved(scenario: Scenario, placement: Placement, index: int, distance_m: float) -> Placement:
    low, high = DISTANCES_M
    if not low <= distance_m <= high:
        limits = f"{compact(low)} and {compact(high)}"
        raise InputError(f"{named('distance_m')} must be between {limits}, got {compact(distance_m)}")
    distances, gains = placement.distance_m.copy(), placement.mean_gain_per_w.copy()
    loss_db = pathloss_db(scenario.radio, np.array(distance_m))
    noise = noise_dbw(scenario.radio, np.array(scenario.device_classes()[index].bandwidth_hz))
    distances[index], gains[index] = distance_m, gain_from_db(loss_db, noise)
    return Placement(distances, gains)


def efficiency(scenario: Scenario, kind: DeviceClass, gain: float) -> float:
    """[bit/s/Hz] of (3) at full transmit power and a channel gain [1/W], at most MAX_EFFICIENCY."""
    with np.errstate(over="ignore"):
        snr = np.float64(gain) * kind.tx_power_max_w / scenario.radio.snr_gap
    return float(min(np.log1p(snr) / np.log(2.0), MAX_EFFICIENCY))


def with_rate(scenario: Scenario, index: int, gain: float, rate: float) -> Scenario:
    """The scenario in which the device's link carries `rate` [bit/s] at full power and its mean gain [1/W].

    All devices get the bandwidth that this takes, and the noise stays what it is in total: so do their gains, and with
    them the spectral efficiency. Raises InputError if the scenario allows no such bandwidth.
    """
    kind = scenario.device_classes()[index]
    bandwidth_hz = rate / max(efficiency(scenario, kind, gain), 1e-300)
    least, most = BANDWIDTHS_HZ
    if not least <= bandwidth_hz <= most:
        raise InputError(
            f"{quantity(rate, 'bit/s')} at the mean channel gain needs a bandwidth of {compact(bandwidth_hz)} Hz; "
            f"it must be between {compact(least)} and {compact(most)} Hz"
        )
    total = float(noise_dbw(scenario.radio, np.array(kind.bandwidth_hz)))
    radio = {"noise_dbw": total, "noise_dbm_per_hz": None, "noise_figure_db": 0.0}
    return with_tables(scenario, lambda table: table.update(bandwidth_hz=bandwidth_hz), radio=radio)


def question_of(
    scenario: Scenario,
    profile: Profile,
    stated: Statement,
    place: Callable[[], tuple[Placement, int]],
    tensor_dtype: str,
    input_bits: float | None = None,
) -> Question:
    """What is asked about one task of the profile at one device of a scenario with `with_processors`.

    place  finds the placement and the device; called only if the scenario's radio or several classes make it matter

    Raises InputError where neither a rate nor a limit of the transmit power is given, or sending has no known energy.
    """
    classes = list(dict.fromkeys(scenario.device_classes())) if scenario.group else [scenario.device]
    where = place() if stated.rate is None or len(classes) > 1 else None
    kind = scenario.device if where is None else scenario.device_classes()[where[1]]
    if np.isinf(kind.tx_power_max_w) and (stated.rate is None or stated.j_per_bit is None):
        needed = [named("rate")] * (stated.rate is None) + [named("tx_power")]
        needed = " and ".join(needed) if stated.rate is None else f"{needed[0]} or {named('energy_per_bit')}"
        raise InputError(f"give {needed}: the scenario does not limit the transmit power of the device")
    rate = stated.rate
    if rate is None:
        assert where is not None
        gain = float(where[0].mean_gain_per_w[where[1]])
        rate = max(kind.bandwidth_hz * efficiency(scenario, kind, gain), 1e-100)
    tx_w = kind.tx_power_max_w if stated.tx_w is None else stated.tx_w
    sending = (tx_w, 0.0) if stated.j_per_bit is None else (0.0, stated.j_per_bit)
    return Question(
        profile.bits(tensor_dtype, input_bits),
        profile.pareto_optimal(tensor_dtype, input_bits),
        _device(kind, profile, stated),
        _server(scenario, profile, stated),
        Link(rate, stated.rtt_s, *sending),
        stated.deadline_s,
    )


def _device(kind: DeviceClass, profile: Profile, stated: Statement) -> Processor:
    least = kind.cpu_max_hz if stated.cpu_min_hz is None else stated.cpu_min_hz
    if least > kind.cpu_max_hz:
        limit, got = (quantity(hertz, "Hz", digits=9) for hertz in (kind.cpu_max_hz, least))
        raise InputError(f"{named('cpu_min')} must be at most the largest CPU rate, {limit}, got {got}")
    elapsed_s, source = _elapsed(profile, kind.cpu_max_hz, kind.macs_per_cycle, stated.device_times)
    busy_w = kind.capacitance * kind.cpu_max_hz**3
    return Processor(elapsed_s, busy_w, stated.idle_w, least / kind.cpu_max_hz, kind.cpu_max_hz, source)


def _server(scenario: Scenario, profile: Profile, stated: Statement) -> Processor:
    server = scenario.server
    elapsed_s, source = _elapsed(profile, server.cpu_max_hz, server.macs_per_cycle, stated.server_times)
    return Processor(elapsed_s, server.capacitance * server.cpu_max_hz**3, max_hz=server.cpu_max_hz, source=source)


def _elapsed(profile: Profile, hertz: float, macs_per_cycle: float, times: np.ndarray | None) -> tuple[np.ndarray, str]:
    """(cuts,) time of the layers before each cut [s], and where it comes from."""
    if times is not None:
        return times, "measured layer times"
    rate = hertz * macs_per_cycle
    elapsed_s = np.array([cut.macs for cut in profile.cuts], np.float64) / rate
    return elapsed_s, f"{quantity(rate, 'MAC/s')} ({quantity(hertz, 'Hz')} x {macs_per_cycle:.4g} MAC)"
