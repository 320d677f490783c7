"""Flags that several commands share, and how their values are read."""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from partway.errors import InputError, shown

if TYPE_CHECKING:
    from partway.experiments.plan import Plan
    from partway.figures import Look

T = TypeVar("T")
MAX_PORT = 65535


def whole_number(text: str) -> int:
    """An integer, for `type=` of a flag."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {shown(text)}") from None


def address(text: str) -> tuple[str, int]:
    """`[HOST:]PORT` -> (HOST, PORT), on this machine where there is no HOST; for `type=` of a flag."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > MAX_PORT or text.startswith(":"):
        raise argparse.ArgumentTypeError(f"must be PORT or HOST:PORT, such as 9090, got {shown(text)}")
    return host.strip("[]") or "127.0.0.1", int(port)


def target(text: str) -> str:
    """`HOST:PORT` of a server to connect to, for `type=` of a flag."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, such as edge.local:7070, got {shown(text)}")
    return text


def seconds(text: str) -> float:
    """A positive number of seconds, for `type=` of a flag."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {shown(text)}")
    return number


def tensor_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`NAME=1x3x224x224` -> (NAME, (1, 3, 224, 224)), for `type=` of a flag."""
    name, _, sizes = text.rpartition("=")
    if not name or not all(size.isdecimal() and int(size) > 0 for size in sizes.split("x")):
        raise argparse.ArgumentTypeError(f"must be NAME=SIZExSIZE..., such as input=1x3x224x224, got {shown(text)}")
    return name, tuple(int(size) for size in sizes.split("x"))


def name_and_text(text: str) -> tuple[str, str]:
    """`NAME=TEXT` -> (NAME, TEXT), for `type=` of a flag."""
    name, equals, label = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=TEXT, such as priced=Ours, got {shown(text)}")
    return name, label


def input_value(text: str) -> tuple[str, list[float]]:
    """`NAME=16000`, `NAME=true` or `NAME=1,2` -> (NAME, values), for `type=` of a flag."""
    name, _, values = text.rpartition("=")
    try:
        numbers = [_number(word) for word in values.lower().split(",")]
    except ValueError:
        numbers = []
    if not name or not numbers:
        raise argparse.ArgumentTypeError(f"must be NAME=NUMBER, such as sr=16000 or flag=true, got {shown(text)}")
    return name, numbers


def _number(text: str) -> float:
    """An integer if it is one, so that no digit of an int64 is lost; 1 for true and 0 for false."""
    if text in ("true", "false"):
        return int(text == "true")
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def one_each(flag: str, pairs: Sequence[tuple[str, T]]) -> dict[str, T]:
    """The values of a flag by their names. Raises InputError if a name is given twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{flag}: {shown(twice)} is given twice")
    return found


def add_scenario(
    parser: argparse.ArgumentParser, default: str | None = "paper", otherwise: str = "", live: str = ""
) -> None:
    """--scenario, --set, --channel and --traffic.

    otherwise  what the help says of the default where that is not a scenario's name
    live       what the help says that a live run needs, of which channel and traffic are those of the paper
    """
    group = parser.add_argument_group("scenario")
    group.add_argument(
        "--scenario",
        default=default,
        metavar="NAME|FILE",
        help=f"a shipped scenario or a TOML file{live} (default: {otherwise or default})",
    )
    group.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the scenario, such as devices=50 or device.cpu_max_hz=1e9; in groups "
        "group.NAME.cpu_max_hz=1e9, or group.*.cpu_max_hz for all of them",
    )
    for flag, field, examples in (
        ("--channel", "radio.fading.kind", "rayleigh, gauss_markov, trace"),
        ("--traffic", "traffic.kind", "bernoulli"),
    ):
        group.add_argument(
            flag,
            dest="set",
            type=partial(_kind_set, field),
            action="append",
            metavar="KIND",
            help=f"only {examples.split(',')[0]} in a live run"
            if live
            else f"{examples}, or module:Class for your own; the same as --set {field}=KIND",
        )


def _kind_set(field: str, kind: str) -> str:
    """An override that names a kind."""
    return f"{field}={json.dumps(kind)}"


def add_simulation(parser: argparse.ArgumentParser, schemes: str = "all but those marked * there") -> None:
    """--schemes, --server, --blocks, --seeds, --seed, --warmup and --precision. `schemes`: the default, in words."""
    group = parser.add_argument_group("simulation")
    group.add_argument(
        "--schemes",
        nargs="+",
        metavar="NAME",
        help=f"names from 'partway schemes', or module:ATTRIBUTE for your own (default: {schemes})",
    )
    group.add_argument("--server", metavar="NAME", help="use this scheme's server controller for all schemes")
    group.add_argument("--blocks", type=whole_number, default=2000, metavar="N", help="blocks to run (default: 2000)")
    seeds = group.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seeds",
        nargs="+",
        type=whole_number,
        metavar="N",
        help="number of seeds, or two or more seed values (default: 8)",
    )
    seeds.add_argument("--seed", type=whole_number, metavar="N", help="a single seed value")
    group.add_argument(
        "--warmup", type=whole_number, metavar="N", help="blocks at the start to exclude from averages (default: half)"
    )
    group.add_argument("--precision", choices=["float32", "float64"], help="floating-point type (default: float32)")


def add_by(parser: argparse.ArgumentParser, devices: bool = True) -> None:
    """--by. devices: whether single devices can be printed, too."""
    parser.add_argument(
        "--by",
        choices=["class", "device"] if devices else ["class"],
        help="also print cost, latency, energy and offloaded share of each class of devices (group)"
        + ", or each device" * devices,
    )


def add_output(
    parser: argparse.ArgumentParser,
    *,
    out: str | None = "write data and figures to this new folder",
    required: bool = False,
    overwrite: str = "replace existing results",
    json: bool = True,
) -> None:
    """--out, --overwrite and --json.

    out, overwrite  help of the flags; without `out` there is no --out
    required, json  whether --out must be given, and whether there is a --json
    """
    parser.set_defaults(out=None, json=None)
    group = parser.add_argument_group("output")
    if out:
        group.add_argument("--out", type=Path, required=required, metavar="DIR", help=out)
    group.add_argument("--overwrite", action="store_true", help=overwrite)
    if json:
        text = "write JSON to this file; '-' writes it to standard output, and nothing else"
        group.add_argument("--json", metavar="FILE|-", help=text)


def add_figures(parser: argparse.ArgumentParser, names: bool = True) -> None:
    """--style, and --label where schemes have `names` in the figures; for a command that has --out."""
    parser.set_defaults(label=[])
    group = parser.add_argument_group("figures")
    group.add_argument(
        "--style",
        choices=["screen", "paper"],
        default="screen",
        help="paper: also PDF without titles, as wide as a column of a page, and captions.tex (default: screen)",
    )
    if names:
        group.add_argument(
            "--label",
            nargs="+",
            action="extend",
            type=name_and_text,
            default=[],
            metavar="NAME=TEXT",
            help="what figures show instead of a name, such as priced=Ours or 'constant=fixed $a$'",
        )


def look(options: argparse.Namespace, names: Sequence[str] = ()) -> "Look | None":
    """The look of the figures; None where it is the usual one. names: those that a label can replace.

    Raises InputError for a label of something else, and for what would be drawn if there were a folder.
    """
    if options.style == "screen" and not options.label:
        return None
    if not options.out:
        raise InputError("--style and --label need --out: without a folder no figure is drawn")
    from partway.figures import Look  # Matplotlib takes half a second to import

    chosen = Look(options.style, one_each("--label", options.label))
    chosen.check(names)
    return chosen


def add_network(parser: argparse.ArgumentParser) -> None:
    """The network, and how it is sent."""
    from partway.dnn.profile import DTYPE_BITS  # NumPy, which other commands' help need not wait for

    parser.add_argument("model", metavar="MODEL", help="an ONNX file, a profile's CSV file or a shipped profile's name")
    group = parser.add_argument_group("network")
    group.add_argument(
        "--tensor-dtype",
        choices=list(DTYPE_BITS),
        default="uint8",
        help="data type in which tensors are sent (default: uint8)",
    )
    add_inputs(group.add_argument)
    group.add_argument(
        "--input-bits", metavar="SIZE", help="size of the encoded input, such as 60kbit of a JPEG file; bits by default"
    )


def add_inputs(add: Callable[..., object]) -> None:
    """--shape and --input. `add`: the `add_argument` of a parser or of a group."""
    add(
        "--shape",
        nargs="+",
        action="extend",
        type=tensor_shape,
        default=[],
        metavar="INPUT=1x3x224x224",
        help="shapes of dynamic inputs",
    )
    add(
        "--input",
        nargs="+",
        action="extend",
        type=input_value,
        default=[],
        metavar="INPUT=VALUE",
        help="fix inputs that are always the same, such as one that chooses a branch (sr=16000)",
    )


def seeds_of(options: argparse.Namespace, default: int | Sequence[int]) -> int | Sequence[int]:
    """A number of seeds, or their values, from --seed and --seeds."""
    if options.seed is not None:
        return [options.seed]
    given: list[int] = options.seeds or []
    return given[0] if len(given) == 1 else given or default


def comparison_plan(options: argparse.Namespace, seeds: int | Sequence[int] = 8) -> "Plan":
    """The comparison that the flags of `add_scenario` and `add_simulation` ask for. `seeds`: the default."""
    from partway.experiments.plan import make_plan

    return make_plan(
        options.scenario,
        overrides=options.set,
        schemes=options.schemes,
        server=options.server,
        blocks=options.blocks,
        seeds=seeds_of(options, seeds),
        warmup=options.warmup,
        precision=options.precision or "float32",
    )
