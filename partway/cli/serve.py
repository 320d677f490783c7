"""`partway serve`: the edge server of a live run, which devices join from here or from other machines."""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from partway.cli import flags, telemetry
from partway.cli.flags import whole_number
from partway.cli.stdout import results
from partway.cli.terminal import terminal, working
from partway.errors import InputError

if TYPE_CHECKING:
    from partway.bound.certificate import Certificate
    from partway.cli.output import Destination, Destinations
    from partway.live.events import Listener
    from partway.live.halves import Halves
    from partway.live.plan import LivePlan
    from partway.live.remote import Remote
    from partway.live.service import Service
    from partway.measurement.metrics import BlockMetrics

DEFAULT_SCHEME = "priced"
DESCRIPTION = (
    "Run the server of a live system: devices join by `partway join`, decide block by block, run the front half of a "
    "network, and send the rest. The run starts when all devices of the scenario are there."
)
EXAMPLES = {
    "On this machine, the small network that ships": "partway serve --bind 127.0.0.1:7070",
    "Your own network, for longer": "partway serve --model net.onnx --blocks 1000",
    "Its input has open sizes": "partway serve --model net.onnx --shape x=1x3x224x224",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway serve`."""
    add_run(parser)
    add_learned(parser)
    group = parser.add_argument_group("connections")
    group.add_argument(
        "--bind", default="127.0.0.1:7070", metavar="HOST:PORT", help="where to listen (default: 127.0.0.1:7070)"
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="the server's certificate chain, PEM")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    group.add_argument("--tls-client-ca", type=Path, metavar="FILE", help="accept only devices that this CA has signed")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="accept only devices that know this secret")
    add_wait(group.add_argument, "how long to wait for all devices")
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--engine",
        metavar="grpc://HOST:PORT",
        help="have another server of the Open Inference Protocol compute the back halves (default: onnxruntime here)",
    )
    group.add_argument(
        "--write-models",
        type=Path,
        metavar="DIR",
        help="write the back halves for it to this folder, and end",
    )
    telemetry.add_flags(parser)
    add_json(parser)


def add_wait(add: Callable[..., object], words: str) -> None:
    """--wait, by default as long for devices as for their server. `add`: the `add_argument` of a group."""
    add("--wait", type=flags.seconds, default=120.0, metavar="S", help=f"{words} (default: 120)")


def add_run(parser: argparse.ArgumentParser) -> None:
    """What is run: the network, the scenario, the scheme and for how long."""
    add_network(parser)
    group = parser.add_argument_group("run")
    flags.add_scenario(
        parser,
        None,
        "four devices of two classes, with rates that suit the network",
        "; it must have queue=conserving, arrivals_seen=past, initial_queue_tasks=0 everywhere, "
        "radio.fading.kind=rayleigh, traffic.kind=bernoulli and broadcast_delay_blocks=2 or more",
    )
    group.add_argument(
        "--scheme",
        default=DEFAULT_SCHEME,
        metavar="NAME",
        help=f"a scheme from 'partway schemes', but not oracle (default: {DEFAULT_SCHEME})",
    )
    group.add_argument("--blocks", type=whole_number, default=160, metavar="N", help="blocks to run (default: 160)")
    group.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="seed of arrivals and channels (default: 0)"
    )
    group.add_argument(
        "--precision",
        choices=["float32", "float64"],
        default="float32",
        help="floating-point type (default: float32)",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """--model, --shape and --input, which server and devices must have in common."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model", type=Path, metavar="FILE", help="an ONNX file (default: a small network that is included)"
    )
    flags.add_inputs(group.add_argument)


def add_learned(parser: argparse.ArgumentParser) -> None:
    """--load and --save."""
    group = parser.add_argument_group("controllers")
    group.add_argument(
        "--load", metavar="FILE", help="begin with what was saved by `partway run --save FILE` or by this command"
    )
    group.add_argument("--save", metavar="FILE", help="save what was learned to this .npz file at the end")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json and --overwrite."""
    flags.add_output(parser, out=None, overwrite="replace existing files")


def run(options: argparse.Namespace) -> None:
    """Serve until the run ends; print what it cost, and write it."""
    from partway.live import extra

    extra.require()
    from partway.cli import output
    from partway.experiments.preparation import bound_of
    from partway.live import endpoints

    if options.write_models is not None:
        _write_models(options)
        return
    access = _access(options)
    endpoints.compute_in_the_calling_thread()
    endpoints.use_precision(options.precision)
    with (
        output.destinations(options) as places,
        output.checkpoint_file(options) as learned,
        telemetry.listeners(options, "server") as listen,
        tempfile.TemporaryDirectory(prefix="partway-live-") as folder,
    ):
        with working("preparing the network and the bound", terminal(errors=True)) as say:
            plan, halves = prepared(options, Path(folder))
            found = bound_of(plan.world, say)
        bound = _Bound(None, found, None) if isinstance(found, str) else _Bound(found.value, "", found.certificate)
        service, measured = _served(options, access, plan, halves, bound, listen)
        _write(options, places, learned, bound, service, measured)


def _write_models(options: argparse.Namespace) -> None:
    """Write the back halves as a model repository."""
    from partway import files

    with (
        files.new_folder(options.write_models, options.overwrite, options.command, "write_models") as repository,
        tempfile.TemporaryDirectory(prefix="partway-live-") as folder,
    ):
        _, halves = prepared(options, Path(folder))
        names = halves.write_models(repository)
    _say(f"{', '.join(names)} are in {options.write_models}")


class _Access(NamedTuple):
    """Who may connect."""

    credentials: Any
    token: str


class _Bound(NamedTuple):
    """The lower bound on the scenario's objective, or why there is none."""

    value: float | None
    reason: str
    certificate: "Certificate | None"


def _access(options: argparse.Namespace) -> _Access:
    """Who may connect. Raises InputError where others could without being asked who they are."""
    from partway.live import endpoints
    from partway.live.credentials import Files

    files = Files(options.tls_cert, options.tls_key, options.tls_client_ca, options.token_file)
    access = _Access(files.for_server(), files.secret())
    asked = access.token != "" or options.tls_client_ca is not None
    endpoints.check_address(options.bind, access.credentials is not None, asked)
    return access


def _served(
    options: argparse.Namespace, access: _Access, plan: "LivePlan", halves: "Halves", bound: _Bound, listen: "Listener"
) -> "tuple[Service, BlockMetrics]":
    """Run the server until its run ends. Raises InputError where it cannot listen, or nobody joins."""
    from partway.live import endpoints
    from partway.live.messages import Refused
    from partway.live.watch import Watch
    from partway.measurement import checkpoint

    is_watched = options.metrics is not None or options.events is not None
    host = options.bind.rpartition(":")[0]
    serve = partial(
        endpoints.serve,
        plan,
        address=options.bind,
        token=access.token,
        credentials=access.credentials,
        certificate=bound.certificate,
        trained=checkpoint.read(options.load) if options.load else None,
        wait_s=options.wait,
        listen=Watch(plan, listen, *bound, halves.cuts) if is_watched else lambda event: None,
        on_listening=lambda port: _say(f"listening at {host}:{port} for {_devices(plan.devices)}"),
        on_begin=lambda devices: _say(f"the run begins with {_devices(devices)}"),
    )

    async def served() -> "tuple[Service, BlockMetrics]":
        return await serve(engine=await _engine(options, halves))

    try:
        return asyncio.run(served())
    except Refused as refused:
        raise InputError(refused.reason) from None
    except OSError as error:
        raise InputError(f"--bind {options.bind}: {error}") from None


async def _engine(options: argparse.Namespace, halves: "Halves") -> "Halves | Remote":
    """What computes the back halves. Raises InputError where another server is to do it and cannot."""
    from partway.live.remote import Remote

    if options.engine is None:
        return halves
    remote = Remote(halves, options.engine)
    await remote.check()
    return remote


def _devices(number: int) -> str:
    return f"{number} device{'s' * (number != 1)}"


def _say(text: str) -> None:
    print(text, file=results(), flush=True)


def _write(
    options: argparse.Namespace,
    places: "Destinations",
    learned: "Destination | None",
    bound: _Bound,
    service: "Service",
    measured: "BlockMetrics",
) -> None:
    """Print what the run cost; write that, and what the server has learned."""
    from partway.cli import output
    from partway.live import documents, memories
    from partway.live.report import served_table

    plan = service.plan
    document = documents.of_server(plan, service.ledger, measured, bound.value, bound.reason)

    def save(path: Path) -> None:
        run = (plan.scheme, plan.seed, plan.blocks, plan.precision, plan.devices, plan.scenario.to_toml())
        memories.save_server(path, memories.origin_of(*run), service.party.state)

    text = json.dumps(document) + "\n"
    saving = [partial(learned.fill, save)] if learned else []
    steps = [*saving, *places.steps(lambda: text, lambda _: None)]
    output.finish(options, lambda: text, lambda console: console.print(served_table(document)), steps)


def prepared(options: argparse.Namespace, folder: Path) -> "tuple[LivePlan, Halves]":
    """The run that the flags of `add_run` ask for, and the network's halves; files are written to `folder`."""
    from partway.live import demo, plan
    from partway.scenario.loading import load
    from partway.schemes import check_running

    check_running(options.set, [options.scheme])
    halves = halves_of(options, folder)
    profile = demo.write_network_profile(halves.profile, folder)
    if options.scenario is None:
        scenario = load(demo.scenario_for(halves.profile, profile), options.set)
    else:
        task = {"device.task": {"kind": "layers", "profile": str(profile), "tensor_dtype": "fp16"}}
        scenario = load(load(options.scenario, options.set), task)
    made = plan.make_plan(
        scenario,
        options.scheme,
        blocks=options.blocks,
        seed=options.seed,
        precision=options.precision,
        model_sha256=halves.sha256,
        model_words=halves.words,
    )
    return made, halves


def halves_of(options: argparse.Namespace, folder: Path) -> "Halves":
    """The halves of the network that the flags of `add_network` name; the small one is written to `folder`."""
    from partway.live.halves import Halves
    from partway.live.network import write_small_network

    return Halves(
        write_small_network(folder) if options.model is None else options.model,
        "fp16",
        shapes=flags.one_each("--shape", options.shape),
        values=flags.one_each("--input", options.input),
    )
