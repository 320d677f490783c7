"""The parts of the main job, timed inside one process; run as `python -m benchmarks.main_parts JSON`.

Nothing heavy is imported at the top: the time that imports take is one of the parts.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator
from typing import Any
from unittest.mock import patch

PARTS = (
    "start",
    "bound",
    "tune",
    "trace",
    "compile",
    "load",
    "play",
    "measure",
    "latency",
    "write",
    "figures",
    "other",
)
OF_PROGRAM = {"_init_compiled": "play", "_rollout_compiled": "play", "measure": "measure"}
"""The part that a compiled function belongs to, by its name."""
WHOLE, PROGRAMS = ("bound", "tune"), ("trace", "compile", "load")
"""Parts whose own rollouts are counted with them, but for making the programs."""


class Stopwatch:
    """Seconds by part, in one thread. A part pauses the part it is inside of, so that the parts add up to the total."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._open, self._since = ["other"], time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Generator[None]:
        """Count what happens inside as `name`."""
        self._open.append(self._open[-1] if self._open[-1] in WHOLE and name not in PROGRAMS else name)
        self._note(self._open[-2])
        try:
            yield
        finally:
            self._note(self._open.pop())

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts as `name`."""

        def call(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        return call

    def stop(self) -> dict[str, float]:
        """The seconds of every part so far."""
        self._note(self._open[-1])
        return dict(self.seconds)

    def _note(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now


@contextlib.contextmanager
def follow_programs(watch: Stopwatch) -> Generator[None]:
    """Count making programs as PROGRAMS, and running them, until their results are ready, as `play` or `measure`."""
    import jax
    from jax.core import Tracer
    from jax.experimental import serialize_executable

    from partway.program_cache import KeptJit

    call, load = KeptJit.__call__, "deserialize_and_load"

    def ready(self: KeptJit, *arguments: Any, **static: Any) -> Any:
        part = OF_PROGRAM.get(self.__wrapped__.__name__)
        if part is None or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
            return call(self, *arguments, **static)
        with watch.part(part):
            return jax.block_until_ready(call(self, *arguments, **static))

    with (
        patch.object(KeptJit, "_made", watch.timed("trace", KeptJit._made)),
        patch.object(jax.stages.Lowered, "compile", watch.timed("compile", jax.stages.Lowered.compile)),
        patch.object(serialize_executable, load, watch.timed("load", getattr(serialize_executable, load))),
        patch.object(KeptJit, "__call__", ready),
    ):
        yield


def command_parts(arguments: list[str], launched: float) -> dict[str, float]:
    """Seconds by part of `partway compare` with these arguments, its schemes one after another in one thread.

    launched  when this process was launched, as `time.time` says it
    """
    from partway.cli import main as command

    command._load_libraries("partway.experiments.comparison")
    start = time.time() - launched
    watch = Stopwatch()
    with contextlib.ExitStack() as stack:
        _follow_command(watch, stack)
        sys.argv = ["partway", *arguments]
        code = command.main()  # as its own process, which keeps compiled programs
    if code != 0:
        raise RuntimeError(f"partway {' '.join(arguments)}: exit code {code}")
    return watch.stop() | {"start": start}


def _follow_command(watch: Stopwatch, stack: contextlib.ExitStack) -> None:
    """Time the functions of `partway compare`, and let it compute in one thread, in which times add up."""
    with watch.part("figures"):
        from partway import figures
    from partway.cli import output
    from partway.experiments import comparison, preparation, rows

    run_scheme = comparison.run_scheme

    def alone(plan: Any, name: str, setting: Any, on_progress: Any, traces: bool, threads: int | None) -> Any:
        del threads
        return run_scheme(plan, name, setting, on_progress, traces, threads=1)

    stack.enter_context(follow_programs(watch))
    stack.enter_context(patch.object(comparison, "cores", lambda: 1))
    stack.enter_context(patch.object(comparison, "run_scheme", alone))
    for module, function, part in (
        (comparison, "setting_of", "bound"),
        (preparation, "tune_constant", "tune"),
        (rows, "latency", "latency"),
        (output, "write_dataset", "write"),
        (figures, "write_comparison", "figures"),
    ):
        stack.enter_context(patch.object(module, function, watch.timed(part, getattr(module, function))))


def device_block(devices: int, runs: int, blocks: int, repeats: int = 5) -> dict[str, list[float]]:
    """ns a device-block in `paper`, on one thread: steps of each scheme; metrics without and with the certificate."""
    from benchmarks.worlds import MEASURED, pair_of
    from partway.experiments.plan import setting_of
    from partway.scenario.loading import load
    from partway.schemes import stream_of
    from partway.simulation.rollout import rollout

    setting = setting_of(load("paper", {"devices": devices}))
    if setting.certificate is None:
        raise RuntimeError(f"no certificate: {setting.bound}")
    cases = {"metrics": None, "metrics and certificate": setting.certificate}
    ns: dict[str, list[float]] = {name: [] for name in (*(f"step, {scheme}" for scheme in MEASURED), *cases)}
    for repeat in range(repeats + 1):  # the first one compiles
        for scheme in MEASURED:
            for name, certificate in cases.items():
                watch, seeds = Stopwatch(), list(range(runs))
                with follow_programs(watch):
                    pair, stream = pair_of(scheme), stream_of(scheme)
                    rollout(setting.world, pair, stream, seeds, blocks, certificates=certificate, threads=1)
                if repeat > 0:
                    unit = 1e9 / (devices * runs * blocks)
                    ns[f"step, {scheme}"].append(unit * watch.seconds["play"])
                    ns[name].append(unit * watch.seconds["measure"])
    return ns


def main() -> None:
    """Take the cores, without Dask, then time the command; its parts go to standard output as JSON."""
    how = json.loads(sys.argv[1])
    os.sched_setaffinity(0, how["cores"])
    sys.modules["dask"] = None  # type: ignore[assignment]
    print(json.dumps(command_parts(how["arguments"], how["launched"])))


if __name__ == "__main__":
    main()
