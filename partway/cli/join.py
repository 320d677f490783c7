"""`partway join`: one device of a live run."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from partway.arguments import whole_number as whole
from partway.cli import flags, serve, telemetry
from partway.cli.flags import target, whole_number
from partway.cli.stdout import results
from partway.cli.terminal import terminal
from partway.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from partway.cli.output import Destination, Destinations
    from partway.live.agent import AgentLog
    from partway.live.events import Listener
    from partway.live.halves import Halves
    from partway.live.inputs import Inputs, Results
    from partway.live.workload import Workload

DESCRIPTION = (
    "Join the server of a live run as a device: run the front half of the network at the commanded rate, send the rest "
    "by an emulated radio, and learn on the way."
)
EXAMPLES = {
    "A server on this machine": "partway join 127.0.0.1:7070",
    "A server on another machine": "partway join edge.local:7070 --tls-ca ca.pem --token-file token",
    "Your own images": "partway join 127.0.0.1:7070 --inputs images --outputs results",
}

MAX_COUNT = 1000
"""Devices in one process."""
MAX_DEVICE = 2**31 - 1


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway join`."""
    parser.add_argument("target", type=target, metavar="HOST:PORT", help="where the server listens")
    serve.add_network(parser)
    group = parser.add_argument_group("device")
    group.add_argument(
        "--device", type=whole_number, metavar="N", help="its number in the scenario (default: a free one)"
    )
    group.add_argument(
        "--count", type=whole_number, default=1, metavar="N", help="devices in this process (default: 1)"
    )
    group.add_argument("--scheme", metavar="MODULE:NAME", help="a scheme of your own that the server may name")
    add_inputs(parser)
    add_radio(parser)
    add_cpu(parser)
    serve.add_learned(parser)
    add_connection(parser, wait=True)
    telemetry.add_flags(parser)
    flags.add_output(parser, out=None, overwrite="replace existing files")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """What the tasks compute, and where their results go."""
    group = parser.add_argument_group("inputs")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--inputs",
        type=Path,
        metavar="DIR",
        help="run the .npy and .npz files in this folder once, in the order of their names, and leave; needs --outputs "
        "(default: random inputs)",
    )
    either.add_argument(
        "--stdin",
        action="store_true",
        help="run the file that each line of standard input names, answer each by a line of JSON, and leave at its end",
    )
    group.add_argument("--outputs", type=Path, metavar="DIR", help="write each result to this new folder, as .npz")


def add_radio(parser: argparse.ArgumentParser) -> None:
    """How good the device's channel is."""
    group = parser.add_argument_group("radio")
    group.add_argument(
        "--trace",
        metavar="FILE",
        help="a CSV file of the device's channel, gains or rates over time, which begins again at its end (default: by "
        "the scenario's law)",
    )


def add_cpu(parser: argparse.ArgumentParser) -> None:
    """What runs the device's part of the tasks."""
    group = parser.add_argument_group("CPU")
    group.add_argument(
        "--cpu",
        choices=["pacing", "cpufreq", "cgroup"],
        default="pacing",
        help="how the device keeps the commanded rate: pacing waits after each task, cpufreq sets the CPU's frequency, "
        "cgroup limits the CPU time (default: pacing)",
    )
    group.add_argument(
        "--cpu-path",
        type=Path,
        metavar="DIR",
        help="cpufreq: the folder of a frequency policy (default: policy0 of this machine); cgroup: the folder of a "
        "threaded control group",
    )


def check_cpu(options: argparse.Namespace) -> None:
    """Raise InputError where the flags of `add_cpu` do not fit together."""
    if options.cpu == "pacing" and options.cpu_path is not None:
        raise InputError("--cpu-path belongs to --cpu cpufreq or --cpu cgroup")


def add_connection(parser: argparse.ArgumentParser, wait: bool = False) -> None:
    """Whom a device trusts, by what it proves who it is, and how long it tries where it can `wait`."""
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="the CA that has signed the server's certificate, PEM"
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="the device's own certificate chain, PEM")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="the secret that the server asks for")
    if wait:
        serve.add_wait(group.add_argument, "how long to try to reach the server")


def run(options: argparse.Namespace) -> None:
    """Be a device until the run ends; print where its tasks spent their time."""
    from partway.live import extra

    extra.require()
    from partway.cli import output
    from partway.cli.main import cache_compiled_programs
    from partway.live import endpoints

    whole("--count", options.count, 1, MAX_COUNT)
    whole("--device", options.device or 0, 0, MAX_DEVICE)
    _check_inputs(options)
    check_cpu(options)
    if options.cpu != "pacing" and options.count != 1:
        raise InputError(f"--cpu {options.cpu} is for one device, got --count {options.count}")
    endpoints.compute_in_the_calling_thread()
    cache_compiled_programs(own_process=True)
    with (
        output.destinations(options) as places,
        output.checkpoint_file(options) as learned,
        telemetry.listeners(options, "device") as listen,
        tempfile.TemporaryDirectory(prefix="partway-live-") as folder,
    ):
        logs, missing = _joined(options, Path(folder), listen)
        _write(options, places, learned, logs, missing)


def _check_inputs(options: argparse.Namespace) -> None:
    """Raise InputError where the flags of `add_inputs` do not fit together or the others."""
    from partway.cli.output import STDOUT

    own = "--stdin" if options.stdin else "--inputs"
    if options.inputs is None and not options.stdin:
        if options.outputs is not None:
            raise InputError("--outputs needs --inputs or --stdin: results of random inputs are not kept")
        return
    if options.inputs is not None and options.outputs is None:
        raise InputError("--inputs needs --outputs DIR, where the results go")
    if options.count != 1:
        raise InputError(f"{own} is for one device, got --count {options.count}")
    if options.stdin and options.json == STDOUT:
        raise InputError("--json -: standard output has the answers of --stdin; write to a file")


def _joined(options: argparse.Namespace, folder: Path, listen: "Listener") -> "tuple[list[AgentLog], str]":
    """Run the devices until their run ends, and say which inputs have no result; files are written to `folder`."""
    from partway.live import cpu, endpoints
    from partway.live.agent import synthetic, traced
    from partway.live.credentials import Files
    from partway.live.messages import RegisterRequest
    from partway.measurement import checkpoint
    from partway.system.trace_file import read_trace

    files = Files(options.tls_cert, options.tls_key, options.tls_ca, options.token_file)
    token, credentials = files.secret(), files.for_device()
    endpoints.check_secret(options.target, credentials is not None, token)
    halves = serve.halves_of(options, folder)
    if options.trace is not None:
        with _named("--trace"):
            read_trace(options.trace)
    own = _own_inputs(options, halves)
    joined = list[int]()

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.stdin else results(), flush=True)

    def say_joined(device: int) -> None:
        taken.attach(halves.thread())
        joined.append(device)
        if len(joined) == options.count:
            numbers = f"device{'s' * (options.count > 1)} {', '.join(map(str, sorted(joined)))}"
            say(f"joined {options.target} as {numbers}")

    join = partial(
        endpoints.join,
        options.target,
        halves,
        RegisterRequest(options.device, model_sha256=halves.sha256),
        count=options.count,
        token=token,
        credentials=credentials,
        named=options.scheme,
        trained=checkpoint.read(options.load) if options.load else None,
        laws=partial(traced, options.trace) if options.trace is not None else synthetic,
        tasks=own.tasks if own else lambda laws: laws,
        listen=listen,
        on_join=say_joined,
        on_wait=lambda reason: say(f"{reason}; trying again for {options.wait:g} s"),
        wait_s=options.wait,
    )
    with cpu.taken(options.cpu, options.cpu_path) as taken, _named("--trace"):
        logs = asyncio.run(join(cpu=taken))
    return logs, own.end() if own else ""


@contextlib.contextmanager
def _named(flag: str) -> Generator[None]:
    """Have errors of a trace name the flag instead of the scenario's fields."""
    try:
        yield
    except InputError as error:
        said = str(error).replace("radio.fading.file", flag)
        raise InputError(said.replace("set radio.fading.floor", "raise these values in the file")) from None


@dataclass(frozen=True)
class _Own:
    """The inputs of a device that are not random; `count`: how many, None where that is not known."""

    inputs: "Inputs"
    results: "Results"
    count: int | None

    def tasks(self, laws: "Workload") -> "Workload":
        """The tasks, whose channel follows the scenario."""
        from partway.live.inputs import OwnTasks

        return OwnTasks(laws, self.inputs, as_read=self.count is None, stopped=lambda: self.results.closed)

    def end(self) -> str:
        """Wait until all answers are written; says which results of a folder are missing, "" if none is."""
        self.inputs.close()
        missing = 0 if self.count is None else self.count - self.results.written
        why = self.results.fault or "the run has ended"
        return f"--inputs: {missing} of {self.count} inputs have no result: {why}" if missing else ""


def _own_inputs(options: argparse.Namespace, halves: "Halves") -> _Own | None:
    """The inputs that the flags name; those of a folder are checked. Raises InputError. None: random ones."""
    from partway.dnn.verification import example_files
    from partway.live.inputs import Inputs, Results, lines_of, results_folder, say_to

    if options.inputs is None and not options.stdin:
        return None
    paths = list[Path]() if options.inputs is None else example_files(options.inputs)
    for path in paths:
        halves.read(path)
    outputs = None if options.outputs is None else results_folder(options.outputs)
    written = Results(outputs, say_to(1) if options.stdin else None)
    given = lines_of(0) if options.stdin else map(str, paths)
    return _Own(Inputs(given, halves.read, written), written, None if options.stdin else len(paths))


def _write(
    options: argparse.Namespace,
    places: "Destinations",
    learned: "Destination | None",
    logs: "Sequence[AgentLog]",
    missing: str,
) -> None:
    """Print where the tasks spent their time; write that, and what the devices have learned.

    Raises InputError at the end where results are missing, or a device could not come back to its server.
    """
    from partway.cli import output
    from partway.live import documents, memories
    from partway.live.report import joined_table
    from partway.measurement.latency import end_of_run

    def save(path: Path) -> None:
        reply, policy = logs[0].reply, logs[0].reply.policy
        blocks, fleet = max(len(log.records) for log in logs), int(reply.constants.numbers["fleet_size"])
        origin = memories.origin_of(policy.scheme, policy.seed, max(blocks, 1), policy.precision, fleet)
        memories.save_devices(path, origin, {log.device: log.party.learned for log in logs})

    def text() -> str:
        return json.dumps(documents.of_devices(logs)) + "\n"

    saving = [partial(learned.fill, save)] if learned else []
    steps = [*saving, *places.steps(text, lambda _: None)]

    def table(console: "Console") -> None:
        shown_at = terminal(errors=True) if options.stdin else console
        alone, reply = sum(len(log.alone) for log in logs), logs[0].reply
        blocks = max(max(log.records, default=0) + 1 if log.ended else reply.blocks for log in logs)
        end_s = end_of_run(blocks, reply.constants.slots, reply.constants.numbers["slot_s"])
        shown_at.print(joined_table({log.device: log.tasks for log in logs}, end_s, alone))

    output.finish(options, text, table, steps)
    ended = next((f"{options.target}: {log.ended}" for log in logs if log.ended), "")
    if ended or missing:
        raise InputError("; ".join(filter(None, [ended, missing])))
