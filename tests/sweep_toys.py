"""Stand-ins for the simulation, importable by workers: everything around it is under test."""

import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partway.experiments.plan import Plan

DELAY_S = 0.03


class Here(Executor):
    """An executor that computes in this thread, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def outcome(plan: "Plan") -> dict[str, Any]:
    """Numbers that depend on the whole content of a case and on nothing else."""
    digest = hashlib.sha256(repr(plan).encode()).digest()
    numbers = [byte / 7 for byte in digest]
    seeds, classes = len(plan.seeds), set(plan.scenario.groups_of_devices())
    by_class = [
        number if i in classes else math.nan for i, number in enumerate(numbers[: len(plan.scenario.group) or 1])
    ]
    return {
        "status": "ok",
        "reason": "",
        "cost": [numbers[4 * i : 4 * i + 4] for i in range(seeds)],
        "cost_with_warmup": numbers[:seeds],
        "cost_by_class": [by_class] * seeds,
        "bound": numbers[9],
        "bound_reason": "",
        "gap_reason": "toys have none",
    }


def run_group(plans: Sequence["Plan"]) -> list[dict[str, Any]]:
    time.sleep(DELAY_S)
    return [outcome(plan) for plan in plans]


def run_or_die(plans: Sequence["Plan"]) -> list[dict[str, Any]]:
    """Kills its process at the first call, as the system does when memory runs out."""
    mark = Path(os.environ["PARTWAY_TOY_MARKS"]) / hashlib.sha256(repr(plans).encode()).hexdigest()
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return run_group(plans)


def always_die(plans: Sequence["Plan"]) -> list[dict[str, Any]]:
    """Kills its process for every group of two devices."""
    if plans[0].scenario.devices == 2:
        os.kill(os.getpid(), 9)
    return run_group(plans)


def print_and_return(answer: int) -> int:
    """Prints in every way and returns its argument."""
    print("to standard output", flush=True)
    os.write(1, b"past Python\n")
    print("to standard error", file=sys.stderr)
    return answer


def pid() -> int:
    return os.getpid()


def exit_at_once() -> None:
    os._exit(3)


def run_slowly(plans: Sequence["Plan"]) -> list[dict[str, Any]]:
    time.sleep(0.3)
    return run_group(plans)
