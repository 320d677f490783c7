"""The metrics of one process for Prometheus, made of the events of its party, and the port where they are served."""

import math
import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import prometheus_client as prometheus

from partway.errors import InputError, shown
from partway.files import why
from partway.formatting import host_port
from partway.live.events import (
    BlockBegun,
    BlockMeasured,
    Ended,
    Event,
    Gone,
    Joined,
    Planned,
    TaskEnded,
)
from partway.live.metric_table import DEVICES, METRICS, SECONDS, SERVER, Metric
from partway.measurement.gap import COST_COMPONENTS

KINDS: dict[str, Any] = {"counter": prometheus.Counter, "gauge": prometheus.Gauge, "histogram": prometheus.Histogram}
MAX_CONNECTIONS = 16
"""Connections to the metrics at a time; Prometheus needs one."""
SILENT_S = 10.0
"""How long one may say nothing before it is closed."""


class Exporter:
    """A listener that keeps the metrics of a "server" or of the "device"s of a process.

    registry  from which Prometheus reads them
    """

    def __init__(self, party: Literal["server", "device"]):
        prometheus.disable_created_metrics()  # a second series for each, which nobody asks for
        self.registry = prometheus.CollectorRegistry()
        self._of = {metric.name: self._made(metric, party) for metric in METRICS if party in metric.values}
        self._requests = dict.fromkeys(("received", "answered", "duplicate", "late"), 0)
        self._here = set[int]()

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Planned():
                self._set("partway_cost_lower_bound", math.nan if event.bound is None else event.bound)
                self._set("partway_gap_to_bound_ratio", math.nan)
                self._set("partway_price", math.nan)
            case Joined():
                self._here.add(event.device)
                self._set("partway_devices", len(self._here))
            case Gone():
                self._here.discard(event.device)
                self._set("partway_devices", len(self._here))
            case BlockMeasured():
                self._block(event)
                self._count(event)
            case Ended():
                self._count(event)
            case TaskEnded():
                self._task(event)
            case BlockBegun():
                self._of["partway_block_late_seconds"].observe(event.late_s)
                self._of["partway_alone_blocks_total"].inc(event.alone)
            case _:
                pass

    def _made(self, metric: Metric, party: str) -> Any:
        """The metric, with all values of its label, so that each series begins at 0."""
        more = {"buckets": SECONDS} if metric.kind == "histogram" else {}
        labels = [metric.label] if metric.label else []
        made = KINDS[metric.kind](metric.name, metric.about, labels, registry=self.registry, **more)
        for value in metric.values[party]:
            made.labels(value)
        return made

    def _set(self, name: str, value: float) -> None:
        self._of[name].set(value)

    def _task(self, task: TaskEnded) -> None:
        for stage, seconds in task.stages.items():
            self._of["partway_task_seconds"].labels(stage).observe(max(seconds, 0.0))  # rounding
        self._of["partway_task_latency_seconds"].observe(task.latency_s)
        self._of["partway_tasks_total"].labels(task.outcome).inc()

    def _block(self, block: BlockMeasured) -> None:
        metrics = block.metrics
        for source, name in ((DEVICES, "device_energy_j"), (SERVER, "server_energy_j")):
            self._of["partway_energy_joules_total"].labels(source).inc(max(0.0, metrics[name]))
        for place, name in ((DEVICES, "waiting"), (SERVER, "backlog")):
            self._of["partway_queue_tasks"].labels(place).set(metrics[name])
        for component in COST_COMPONENTS:
            self._of["partway_block_cost"].labels(component).set(metrics[component])
        self._set("partway_price", block.price)
        self._set("partway_gap_to_bound_ratio", block.gap)
        self._set("partway_server_utilisation_ratio", metrics["server_utilisation"])
        self._of["partway_blocks_total"].inc()

    def _count(self, event: BlockMeasured | Ended) -> None:
        counts = (event.received, event.answered, event.duplicates, event.late)
        for what, count in zip(self._requests, counts, strict=True):
            self._of["partway_requests_total"].labels(what).inc(count - self._requests[what])
            self._requests[what] = count


def start(exporter: Exporter, address: tuple[str, int]) -> int:
    """Serve the metrics at (host, port) in a thread until the process ends; returns the port.

    Raises InputError where it cannot listen.
    """
    host, port = address
    try:
        server = _MetricsServer((host, port), _Handler)
    except OSError as error:
        raise InputError(f"--metrics {shown(host_port(host, port))}: {why(error)}") from None
    server.set_app(prometheus.make_wsgi_app(exporter.registry))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


class _MetricsServer(ThreadingMixIn, WSGIServer):
    """As that of `prometheus_client`, which gives every connection a thread and waits for it without end."""

    daemon_threads = True
    request_queue_size = 128  # with 5, the default, whoever connects waits for seconds while others connect

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]):
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection; others are closed."""
        return self._free.acquire(blocking=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread that answers one; where none can be started, its place is free again."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever connects could fill the terminal."""


class _Handler(WSGIRequestHandler):
    timeout = SILENT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
