"""The command line. Errors are one line on stderr and exit code 2; Ctrl-C leaves nothing behind and exits with 130."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import jax
import platformdirs

from partway.cli import commands
from partway.cli import reproduce as reproduce_command
from partway.cli import sweep as sweep_command
from partway.cli import theorem1 as theorem1_command
from partway.dnn.profile import DTYPE_BITS
from partway.errors import InputError, closest, nearest, shorten, shown
from partway.provenance import version
from partway.workers import cores

EXAMPLES = {
    "compare": """examples:
  partway compare                                        the paper's scenario, every scheme
  partway compare --scenario ocr --out results/ocr       a real DNN; keep figures, data and JSON
  partway compare --set devices=50 device.arrival_prob=0.2 --schemes printed exact constant
  partway compare --schemes constant mymodule:MyPolicy   your own policy beside the tuned constant
  partway compare --json - | jq '.schemes[].cost_per_block'""",
    "run": """examples:
  partway run --schemes exact --trace 0 3                two devices, block by block
  partway run --schemes printed --server exact --out results/printed
  partway run --schemes priced --save trained.npz        keep what was learned
  partway run --load trained.npz --warmup 0              go on for another 2000 blocks
  partway run --load trained.npz --set device.arrival_prob=0.5 --save busier.npz""",
    "bound": """examples:
  partway bound                                          of the paper's scenario
  partway bound --scenario ocr --set devices=50
  partway bound --json - | jq .value""",
    "sweep": sweep_command.EXAMPLES,
    "reproduce": """examples:
  partway reproduce --quick                              fewer replicates and points
  partway reproduce --out results/reproduction           everything; a stopped run goes on
  partway reproduce --scenario mine.toml --out mine      other values of what is not published
  partway reproduce --quick --json - | jq '.claims[].schemes.exact.verdict'""",
    "cut": """examples:
  partway cut resnet50                                   a shipped network in the scenario ocr
  partway cut model.onnx --scenario mine.toml --distance-m 80 --out my-cut
  partway cut ppocr-rec --input-bits 60000 --set device.bandwidth_hz=5e6
  partway cut alexnet --tensor-dtype fp16 --json - | jq .break_even_hz""",
    "profile": """examples:
  partway profile resnet50                               a network that ships with Partway
  partway profile model.onnx --out my-model              my-model/*.csv, usable as a task's profile
  partway profile model.onnx --shape input=1x3x224x224 --measure --check""",
}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see '{self.prog} --help')")

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Refuse here what argparse would report from the top, where a command's flags are not known."""
        found, unknown = super().parse_known_args(*args, **options)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            hint = nearest(unknown[0].split("=")[0], flags) if unknown[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {shorten(' '.join(unknown))}{hint}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = action.option_strings[0] if action.option_strings else action.metavar
            found = closest(value, action.choices)
            hint = f"; did you mean '{found}'?" if found else ""
            self.error(f"{what} {shown(value)}: allowed is {', '.join(action.choices)}{hint}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    try:
        if arguments is None:
            _heed_interrupts()
        options = _parser().parse_args(arguments)
        _cache_compiled_programs()
        _use_all_cores()
        options.command(options)
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
    except InputError as error:
        print(f"partway: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"partway: {str(interrupt) or 'interrupted; nothing was written'}", file=sys.stderr, flush=True)
        if arguments is None:
            os._exit(130)  # XLA may still compute, and crashes where Python is taken down under it
        return 130
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:  # such as a full disk behind standard output
        print(f"partway: {InputError(str(error))}", file=sys.stderr)
        _drop_output()
        return 2
    return 0


def _heed_interrupts() -> None:
    """Ctrl-C as usual, but not in JAX's callback of the garbage collector, where it would be lost: `commands` looks."""

    def heard(number: int, frame: FrameType | None) -> None:
        commands.INTERRUPTED.set()
        if frame is None or frame.f_code.co_name != "_xla_gc_callback":
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, heard)


def _drop_output() -> None:
    """What is still in the buffer of standard output goes nowhere, so that leaving does not fail on it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cache_compiled_programs() -> None:
    """A second run of the same shapes need not compile, where there is a place to remember them."""
    folder = Path(platformdirs.user_cache_dir("partway")) / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small ones add up to a second


def _use_all_cores() -> None:
    """A large fleet is shared by JAX devices: as many as there are cores, where nobody has said how many."""
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if jax.config.values["jax_num_cpu_devices"] < 0 and not told:
        with contextlib.suppress(RuntimeError):  # JAX computes already: then it stays as it is
            jax.config.update("jax_num_cpu_devices", cores())


def _parser() -> Parser:
    parser = Parser(
        prog="partway", description="How much of each DNN inference to run on a device, how much at the edge."
    )
    parser.add_argument("--version", action="version", version=f"partway {version()}")
    parser.set_defaults(command=lambda options: parser.print_help())
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, function, about, add_flags in _commands():
        made = subparsers.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=EXAMPLES.get(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        made.set_defaults(command=function)
        add_flags(made)
    return parser


def _commands() -> list[tuple[str, Callable[[argparse.Namespace], None], str, Callable[[Parser], None]]]:
    """(name, what does it, what it is for, what adds its flags)."""
    reproduce = partial(reproduce_command.add_flags, whole=_whole)
    return [
        ("compare", commands.compare, "compare schemes in one world and print a table", _run_flags),
        (
            "run",
            commands.run,
            "run one scheme (exact, unless --schemes says another); see devices",
            _one_run_flags,
        ),
        ("sweep", sweep_command.sweep, "compare schemes at every point of a grid; a stopped one goes on", _sweep_flags),
        ("bound", commands.bound, "the proven lower bound on the cost of every policy, on its own", _bound_flags),
        ("theorem1", theorem1_command.theorem1, "what Theorem 1 costs, by fleet and server energy", _theorem1_flags),
        ("reproduce", reproduce_command.reproduce_paper, "section VI: figures, a verdict on every claim", reproduce),
        ("schemes", commands.schemes, "list the schemes, or one scheme's hyperparameters", _schemes_flags),
        ("scenarios", commands.scenarios, "list the scenarios that ship with Partway", lambda parser: None),
        ("scenario", commands.scenario, "print a scenario's commented file, to start from", _scenario_name),
        ("cut", commands.cut, "where to cut a network now, by queue and radio, and what that brings", _cut_flags),
        ("profile", commands.profile_network, "where a network can be cut, and what each cut costs", _profile_flags),
    ]


def _run_flags(parser: Parser, **output: str) -> None:
    """`output`: other words than usual for what `_output_flags` adds."""
    add = parser.add_argument
    _scenario_flags(parser)
    add(
        "--schemes",
        nargs="+",
        metavar="NAME",
        help="schemes, or module:ATTRIBUTE of your own (default: all; run: exact)",
    )
    add("--server", metavar="NAME", help="take this scheme's server for all")
    add("--blocks", type=_whole, default=2000, metavar="N", help="blocks to run (default: 2000)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=_whole, nargs="+", metavar="N", help="how many, or several seeds (default: 8)")
    which.add_argument("--seed", type=_whole, metavar="N", help="this one seed")
    add("--warmup", type=_whole, metavar="N", help="blocks left out of the means (default: half)")
    add("--precision", choices=["float32", "float64"], help="(default: float32)")
    _output_flags(parser, **output)
    _json_flag(parser)


def _one_run_flags(parser: Parser) -> None:
    add = parser.add_argument
    _run_flags(parser)
    add("--trace", nargs="+", type=_whole, default=[0], metavar="DEVICE", help="devices to trace (default: 0)")
    add("--save", metavar="FILE", help="keep the trained controllers in this .npz file")
    add("--load", metavar="FILE", help="go on where such a file ends, with its scenario unless one is given")


def _sweep_flags(parser: Parser) -> None:
    _run_flags(parser, out=sweep_command.OUT, overwrite=sweep_command.OVERWRITE)
    sweep_command.add_flags(parser)


def _bound_flags(parser: Parser) -> None:
    _scenario_flags(parser)
    _json_flag(parser)
    _overwrite_flag(parser)
    parser.set_defaults(out=None)


def _theorem1_flags(parser: Parser) -> None:
    _scenario_flags(parser)
    parser.add_argument("--blocks", type=_whole, default=4000, metavar="N", help="blocks to run (default: 4000)")
    parser.add_argument("--seeds", type=_whole, default=8, metavar="N", help="how many seeds (default: 8)")
    _output_flags(parser)


def _schemes_flags(parser: Parser) -> None:
    parser.add_argument("scheme", nargs="?", metavar="NAME")


def _scenario_name(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", default="paper", metavar="NAME")


def _scenario_flags(parser: Parser, default: str = "paper") -> None:
    add = parser.add_argument
    add("--scenario", metavar="NAME|FILE", help=f"a preset or a TOML file (default: {default})")
    add("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="change fields of the scenario")


def _json_flag(parser: Parser) -> None:
    parser.add_argument("--json", metavar="FILE|-", help="write JSON; '-': to stdout, and nothing else there")


def _output_flags(parser: Parser, out: str = "keep data and figures in this new folder", **words: str) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    _overwrite_flag(parser, **words)


def _overwrite_flag(parser: Parser, overwrite: str = "replace results that exist") -> None:
    parser.add_argument("--overwrite", action="store_true", help=overwrite)


def _profile_flags(parser: Parser) -> None:
    add = parser.add_argument
    _model_flags(parser)
    add("--measure", action="store_true", help="time every layer on this machine")
    add("--check", action="store_true", help="run both parts of every cut and compare with the whole, bit by bit")
    _output_flags(parser)


def _cut_flags(parser: Parser) -> None:
    add = parser.add_argument
    _model_flags(parser)
    _scenario_flags(parser, "ocr")
    parser.set_defaults(scenario="ocr")
    add("--device", type=_whole, metavar="N", help="the device that is asked about (default: the one of median gain)")
    add("--distance-m", type=float, metavar="D", help="put it so far away, without shadowing [m]")
    add("--learn", action="store_true", help="plan with what priced learns, not with the scenario's statistics")
    add("--blocks", type=_whole, default=600, metavar="N", help="blocks of the simulation (default: 600)")
    add("--seeds", type=_whole, default=3, metavar="N", help="its seeds (default: 3)")
    _output_flags(parser)
    _json_flag(parser)


def _model_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL.onnx|NAME", help="an ONNX file, a profile's CSV file or a shipped profile's name")
    add("--tensor-dtype", choices=list(DTYPE_BITS), default="uint8", help="of the tensor that is sent (default: uint8)")
    add("--shape", nargs="+", type=_shape, default=[], metavar="INPUT=1x3x224x224", help="fix the shape of an input")
    add("--input-bits", type=float, metavar="N", help="size of the encoded input, such as a JPEG file's [bit]")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shown(text)}: allowed is a whole number") from None


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`NAME=1x3x224x224` -> (NAME, (1, 3, 224, 224))."""
    name, _, sizes = text.rpartition("=")
    if not name or not all(size.isdecimal() and int(size) > 0 for size in sizes.split("x")):
        raise argparse.ArgumentTypeError(f"{shown(text)}: expected NAME=SIZExSIZE..., such as input=1x3x224x224")
    return name, tuple(int(size) for size in sizes.split("x"))
