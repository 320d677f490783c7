"""`partway live`: a server and its devices as processes on this machine, around a real network."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partway.cli import serve
from partway.cli.terminal import terminal, working

if TYPE_CHECKING:
    from partway.live.plan import LivePlan
    from partway.live.report import Figures

DESCRIPTION = (
    "Run a server and its devices as processes on this machine, with a real network whose halves they compute, and "
    "print what the run cost beside a simulation of the same scenario, seed and tasks."
)
EXAMPLES = {
    "Four devices and a small network": "partway live",
    "Your own network": "partway live --model net.onnx",
    "Another scheme, for longer": "partway live --scheme neurosurgeon --blocks 600",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway live`."""
    serve.add_run(parser)
    serve.add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Simulate, run the processes, print both."""
    from partway.live import extra

    extra.require()
    from partway.cli import output
    from partway.live import endpoints
    from partway.live.accounts import stages
    from partway.live.documents import SCHEMA_VERSION, series_of, tasks_of
    from partway.live.report import figures, live_table, served_horizon, with_stages

    endpoints.use_precision(options.precision)
    with output.destinations(options) as places, tempfile.TemporaryDirectory(prefix="partway-live-") as name:
        folder = Path(name)
        with working("simulating", terminal(errors=True)):
            plan, _ = serve.prepared(options, folder)
            simulated = _simulated(plan)
        with working(f"running {plan.blocks} blocks of {plan.block_s:g} s", terminal(errors=True)):
            server, devices = _run(options, plan, folder)
        tasks, horizon = [task for device in devices for task in tasks_of(device)], served_horizon(server)
        measured = with_stages(figures(series_of(server), horizon), stages(tasks, horizon.warmup))
        table = live_table(measured, simulated, server, devices)
        document = {"schema_version": SCHEMA_VERSION, "server": server, "devices": devices}
        text = json.dumps(document) + "\n"
        output.finish(options, lambda: text, lambda console: console.print(table), places.steps(lambda: text, _nothing))


def _nothing(folder: Path) -> None:
    """There is no folder of results."""


def _run(options: argparse.Namespace, plan: "LivePlan", folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The documents that the server and the devices leave."""
    from partway.live import processes

    scenario = folder / "scenario.toml"
    scenario.write_text(plan.scenario.to_toml(), "utf-8")
    model = ["--model", str(folder / "small.onnx" if options.model is None else options.model)]
    asked = ["--scheme", plan.scheme, "--blocks", str(plan.blocks), "--seed", str(plan.seed)]
    asked += ["--precision", plan.precision, "--scenario", str(scenario)]
    with processes.loopback(folder, [*asked, *model], model, plan.devices) as fleet:
        within_s = processes.START_S + plan.blocks * plan.block_s * 1.2
        fleet.wait(lambda: all(processes.finished(fleet).values()), within_s, "the run")
        left = [fleet.document(name) for name in fleet.processes if name != "server"]
        return fleet.document("server"), [device for document in left for device in document["devices"]]


def _simulated(plan: "LivePlan") -> "Figures":
    """The figures of the simulation of the same scenario, scheme, seed and tasks."""
    from dataclasses import fields, replace

    import numpy as np

    from partway.experiments.preparation import bound_of
    from partway.live.report import figures, horizon_of
    from partway.measurement.latency import DELAYS, latency
    from partway.simulation.rollout import rollout

    bound = bound_of(plan.world)
    value, certificate, why = (None, None, bound) if isinstance(bound, str) else (bound.value, bound.certificate, "")
    horizon = horizon_of(plan.scenario, plan.blocks, value, why)
    run = rollout(
        plan.world,
        plan.pair,
        plan.stream,
        [plan.seed],
        plan.blocks,
        certificates=certificate,
        precision=plan.precision,
        traces=True,
    )
    assert run.traces is not None
    series = {field.name: np.asarray(getattr(run.metrics, field.name)) for field in fields(run.metrics)}
    late = latency(run.traces, np.asarray(plan.world.devices.server_work), plan.slot_s, horizon.warmup)
    return replace(
        figures(series, horizon),
        latency=float(late.mean[0]),
        p50=float(late.p50[0]),
        p95=float(late.p95[0]),
        delays=dict(zip(DELAYS, late.delays[0].tolist(), strict=True)),
    )
