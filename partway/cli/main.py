"""The command line: parses the arguments, runs one command, and turns what goes wrong into one line and an exit code.

Exit codes: 0 on success, also when the reader of standard output closes it early; 2 after an error; 130 after Ctrl-C,
143 after SIGTERM and 129 after SIGHUP, which leave no partial results. Nothing here imports JAX, xarray or Matplotlib
before a command needs them.
"""

import argparse
import contextlib
import gc
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol, cast

from partway.arguments import named_by_flags
from partway.cli import interrupts
from partway.cli.stdout import reserved, results
from partway.errors import InputError, closest, nearest, out_of_memory, shorten, shown

DESCRIPTION = "Simulate and control partial offloading of DNN inference from wireless devices to an edge server."
INTERRUPTED = 128
"""Added to the number of a signal: the exit code after it, as in a shell."""


NEGATIVE = re.compile(r"-\.?\d")
"""How a value begins that is a negative number, perhaps with a unit; no flag does."""


class Command(NamedTuple):
    """A row of COMMANDS. `uses_jax`: whether JAX is imported and configured before the command runs."""

    name: str
    about: str
    uses_jax: bool = True


COMMANDS = (
    Command("compare", "compare schemes on one scenario"),
    Command("run", "run one scheme and record single devices block by block"),
    Command("sweep", "compare schemes at every point of a parameter grid"),
    Command("bound", "compute a proven lower bound on the cost of every policy"),
    Command("profile", "list where a network can be split and what each split costs", uses_jax=False),
    Command("cut", "find where to cut a network, for a link, a deadline and a load", uses_jax=False),
    Command("split", "write the two halves of a network as ONNX files, and verify them", uses_jax=False),
    Command("live", "run a server and devices as processes around a real network"),
    Command("serve", "run the server of a live system"),
    Command("join", "join a live system as a device", uses_jax=False),
    Command("preflight", "check what a live run needs", uses_jax=False),
    Command("view", "show results or a live run as a page in a browser", uses_jax=False),
    Command("draw", "draw the figures of finished results again, also for a paper"),
    Command("schemes", "list the schemes, or the hyperparameters of one", uses_jax=False),
    Command("scenarios", "list the shipped scenarios, or print one as commented TOML", uses_jax=False),
    Command("theorem1", "measure the cost of the separation that Theorem 1 claims is free"),
    Command("reproduce", "reproduce section VI of the paper, with a verdict on each claim"),
    Command("cite", "print BibTeX entries for Partway and the paper", uses_jax=False),
)


class CommandModule(Protocol):
    """What the module of a command, `partway.cli.NAME`, holds. `EXAMPLES`: what an example shows -> command line."""

    DESCRIPTION: str
    EXAMPLES: Mapping[str, str]

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flags."""
        ...

    def run(self, options: argparse.Namespace) -> None:
        """Run the command."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Without `arguments` it runs those of this process."""
    own_process, options = arguments is None, None
    _written().clear()
    try:
        if own_process:
            _open_streams()
            interrupts.install()
        options = build_parser().parse_args(arguments)
        options.start_jax = partial(start_jax, own_process)
        if options.uses_jax:
            options.start_jax()
        with reserved(), named_by_flags():
            options.run(options)
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        return _interrupted(str(interrupt), own_process)
    except SystemExit as end:
        if options is None:  # of argparse, after --help
            raise
        return _failed(InputError(f"a policy or its module called sys.exit({shown(end.code)}); remove that call"))
    except Exception as error:
        return _interrupted("interrupted", own_process) if own_process and interrupts.received() else _failed(error)
    finally:
        if own_process:
            interrupts.ignore()  # Python would report what interrupts it while it shuts down
    return 0


def _open_streams() -> None:
    """Make standard streams fit to be written to: the null device in place of those that are closed, as after `2>&-`.

    Otherwise the next file that is opened would take their number, and libraries would print into it.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8"))  # noqa: SIM115  as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):  # an encoding without "±" or a path that is not UTF-8 loses no result
        sys.stdout.reconfigure(errors="surrogateescape" if sys.stdout.encoding.lower() == "utf-8" else "replace")


def _interrupted(message: str, own_process: bool) -> int:
    """Say that a signal ended the command; returns its exit code."""
    written = [shown(str(path), 100) for path in dict.fromkeys(_written())]
    usual = f"interrupted after writing {', '.join(written)}" if written else "interrupted; nothing was written"
    if own_process:
        interrupts.ignore()
    _say(message or usual)
    code = INTERRUPTED + (interrupts.received() or signal.SIGINT)
    if own_process:
        os._exit(code)  # XLA's threads may still compute, and crash where Python is taken down under them
    return code


def _written() -> list[Path]:
    """What this process has written for the user. The module that knows is slow to import: no command, no files."""
    module = sys.modules.get("partway.files")
    return module.written if module else []


def _failed(error: Exception) -> int:
    """Say what is wrong in one line; returns the exit code. Raises what is a fault of the program."""
    message = _cause(error)
    if message is None and not isinstance(error, OSError):
        raise error
    try:
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
    except OSError:
        _discard_output()
    if isinstance(error, BrokenPipeError):
        return 0
    _say(str(InputError(message or str(error))))  # without a message: such as a full disk behind standard output
    return 2


def _say(message: str) -> None:
    """A line on standard error, if anybody can read it: a terminal that was closed has none."""
    with contextlib.suppress(OSError):
        print(f"partway: {message}", file=sys.stderr, flush=True)


def _cause(error: Exception) -> str | None:
    """What is wrong with the input or the machine; None where it is the program, or standard output."""
    if isinstance(error, InputError):
        return str(error)
    if lack := out_of_memory(error):
        return lack
    if isinstance(error, RuntimeError | AssertionError) and "jax" in sys.modules:
        from partway.program_cache import missing_backend

        return missing_backend()
    return None


def _discard_output() -> None:
    """Point standard output at the null device, or Python would fail when it flushes the rest of the buffer at exit.

    The buffer cannot be emptied in another way; Python's documentation advises this in its "Note on SIGPIPE".
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest known word."""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=_Help, allow_abbrev=False, **settings)
        self._negative_number_matcher = NEGATIVE  # else argparse takes -5MB/s for a flag

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see '{self.prog} --help')")

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Refuse unknown arguments here, where the command's flags are known; argparse would do so at the top."""
        parsed, unknown = self._parsed(*args, **options)
        if unknown:
            self._unrecognized(unknown)
        return parsed, unknown

    def _parsed(self, *args: Any, **options: Any) -> Any:
        return super().parse_known_args(*args, **options)

    def _unrecognized(self, unknown: Sequence[str]) -> NoReturn:
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        hint = nearest(unknown[0].split("=")[0], flags) if unknown[0].startswith("-") else ""
        self.error(f"unrecognized arguments: {shorten(' '.join(unknown))}{hint}")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Refuse an empty value: no flag or argument has a use for one."""
        if "" in arg_strings and action.nargs != argparse.PARSER:
            self.error(f"{action.option_strings[0] if action.option_strings else action.metavar} must not be empty")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.option_strings[0] if action.option_strings else action.metavar
            near = closest(value, action.choices)
            hint = f"; did you mean '{near}'?" if near else ""
            self.error(f"{name} must be one of {', '.join(action.choices)}, got {shown(value)}{hint}")


class CommandParser(Parser):
    """The parser of one command, whose module is imported when the command is parsed: no other module is."""

    def __init__(self, command: Command, **settings: Any):
        super().__init__(**settings)
        self._command: Command | None = command

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Add the command's flags and texts, then parse."""
        if self._command:
            module = command_module(self._command.name)
            self.description, self.epilog = module.DESCRIPTION, _examples(module.EXAMPLES)
            module.add_flags(self)
            self.set_defaults(run=module.run, uses_jax=self._command.uses_jax, command=self._command.name)
            self._command = None
        return super().parse_known_args(*args, **options)

    def _parsed(self, *args: Any, **options: Any) -> Any:
        try:
            return super()._parsed(*args, **options)
        except InputError:  # a flag that is missing may be there under an old or a mistyped name
            flags = [one for one in takewhile(lambda one: one != "--", args[0]) if one.startswith("--")]
            if unknown := [one for one in flags if one.partition("=")[0] not in self._option_string_actions]:
                self._unrecognized(unknown)
            raise


class _Help(argparse.HelpFormatter):
    """Wraps descriptions, leaves the lines of examples as they are, and writes `NAME ...` for several values."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=26)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return f"{action.metavar} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)


def build_parser() -> Parser:
    """The parser of the whole command line."""
    lines = [f"  {command.name:10} {command.about}" for command in COMMANDS]
    epilog = "\n".join(["commands:", *lines, "", "'partway COMMAND --help' shows a command's flags and examples."])
    usage = "partway [-h] [--version] COMMAND ..."
    parser = Parser(prog="partway", usage=usage, description=DESCRIPTION, epilog=epilog)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(run=lambda options: _print_version() if options.version else parser.print_help(results()))
    parser.set_defaults(uses_jax=False)
    commands = parser.add_subparsers(
        metavar="COMMAND", prog="partway", parser_class=CommandParser, help=argparse.SUPPRESS
    )
    for command in COMMANDS:
        commands.add_parser(command.name, command=command)
    return parser


def command_module(name: str) -> CommandModule:
    """The module of a command."""
    return cast(CommandModule, importlib.import_module(f"partway.cli.{name}"))


def _examples(examples: Mapping[str, str]) -> str:
    return "\n".join(["examples:", *(f"  {about}:\n    {line}" for about, line in examples.items())])


def _print_version() -> None:
    from partway.provenance import version  # reads the metadata of installed packages

    print(f"partway {version()}", file=results())


def start_jax(own_process: bool, module: str = "partway.experiments.comparison") -> None:
    """Import a module that computes, and configure JAX. Commands that have an answer without it call this."""
    if own_process:
        # before JAX is imported; no errors of XLA: they are raised as well, but for "Very slow compile?"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        _load_libraries(module)
        from partway.workers import silence_jax

        silence_jax()
    cache_compiled_programs(own_process)
    use_all_cores()


def _load_libraries(module: str) -> None:
    """Import a module with all that it needs, and exempt its objects from garbage collection.

    Searching them for garbage, which is never there, takes over a tenth of the time to import and to trace programs.
    A signal ends the process at once: a KeyboardInterrupt while jaxlib is imported may abort it with a stack trace.
    """
    from partway.cli.terminal import notice, terminal

    gc.disable()
    with notice("loading libraries", terminal(errors=True)), interrupts.ending_by(partial(_interrupted, "", True)):
        importlib.import_module(module)
    gc.freeze()
    gc.enable()


def cache_compiled_programs(own_process: bool) -> None:
    """Keep compiled programs in the user's cache folder, where it can be written: later runs need not compile."""
    import jax
    import platformdirs

    from partway import program_cache

    cache = Path(platformdirs.user_cache_dir("partway"))
    folder = cache / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if own_process:  # a caller in another process may have patched what a kept program was made of
        program_cache.keep_in(cache / "programs")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs add up to a second


def use_all_cores() -> None:
    """One JAX device per core, which share a large fleet, unless the user has set their number."""
    import jax

    from partway.workers import cores

    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if jax.config.values["jax_num_cpu_devices"] < 0 and not chosen:
        with contextlib.suppress(RuntimeError):  # JAX has computed already: the number can no longer change
            jax.config.update("jax_num_cpu_devices", cores())
