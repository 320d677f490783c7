"""`cut`: the fastest cut of a network for one task, in the units of an engineer. The first answer of `partway cut`.

It imports no JAX, so that the answer takes a second from Python, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from partway.arguments import named, path
from partway.dnn.profile import Profile
from partway.errors import InputError, shown
from partway.planner import one_task
from partway.planner.network import file_of, is_onnx, measured, read_network, task_of
from partway.planner.one_task import BreakEvenRate, Choice, Costs, Question
from partway.planner.statement import (
    Quantity,
    Statement,
    placed,
    question_of,
    stated_numbers,
    with_processors,
    with_task,
)
from partway.scenario.loading import load
from partway.scenario.overrides import override_pairs
from partway.scenario.schema import Scenario
from partway.schemes import check_running
from partway.system.placement import Placement
from partway.units import SIZE, parsed

SIMULATED = ("priced", "oracle", "local", "full")
"""The schemes of the second answer, of which overrides may set hyperparameters."""


@dataclass(frozen=True)
class CutRow:
    """One cut and what one task costs there.

    cut       its number in the profile; 0 is the input (all remote), the last the output (all local)
    after     the names of its tensors
    pareto    whether no other cut sends as few bits after as little work
    left      share of the work that is left for the server
    bits      to send [bit]
    cpu_hz    CPU rate of the device [Hz]; NaN if it runs no layer
    meets     whether the deadline is met at some CPU rate; None without a deadline
    """

    cut: int
    after: str
    pareto: bool
    left: float
    bits: float
    cpu_hz: float
    device_s: float
    link_s: float
    rtt_s: float
    server_s: float
    device_j: float
    server_j: float
    meets: bool | None

    @property
    def latency_s(self) -> float:
        """From the start of the task to its result [s]."""
        return self.device_s + self.link_s + self.rtt_s + self.server_s


@dataclass(frozen=True)
class OneTask:
    """The first answer: one task in continuous time, with nothing else running (`partway.planner.one_task`).

    scenario  the system, with what was stated of its processors; its tasks are the profile
    place     finds the placement of all devices and the number of this one
    tensor_dtype  in which tensors are sent
    file      the name or path under which a scenario finds the profile; None: there is none
    onnx      the ONNX file of the network; None: it is not known
    onnx_flags    --shape and --input with which it was read
    """

    profile: Profile
    scenario: Scenario
    stated: Statement
    question: Question
    place: Callable[[], tuple[Placement, int]]
    tensor_dtype: str = "uint8"
    file: str | None = None
    onnx: str | None = None
    onnx_flags: tuple[str, ...] = ()

    @cached_property
    def choice(self) -> Choice:
        """The recommended cut, and whether it meets the deadline."""
        return one_task.recommend(self.question)

    @property
    def met(self) -> bool | None:
        """Whether the deadline can be met; None without one."""
        return None if self.question.deadline_s is None else self.choice.met

    @property
    def recommended(self) -> CutRow:
        """The fastest cut; with a deadline the one of least energy that meets it, at the CPU rate that does so."""
        return self.row(self.choice.cut, self.choice.speed)

    @property
    def all_local(self) -> CutRow:
        """The whole network at the device."""
        return self.row(len(self.profile.cuts) - 1)

    @property
    def all_remote(self) -> CutRow:
        """The whole network at the server."""
        return self.row(0)

    @property
    def cuts(self) -> list[CutRow]:
        """The Pareto-optimal cuts and those above at full speed, the fastest first."""
        return [self.row(int(cut)) for cut in one_task.shown_cuts(self.question)]

    @cached_property
    def break_even(self) -> BreakEvenRate:
        """The rates of the link [bit/s] from which sending is faster than running everything locally."""
        return one_task.break_even_rate(self.question)

    @cached_property
    def fastest_by_rate(self) -> list[tuple[float, int]]:
        """[(rate [bit/s] from which, the fastest cut)], ascending, the first from 0."""
        return one_task.fastest_by_rate(self.question)

    @cached_property
    def thriftiest_by_rate(self) -> list[tuple[float, int]]:
        """[(rate [bit/s] from which, the cut with the least energy of the device)], ascending, the first from 0."""
        return one_task.thriftiest_by_rate(self.question)

    @cached_property
    def _full(self) -> Costs:
        return one_task.costs(self.question)

    @cached_property
    def _in_time(self) -> np.ndarray:
        return np.isfinite(one_task.slow_speeds(self.question))

    def row(self, cut: int, speed: float = 1.0) -> CutRow:
        """A cut at a speed of the device's CPU, relative to its largest."""
        costs = self._full if speed == 1 else one_task.costs(self.question, speed)
        each = {name: float(value[cut]) for name, value in vars(costs).items()}
        runs, question = self.question.device.elapsed_s[cut] > 0, self.question
        return CutRow(
            cut,
            self.profile.cuts[cut].after,
            bool(question.front[cut]),
            float(self.profile.share()[cut]),
            float(question.bits[cut]),
            speed * question.device.max_hz if runs else np.nan,
            meets=None if question.deadline_s is None else bool(self._in_time[cut]),
            **each,
        )


def cut(
    network: str | Path | Profile,
    *,
    rate: Quantity | None = None,
    rtt: Quantity = 0.0,
    deadline: Quantity | None = None,
    scenario: str | Path | Mapping[str, Any] | Scenario = "ocr",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    device: int | None = None,
    distance_m: float | None = None,
    device_rate: Quantity | None = None,
    device_times: str | Path | Sequence[float] | None = None,
    server_rate: Quantity | None = None,
    server_times: str | Path | Sequence[float] | None = None,
    cpu_min: Quantity | None = None,
    cpu_max: Quantity | None = None,
    cpu_power: Quantity | None = None,
    idle_power: Quantity = 0.0,
    tx_power: Quantity | None = None,
    energy_per_bit: Quantity | None = None,
    tensor_dtype: str = "uint8",
    input_bits: Quantity | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, list[float]] | None = None,
) -> OneTask:
    """Where to cut a network for one task: latency and energy of every cut in continuous time, nothing else running.

    network       a shipped profile's name, a profile's CSV file, an ONNX file, or a profile
    rate, rtt     of the link; without a rate that of the scenario's radio at full power and the mean channel gain
    deadline      the cut with the least energy that meets it is recommended, instead of the fastest
    scenario      has whatever is not stated: `overrides` change its fields
    device, distance_m           which of its devices, by default the one with the median channel gain; moved there
    device_rate, server_rate     multiply-accumulates a second, such as "8GMAC/s"
    device_times, server_times   measured: a CSV file (`partway.dnn.layer_times`), or (cuts,) seconds before each cut.
                  A profile that has times, and no `device_rate`: its own
    cpu_min, cpu_max             range of the device's CPU rate; without `cpu_min` it always runs at the largest
    cpu_power     of the device at full speed, above idle
    idle_power    drawn all the time
    tx_power, energy_per_bit     of the radio while it sends, above idle, or of a bit
    tensor_dtype, input_bits     how tensors are sent: "fp32", "fp16" or "uint8"; size of the encoded input [bit]
    shapes, values               for an ONNX file: shapes of open inputs, and inputs that are always the same

    Quantities are text with a unit or numbers in SI units. Raises InputError for whatever cannot be used.
    """
    given = {"rate": rate, "rtt": rtt, "deadline": deadline, "device_rate": device_rate, "server_rate": server_rate}
    given |= {"cpu_min": cpu_min, "cpu_max": cpu_max, "cpu_power": cpu_power, "idle_power": idle_power}
    given |= {"tx_power": tx_power, "energy_per_bit": energy_per_bit}
    numbers = stated_numbers(given | {"device_times": device_times, "server_times": server_times})
    if not isinstance(network, Profile):
        path(named("network"), network)
    if input_bits is not None:
        input_bits = parsed(named("input_bits"), input_bits, SIZE)
    plain = with_task(load(scenario, _checked(overrides)), task_of(network, tensor_dtype, input_bits))
    profile = read_network(network, shapes, values)
    if device_rate is None and device_times is None and profile.seconds is not None:
        device_times = profile.seconds.tolist()
    at_device = measured(named("device_times"), device_times, profile)
    at_server = measured(named("server_times"), server_times, profile)
    stated = Statement(**numbers, device_times=at_device, server_times=at_server)
    whole = with_processors(plain, stated, profile)
    place = cache(lambda: placed(whole, device, distance_m))
    if device is not None or distance_m is not None:
        place()  # raises where they are out of range
    question = question_of(whole, profile, stated, place, tensor_dtype, input_bits)
    about = OneTask(profile, whole, stated, question, place, tensor_dtype, file_of(network))
    return about if isinstance(network, Profile) else from_onnx(about, network, shapes, values)


def from_onnx(
    answer: OneTask,
    network: str | Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, list[float]] | None = None,
) -> OneTask:
    """The answer with the ONNX file that the network is from, and how it was read; unchanged if it is not from one."""
    if not is_onnx(network):
        return answer
    shape = [f"{name}={'x'.join(map(str, sizes))}" for name, sizes in (shapes or {}).items()]
    value = [f"{name}={','.join(f'{one:.17g}' for one in numbers)}" for name, numbers in (values or {}).items()]
    stated = (*(["--shape", *shape] if shape else []), *(["--input", *value] if value else []))
    return replace(answer, onnx=str(network), onnx_flags=stated)


def _checked(overrides: Sequence[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """The overrides, none of which is about the task."""
    pairs = override_pairs(overrides)
    check_running(pairs, SIMULATED)
    for field in pairs:
        if "task" in field.split("."):
            raise InputError(
                f"{named('overrides')} {shown(field)}: the task is the network; "
                f"use {named('tensor_dtype')} and {named('input_bits')}"
            )
    return pairs
