"""Long name and unit of every variable of a comparison's dataset; figures take the words before the first comma."""

import xarray as xr

from partway.experiments.by_device import VALUES

BLOCKS = {
    "cost": ("cost, of a block, by component of (8)", "per block"),
    "device_energy_j": ("energy of all devices", "J"),
    "server_energy_j": ("energy of the server", "J"),
    "wasted_energy_j": ("energy of the server while it had no work", "J"),
    "waiting": ("tasks waiting at the devices at the start of the block", "tasks"),
    "arrived": ("tasks that arrived", "tasks"),
    "started": ("tasks started", "tasks"),
    "backlog": ("work waiting at the server at the start of the block", "mean tasks"),
    "sent": ("work sent to the server", "mean tasks"),
    "served": ("work done by the server", "mean tasks"),
    "started_work": ("work that the tasks started would be at the server", "mean tasks"),
    "arrived_work": ("work that the tasks that arrived would be at the server", "mean tasks"),
    "total_work": ("work waiting anywhere at the start of the block", "mean tasks"),
    "price": ("price of work at the server, as broadcast", "cost per mean task"),
    "cpu_utilisation": ("utilisation of the devices' processors", "1"),
    "radio_utilisation": ("utilisation of the devices' radio slots", "1"),
    "server_utilisation": ("utilisation of the server", "1"),
    "device_relative_change": ("relative change of what the devices have learned, mean of devices", "1"),
    "server_relative_change": ("relative change of what the server has learned", "1"),
    "power_mismatch": ("fraction of devices whose power differs from the commanded power", "1"),
    "loss_devices": ("cost above the lower bound: choices of the devices", "cost per block"),
    "loss_waiting": ("cost above the lower bound: work left waiting at the server", "cost per block"),
    "loss_service": ("cost above the lower bound: service of the server", "cost per block"),
}
"""What every block of every seed has; the names are those of `partway.measurement.metrics.BlockMetrics`."""
TRACED = {
    "q": ("queue length, at the start of the block", "tasks"),
    "gain": ("channel gain, over noise", "1/W"),
    "started": ("tasks started", "tasks"),
    "offload": ("offloaded fraction, of the last task started", "1"),
    "power": ("transmit power", "W"),
    "cost": ("cost, the device's own terms of (8)", "per block"),
}
"""What is kept of traced devices, as `device_NAME`; the names are those of `DeviceTraces`."""
SPENT = {
    "cpu_hz": ("CPU rate", "Hz"),
    "cpu_energy_j": ("CPU energy, in the block", "J"),
    "radio_energy_j": ("radio energy, in the slot after the block", "J"),
}
"""What follows from these for traced devices, as `device_NAME`, too."""
OTHERS = {
    "latency_s": ("latency, from arrival to result, statistics over tasks", "s"),
    "delay_s": ("mean time that a task spends in each part of its way; together the mean latency", "s"),
    "unfinished": ("share of tasks that the end of the run cut off", "1"),
    "distance_m": ("distance to the server", "m"),
    "mean_gain_per_w": ("mean channel gain over noise, with shadowing", "1/W"),
    "status": ("status of the scheme", "1"),
    "reason": ("reason for the status", "1"),
    "gap_reason": ("reason why the scheme has no gap to the lower bound", "1"),
    "growth": ("growth of the waiting work per block", "mean tasks per block"),
    "heavy_tail": ("whether the mean radio cost is infinite in theory", "1"),
    "signals_up": ("numbers that a device sends in a block", "1"),
    "signals_down": ("numbers that a device receives in a block", "1"),
    "device_class": ("class of the device", "1"),
    "class": ("class of devices", "1"),
    "device_arrivals": ("arrivals, at the device", "tasks"),
    "scheme": ("scheme", "1"),
    "seed": ("seed", "1"),
    "block": ("block", "1"),
    "component": ("component of the cost (8)", "1"),
    "statistic": ("statistic of the latency", "1"),
    "delay": ("part of the latency", "1"),
    "traced": ("number of the traced device", "1"),
}
BY_DEVICE = {f"{name}_by_{dim}": words for name, words in VALUES.items() for dim in ("device", "class")}
VARIABLES = BLOCKS | BY_DEVICE | {f"device_{name}": words for name, words in (TRACED | SPENT).items()} | OTHERS


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with `long_name` and `units` of every variable and coordinate; raises KeyError for one without."""
    for name in dataset.variables:
        long_name, units = VARIABLES[str(name)]
        dataset[name].attrs |= {"long_name": long_name, "units": units}
    return dataset
