"""Long name and unit of every variable of a dataset of `compare` or `sweep`; figures take the words before a comma."""

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
MEANS = ("cpu_utilisation", "radio_utilisation", "server_utilisation", "power_mismatch")
"""The variables in BLOCKS of which a sweep has the mean over the blocks, under the same name."""
OTHERS = {
    "latency_s": ("latency, from arrival to result, statistics over tasks", "s"),
    "delay_s": ("mean time that a task spends in each part of its way; together the mean latency", "s"),
    "unfinished": ("share of tasks that the end of the run cut off", "1"),
    "status": ("status of the run", "1"),
    "reason": ("reason for the status", "1"),
    "gap_reason": ("reason why there is no gap to the lower bound", "1"),
    "growth_per_block": ("growth of the waiting work", "mean tasks per block"),
    "heavy_tail": ("whether the mean radio cost is infinite in theory", "1"),
    "signals_up": ("numbers that a device sends in a block", "1"),
    "signals_down": ("numbers that a device receives in a block", "1"),
    "class": ("class of devices", "1"),
    "scheme": ("scheme", "1"),
    "seed": ("seed", "1"),
    "component": ("component of the cost (8)", "1"),
    "statistic": ("statistic of the latency", "1"),
    "delay": ("part of the latency", "1"),
}
"""What a sweep has for every case, and a comparison for every scheme, under the same name."""
PLACED = {
    "distance_m": ("distance to the server", "m"),
    "mean_gain_per_w": ("mean channel gain over noise, with shadowing", "1/W"),
    "device_class": ("class of the device", "1"),
    "device_arrivals": ("arrivals, at the device", "tasks"),
    "block": ("block", "1"),
    "traced": ("number of the traced device", "1"),
}
BY_DEVICE = {f"{name}_by_{dim}": words for name, words in VALUES.items() for dim in ("device", "class")}
VARIABLES = BLOCKS | BY_DEVICE | {f"device_{name}": words for name, words in (TRACED | SPENT).items()} | OTHERS | PLACED
OF_SWEEP = {
    "cost_with_warmup": ("mean cost, warm-up included", "cost per block"),
    "discounted_from_start": ("discounted sum of the cost from the first block", "cost"),
    "discounted_after_warmup": ("discounted sum of the cost from the end of warm-up", "cost"),
    "throughput": ("throughput, work that devices and server do", "mean tasks/s"),
    "device_energy_j_per_task": ("energy of the devices per task that arrives", "J"),
    "server_energy_j_per_task": ("energy of the server per task that arrives", "J"),
    "wasted_energy_j_per_task": ("energy of the server, per task that arrives, while it had no work", "J"),
    "energy_j_per_task": ("energy per task, of those that arrive", "J"),
    "offloaded_share": VALUES["offloaded_share"],
    **{name: BLOCKS[name] for name in MEANS},
    "settling_block": ("first block from which the running mean of the cost stays within 5 % of its end", "block"),
    "bound": ("lower bound on the objective", "cost per block, or cost for discounted sums"),
    "bound_price": ("price of work at the server in the bound", "cost per mean task"),
    "bound_slack": ("possible error of the bound", "cost"),
    "bound_reason": ("reason why there is no bound", "1"),
    "cost": ("cost, mean after warm-up, by component of (8)", "per block"),
    "gap": ("gap to the lower bound, as a share of it, by loss", "1"),
    "loss": ("where the gap arises", "1"),
    "case": ("key of the case", "1"),
    "party": ("whose energy it is", "1"),
    "devices_by_class": ("devices of the class, 0 where a point has none", "1"),
    **{name: words for name, words in BY_DEVICE.items() if name.endswith("_by_class")},
    **OTHERS,
}
"""Long name and unit of every variable and coordinate of a sweep's dataset but those of its axes."""


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with `long_name` and `units` of every variable and coordinate; raises KeyError for one without."""
    for name in dataset.variables:
        long_name, units = VARIABLES[str(name)]
        dataset[name].attrs |= {"long_name": long_name, "units": units}
    return dataset
