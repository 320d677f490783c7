"""`partway live`: a server and its devices as processes on this machine, around a real network."""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partway.cli import serve
from partway.cli.flags import MAX_PORT, address
from partway.cli.stdout import results
from partway.cli.terminal import terminal, working
from partway.errors import InputError, shown
from partway.formatting import host_port

if TYPE_CHECKING:
    from rich.console import Console

    from partway.bound.certificate import Certificate
    from partway.cli.output import Destinations
    from partway.controllers.base import ControllerPair
    from partway.live.outlook import Outlook
    from partway.live.plan import LivePlan
    from partway.live.report import Figures
    from partway.measurement.gap import Horizon
    from partway.simulation.step import Carry

DESCRIPTION = (
    "Run a server and its devices as processes on this machine, with a real network whose halves they compute, and "
    "print what the run cost beside a simulation of the same scenario, seed and tasks."
)
EXAMPLES = {
    "Four devices and a small network": "partway live",
    "With a page in the browser": "partway live --page",
    "Your own network": "partway live --model net.onnx",
    "Another scheme, for longer": "partway live --scheme neurosurgeon --blocks 600",
}

LAST_LOOK_S = 2.0
"""How long the page stays after the run: a browser asks at least once a second."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway live`."""
    serve.add_run(parser)
    group = parser.add_argument_group("controllers")
    group.add_argument(
        "--load",
        type=Path,
        metavar="FILE|DIR",
        help="begin with what was saved by `partway run --save FILE` or by this command",
    )
    group.add_argument(
        "--save", type=Path, metavar="DIR", help="save what server and devices learn to files in this new folder"
    )
    group = parser.add_argument_group("telemetry")
    group.add_argument(
        "--page",
        type=address,
        nargs="?",
        const=("127.0.0.1", 0),
        metavar="[HOST:]PORT",
        help="show the run as a page for a browser on this machine (default: a free port)",
    )
    group.add_argument(
        "--metrics",
        type=address,
        metavar="[HOST:]PORT",
        help="offer metrics to Prometheus: the server's at http://HOST:PORT/metrics, those of the devices at the ports "
        "that follow (default host: 127.0.0.1)",
    )
    group.add_argument(
        "--events",
        type=Path,
        metavar="DIR",
        help="write what happens to a file for each process in this folder, which 'partway view DIR' opens",
    )
    serve.add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Simulate, run the processes, print both."""
    from partway.live import extra

    extra.require()
    if options.metrics is not None:
        extra.require_for("--metrics")
    from partway.cli import output
    from partway.live import endpoints

    endpoints.use_precision(options.precision)
    with (
        output.destinations(options) as places,
        _learned_folder(options) as learned,
        tempfile.TemporaryDirectory(prefix="partway-live-") as name,
    ):
        folder = Path(name)
        events = _events_folder(options, folder)
        with _page(options, events):
            with working("simulating", terminal(errors=True)):
                plan, _ = serve.prepared(options, folder)
                metrics = _metric_addresses(options.metrics, plan.devices)
                simulated, outlook = _simulated(plan, options.load)
            if outlook is not None:
                _say(outlook, terminal(errors=options.json == output.STDOUT))
            with working(f"running {plan.blocks} blocks of {plan.block_s:g} s", terminal(errors=True)):
                server, devices = _run(options, plan, folder, events, learned, metrics)
        _write(options, places, simulated, outlook, server, devices)


def _say(outlook: "Outlook", console: "Console") -> None:
    """Print what a user should know before the run; flags are not broken, so that they can be copied."""
    words, _, flags = outlook.sentence().partition("\n")
    console.print(words)
    if flags:
        console.print(flags, soft_wrap=True)


@contextlib.contextmanager
def _learned_folder(options: argparse.Namespace) -> Generator[Path | None]:
    """The folder of --save, complete or absent; None without one."""
    if options.save is None:
        yield None
        return
    from partway import files

    with files.new_folder(options.save, options.overwrite, options.command, "save") as folder:
        yield folder


def _file_of(load: Path, name: str) -> Path:
    """The file with which a process begins: its own in a folder, or one of a simulation, which holds all parties."""
    return load / f"{name}.npz" if load.is_dir() else load


def _events_folder(options: argparse.Namespace, folder: Path) -> Path | None:
    """Where the processes write their events; None where nobody reads them."""
    if options.events is None:
        made = folder / "events" if options.page is not None else None
        if made:
            made.mkdir()
        return made
    from partway import files

    given = f"--events {shown(str(options.events), 100)}"
    with files.refusals(given):
        options.events.mkdir(parents=True, exist_ok=True)
        old = [*options.events.glob("*.jsonl")]
        if old and not options.overwrite:
            raise InputError(f"{given}: holds events already; add --overwrite or choose another name")
        for path in old:
            path.unlink()
    return options.events


def _metric_addresses(first: tuple[str, int] | None, devices: int) -> dict[str, str]:
    """Where each process offers its metrics, by its name. Raises InputError where there are not enough ports."""
    if first is None:
        return {}
    host, port = first
    if not 0 < port <= MAX_PORT - devices:
        raise InputError(
            f"--metrics: the server's port must be from 1 to {MAX_PORT - devices}, since those of {devices} devices "
            f"follow it; got {port}"
        )
    ports = f"devices at ports {port + 1} to {port + devices}"
    print(f"metrics at http://{host_port(host, port)}/metrics, {ports}", file=results(), flush=True)
    return {name: host_port(host, port + i) for i, name in enumerate(("server", *map(_device, range(devices))))}


@contextlib.contextmanager
def _page(options: argparse.Namespace, events: Path | None) -> Generator[None]:
    """The page of --page, until a browser has had time to fetch the end of the run."""
    if options.page is None or events is None:
        yield
        return
    from partway.live import extra

    extra.require_for("the page")
    from partway.dashboard import app
    from partway.dashboard.live import LiveRun

    with app.serving(LiveRun(events), options.page) as url:
        print(f"page at {url}", file=results(), flush=True)
        yield
        time.sleep(LAST_LOOK_S)


def _write(
    options: argparse.Namespace,
    places: "Destinations",
    simulated: "Figures",
    outlook: "Outlook | None",
    server: dict[str, Any],
    devices: list[dict[str, Any]],
) -> None:
    """Print what was measured beside what was simulated, and write it."""
    from partway.cli import output
    from partway.formatting import plain
    from partway.live.documents import SCHEMA_VERSION, tasks_of
    from partway.live.report import latency_json, live_table, served_figures, served_stages, with_stages

    tasks = [task for device in devices for task in tasks_of(device)]
    measured = with_stages(served_figures(server)[0], served_stages(server, tasks))
    alone = None if outlook is None or not outlook.is_stable_alone else outlook.alone
    table = live_table(measured, simulated, server, devices, alone)
    foreseen = None if outlook is None else plain(outlook.as_json())
    document = {
        "schema_version": SCHEMA_VERSION,
        "outlook": foreseen,
        "latency": plain({"measured": latency_json(measured), "simulated": latency_json(simulated)}),
        "server": server,
        "devices": devices,
    }
    text = json.dumps(document) + "\n"
    output.finish(options, lambda: text, lambda console: console.print(table), places.steps(lambda: text, _nothing))


def _nothing(folder: Path) -> None:
    """There is no folder of results."""


def _run(
    options: argparse.Namespace,
    plan: "LivePlan",
    folder: Path,
    events: Path | None,
    learned: Path | None,
    metrics: Mapping[str, str],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The documents that the server and the devices leave."""
    from partway.live import processes

    def own(name: str) -> list[str]:
        flags = [] if events is None else ["--events", str(events / f"{name}.jsonl")]
        flags += [] if learned is None else ["--save", str(learned / f"{name}.npz")]
        flags += ["--metrics", metrics[name]] if metrics else []
        return flags if options.load is None else [*flags, "--load", str(_file_of(options.load, name))]

    scenario = folder / "scenario.toml"
    scenario.write_text(plan.scenario.to_toml(), "utf-8")
    model = ["--model", str(folder / "small.onnx" if options.model is None else options.model)]
    model += _repeated("--shape", options.shape, "x") + _repeated("--input", options.input, ",")
    asked = ["--scheme", plan.scheme, "--blocks", str(plan.blocks), "--seed", str(plan.seed)]
    asked += ["--precision", plan.precision, "--scenario", str(scenario)]
    with processes.loopback(folder, [*asked, *model], model, plan.devices, own) as fleet:
        within_s = processes.START_S + plan.blocks * plan.block_s * 1.2
        fleet.wait(lambda: all(processes.finished(fleet).values()), within_s, "the run")
        left = [fleet.document(name) for name in fleet.processes if name != "server"]
        return fleet.document("server"), [device for document in left for device in document["devices"]]


def _simulated(plan: "LivePlan", load: Path | None) -> "tuple[Figures, Outlook | None]":
    """The figures of the simulation of the same scenario, scheme, seed and tasks, begun with the same memories.

    The second: beside devices that work alone, None where those of this run do.
    """
    from dataclasses import replace

    from partway.experiments.preparation import bound_of
    from partway.live.outlook import ALONE, Outlook, Quicker, for_latency
    from partway.live.plan import make_plan
    from partway.live.report import horizon_of
    from partway.scenario.loading import load as scenario_with
    from partway.schemes import pair_for, stream_of
    from partway.system.load import load_of

    bound = bound_of(plan.world)
    value, certificate, why = (None, None, bound) if isinstance(bound, str) else (bound.value, bound.certificate, "")
    horizon = horizon_of(plan.scenario, plan.blocks, value, why)
    pair, carry = (plan.pair, None) if load is None else _trained(plan, load)
    simulated = _figures(plan, pair, plan.stream, horizon, certificate, carry)
    if plan.scheme == ALONE:
        return simulated, None
    alone = _figures(plan, pair_for(ALONE, plan.scenario), stream_of(ALONE), horizon, certificate, None)
    outlook = Outlook(plan.scheme, simulated, alone, load_of(plan.scenario, plan.world).device_utilisation)
    if not outlook.is_slower or carry is not None:  # what was learned holds for its weights
        return simulated, outlook
    weights = for_latency(plan.scenario.weights)
    other = make_plan(
        scenario_with(plan.scenario, weights), plan.scheme, blocks=plan.blocks, seed=plan.seed, precision=plan.precision
    )
    unbounded = horizon_of(plan.scenario, plan.blocks, None, "")
    quicker = _figures(other, other.pair, other.stream, unbounded, None, None)
    return simulated, replace(outlook, quicker=Quicker(weights, quicker))


def _figures(
    plan: "LivePlan",
    pair: "ControllerPair",
    stream: str,
    horizon: "Horizon",
    certificate: "Certificate | None",
    carry: "Carry | None",
) -> "Figures":
    """The figures of a simulated run."""
    from dataclasses import fields, replace

    import numpy as np

    from partway.live.report import figures
    from partway.measurement.latency import DELAYS, latency
    from partway.simulation.rollout import rollout

    run = rollout(
        plan.world,
        pair,
        stream,
        [plan.seed],
        plan.blocks,
        certificates=certificate,
        carry=carry,
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


def _trained(plan: "LivePlan", load: Path) -> "tuple[ControllerPair, Carry]":
    """The controllers and memories with which the processes begin, for a simulation. Raises InputError."""
    from dataclasses import replace

    from partway.live import memories
    from partway.measurement import checkpoint
    from partway.simulation.rollout import init_runs

    files = {name: checkpoint.read(_file_of(load, name)) for name in ("server", *map(_device, range(plan.devices)))}
    pair, carry = init_runs(plan.world, plan.pair, plan.stream, [plan.seed], plan.precision)
    device, states, server = memories.of_fleet(
        files["server"],
        lambda number: files[_device(number)],
        lambda file: memories.run_of(file, plan.scheme, plan.devices, plan.seed),
        pair.device,
        carry.device_state,
        carry.server_state,
    )
    return replace(pair, device=device), replace(carry, device_state=states, server_state=server)


def _repeated(flag: str, given: Sequence[tuple[str, Sequence[float]]], between: str) -> list[str]:
    """A flag with its values as they were given."""
    return [flag, *(f"{name}={between.join(map(repr, numbers))}" for name, numbers in given)] if given else []


def _device(number: int) -> str:
    """The name of a device's process."""
    return f"device-{number}"
