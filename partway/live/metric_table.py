"""The metrics that a server and its devices offer to Prometheus, and how a dashboard shows each: one table for both.

Each number is offered by one party alone, so that a sum over all targets counts nothing twice. No metric has a device's
number as a label: a fleet of thousands would make thousands of series.
"""

from dataclasses import dataclass
from typing import Literal

from partway.live.tasks import ANSWERED, FAILED, FINISHED_HERE, LOCAL, STAGES
from partway.measurement.gap import COST_COMPONENTS

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper ends of the buckets of a histogram."""
DEVICES, SERVER = "devices", "server"
"""Values of labels that say where."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    about   its help text
    values  by party that offers it, the values of its label; without a label ()
    title   of its panel, which shows the PromQL expression `query` in Grafana's unit `unit`
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    values: dict[str, tuple[str, ...]]
    title: str
    query: str
    unit: str
    label: str = ""


def _rate(name: str, by: str) -> str:
    return f"sum by ({by}) (rate({name}[$__rate_interval]))"


def _p95(name: str, by: str = "le") -> str:
    return f"histogram_quantile(0.95, {_rate(f'{name}_bucket', by)})"


METRICS = (
    Metric(
        "partway_task_seconds",
        "histogram",
        "Time in each stage, of all tasks that have ended (0 for a stage that a task skips): the sum is the latency",
        {"device": STAGES},
        "Time in each stage (mean)",
        f"{_rate('partway_task_seconds_sum', 'stage')} / {_rate('partway_task_seconds_count', 'stage')}",
        "s",
        "stage",
    ),
    Metric(
        "partway_task_latency_seconds",
        "histogram",
        "Time from the arrival of a task to its result",
        {"device": ()},
        "Latency (95 % of tasks)",
        _p95("partway_task_latency_seconds"),
        "s",
    ),
    Metric(
        "partway_tasks_total",
        "counter",
        "Tasks of the devices, by how they have ended",
        {"device": (LOCAL, ANSWERED, FINISHED_HERE, FAILED)},
        "Tasks, by how they end",
        _rate("partway_tasks_total", "outcome"),
        "ops",
        "outcome",
    ),
    Metric(
        "partway_requests_total",
        "counter",
        "Requests for the rest of a task: received, answered, sent again, or later than the block after their own",
        {"server": ("received", "answered", "duplicate", "late")},
        "Requests at the server",
        _rate("partway_requests_total", "what"),
        "reqps",
        "what",
    ),
    Metric(
        "partway_energy_joules_total",
        "counter",
        "Energy that devices (CPU and radio) and the server have used",
        {"server": (DEVICES, SERVER)},
        "Power",
        _rate("partway_energy_joules_total", "source"),
        "watt",
        "source",
    ),
    Metric(
        "partway_queue_tasks",
        "gauge",
        "Tasks that wait at all devices, and work that waits at the server, in mean tasks",
        {"server": (DEVICES, SERVER)},
        "Queues",
        "sum by (place) (partway_queue_tasks)",
        "short",
        "place",
    ),
    Metric(
        "partway_price",
        "gauge",
        "Cost of one more mean task at the server, as it is broadcast; NaN where devices do not use a price",
        {"server": ()},
        "Price",
        "partway_price",
        "short",
    ),
    Metric(
        "partway_block_cost",
        "gauge",
        "Cost of the last block by its components, equation (8)",
        {"server": COST_COMPONENTS},
        "Cost of a block",
        "sum by (component) (avg_over_time(partway_block_cost[$__rate_interval]))",
        "short",
        "component",
    ),
    Metric(
        "partway_cost_lower_bound",
        "gauge",
        "Lower bound on the objective: the average cost of a block, or the discounted sum; NaN where there is none",
        {"server": ()},
        "Lower bound",
        "partway_cost_lower_bound",
        "short",
    ),
    Metric(
        "partway_gap_to_bound_ratio",
        "gauge",
        "How far the cost of the last 100 blocks, or the discounted sum, is above its lower bound, as a share of it",
        {"server": ()},
        "Gap to the lower bound",
        "partway_gap_to_bound_ratio",
        "percentunit",
    ),
    Metric(
        "partway_server_utilisation_ratio",
        "gauge",
        "Share of the server's highest rate that was used in the last block",
        {"server": ()},
        "Server in use",
        "partway_server_utilisation_ratio",
        "percentunit",
    ),
    Metric(
        "partway_devices",
        "gauge",
        "Devices whose stream is open",
        {"server": ()},
        "Devices",
        "partway_devices",
        "short",
    ),
    Metric(
        "partway_blocks_total",
        "counter",
        "Blocks of the server that have ended",
        {"server": ()},
        "Blocks",
        "rate(partway_blocks_total[$__rate_interval])",
        "ops",
    ),
    Metric(
        "partway_block_late_seconds",
        "histogram",
        "How late the blocks of the devices begin",
        {"device": ()},
        "Blocks begin late by (95 %)",
        _p95("partway_block_late_seconds"),
        "s",
    ),
    Metric(
        "partway_alone_blocks_total",
        "counter",
        "Blocks in which a device sends nothing because the server is silent",
        {"device": ()},
        "Blocks without the server",
        "sum(rate(partway_alone_blocks_total[$__rate_interval]))",
        "ops",
    ),
)
