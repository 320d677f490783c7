"""The bytes of the control service's messages, and what is read from them: a message that breaks a rule never gets in.

The rules are those of `proto/control.proto`. A NaN, a gain of 0 or more arrivals than slots would spoil a controller's
memory for good, so everything that is read is checked here, once.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from partway.arguments import PRECISIONS
from partway.live.checks import LEAST, MAX_BLOCK, MOST, check, number, parsed, printable, whole
from partway.live.messages import (
    BlockRecord,
    BroadcastNews,
    DeviceConstants,
    LeaveRequest,
    News,
    Policy,
    RegisterReply,
    RegisterRequest,
    Report,
    Setting,
    Start,
)
from partway.live.proto import control_pb2 as wire

MAX_WIDTH = 100_000
"""Cuts of a device's table."""
MAX_SETTINGS = 200
BROADCAST_NUMBERS = ("price", "service_rate", "backlog", "share")
LAWS = frozenset({"line", "table", "both"})

# Registration


def write_register(request: RegisterRequest) -> bytes:
    """The bytes of a request to join."""
    return wire.RegisterRequest(
        protocol_version=request.version,
        device=request.device,
        scenario_sha256=request.scenario_sha256,
        model_sha256=request.model_sha256,
        session=request.session,
    ).SerializeToString()


def read_register(data: bytes) -> RegisterRequest:
    """A request to join. Raises MessageError; a version is not checked here: the server says which one it speaks."""
    given = parsed(wire.RegisterRequest, data)
    return RegisterRequest(
        device=given.device if given.HasField("device") else None,
        scenario_sha256=printable("scenario_sha256", given.scenario_sha256),
        model_sha256=printable("model_sha256", given.model_sha256),
        version=given.protocol_version,
        session=printable("session", given.session),
    )


def write_registered(reply: RegisterReply) -> bytes:
    """The bytes of a reply to a request to join."""
    constants, policy = reply.constants, reply.policy
    task = wire.Task(
        share=constants.share,
        bits=constants.bits,
        feasible=constants.feasible,
        proportional=constants.proportional,
        bits_per_task=constants.bits_per_task,
        laws=constants.laws,
    )
    record = wire.Device(
        task=task,
        slots_per_block=constants.slots,
        max_tasks_per_block=constants.max_tasks_per_block,
        objective=constants.objective,
    )
    _set(record, constants.numbers)
    settings = [wire.Setting(name=name) for name in policy.settings]
    for setting, value in zip(settings, policy.settings.values(), strict=True):
        _set(setting, {_kind(value): value})
    return wire.RegisterReply(
        device=reply.device,
        session=reply.session,
        record=record,
        policy=wire.Policy(
            scheme=policy.scheme,
            settings=settings,
            stream=policy.stream,
            seed=policy.seed,
            precision=policy.precision,
            uses_broadcast=policy.uses_broadcast,
        ),
        workload=wire.Workload(arrival_threshold=reply.arrival_threshold),
        blocks=reply.blocks,
        broadcast_delay_blocks=reply.broadcast_delay_blocks,
        lease_blocks=reply.lease_blocks,
        scenario_sha256=reply.scenario_sha256,
        model_sha256=reply.model_sha256,
    ).SerializeToString()


def _set(message: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(message, name, value)


def _kind(value: Setting) -> str:
    """The field of a Setting in which a value travels."""
    kinds: dict[type, str] = {bool: "flag", int: "whole", float: "number", str: "word"}
    return kinds[type(value)]


def read_registered(data: bytes) -> RegisterReply:
    """A reply to a request to join. Raises MessageError."""
    given = parsed(wire.RegisterReply, data)
    return RegisterReply(
        device=whole("device", given.device, 10_000_000),
        session=printable("session", given.session, empty=False),
        constants=_constants(given.record),
        policy=_policy(given.policy),
        arrival_threshold=given.workload.arrival_threshold,
        blocks=whole("blocks", given.blocks, MAX_BLOCK, 1),
        broadcast_delay_blocks=whole("broadcast_delay_blocks", given.broadcast_delay_blocks, 1000),
        lease_blocks=whole("lease_blocks", given.lease_blocks, MAX_BLOCK, 1),
        scenario_sha256=printable("scenario_sha256", given.scenario_sha256),
        model_sha256=printable("model_sha256", given.model_sha256),
    )


NUMBERS = {
    **dict.fromkeys(("capacity", "mean_gain", "snr_gap", "bandwidth_hz", "slot_s", "fleet_size"), LEAST),
    **dict.fromkeys(("energy_coef", "queue_weight", "energy_weight", "server_work", "discount"), 0.0),
}
"""The numbers of a device's record, but for the limit on power, and the least that each may be."""


def _constants(given: Any) -> DeviceConstants:
    task, limit = given.task, given.tx_power_max_w
    check(limit >= LEAST, f"tx_power_max_w must be at least {LEAST:g}")
    share, bits = np.array(task.share, np.float64), np.array(task.bits, np.float64)
    feasible = np.array(task.feasible, bool)
    check(0 < len(share) <= MAX_WIDTH and len(share) == len(bits) == len(feasible), "a task's cuts must be complete")
    check(bool(np.isfinite(share).all() and (share >= 0).all() and (share <= 1).all()), "share must be from 0 to 1")
    check(bool((bits >= 0).all() and (bits <= MOST).all()), f"bits must be from 0 to {MOST:g}")
    check(task.laws in LAWS, f"laws must be one of {', '.join(sorted(LAWS))}")
    check(given.objective in ("average", "discounted"), "objective must be average or discounted")
    numbers = {name: number(name, getattr(given, name), low) for name, low in NUMBERS.items()}
    return DeviceConstants(
        numbers=numbers | {"tx_power_max_w": limit},
        share=share,
        bits=bits,
        feasible=feasible,
        proportional=task.proportional,
        bits_per_task=number("bits_per_task", task.bits_per_task, 0.0),
        laws=task.laws,
        slots=whole("slots_per_block", given.slots_per_block, 64, 1),
        max_tasks_per_block=whole("max_tasks_per_block", given.max_tasks_per_block, 64, 1),
        objective=given.objective,
    )


def _policy(given: Any) -> Policy:
    check(given.precision in PRECISIONS, f"precision must be {' or '.join(PRECISIONS)}")
    check(set(given.uses_broadcast) <= {*BROADCAST_NUMBERS}, "uses_broadcast names fields of the broadcast")
    check(len(given.settings) <= MAX_SETTINGS, f"at most {MAX_SETTINGS} settings")
    settings = dict[str, Setting]()
    for setting in given.settings:
        kind = setting.WhichOneof("value")
        check(kind is not None, "a setting must have a value")
        settings[printable("a setting's name", setting.name, empty=False)] = getattr(setting, kind)
    return Policy(
        scheme=printable("scheme", given.scheme, empty=False),
        settings=settings,
        stream=printable("stream", given.stream),
        seed=given.seed,
        precision=given.precision,
        uses_broadcast=tuple(given.uses_broadcast),
    )


# The stream


def write_report(report: Report) -> bytes:
    """The bytes of a device's report."""
    given = wire.Report(session=report.session, block=report.block, queue=report.queue)
    if report.last is not None:
        last = report.last
        given.last.CopyFrom(
            wire.BlockRecord(
                queue=last.queue,
                gain=last.gain,
                started=last.started,
                offload=last.offload,
                commanded_w=None if math.isnan(last.commanded_w) else last.commanded_w,
                power_w=last.power_w,
                energy_j=last.energy_j,
                relative_change=None if math.isnan(last.relative_change) else last.relative_change,
                arrivals=last.arrivals,
            )
        )
    return given.SerializeToString()


def read_report(data: bytes) -> Report:
    """A device's report. Raises MessageError."""
    given = parsed(wire.Report, data)
    queue = _tasks("queue", given.queue)
    return Report(
        session=printable("session", given.session, empty=False),
        block=whole("block", given.block, MAX_BLOCK),
        queue=queue,
        last=_block_record(given.last) if given.HasField("last") else None,
    )


def _tasks(name: str, value: float) -> float:
    """A whole number of tasks."""
    number(name, value, 0.0, 2.0**53)
    check(value == math.floor(value), f"{name} must be a whole number")
    return value


def _block_record(given: Any) -> BlockRecord:
    relative_change = given.relative_change if given.HasField("relative_change") else math.nan
    check(not relative_change < 0, "relative_change must be at least 0")  # infinite before anything is learned
    started = _tasks("started", given.started)
    queue = _tasks("queue", given.queue)
    check(started <= queue, "started must be at most the tasks that waited")
    return BlockRecord(
        queue=queue,
        gain=number("gain", given.gain, LEAST),
        started=started,
        offload=number("offload", given.offload, 0.0, min(1.0, started)),
        commanded_w=number("commanded_w", given.commanded_w, 0.0) if given.HasField("commanded_w") else math.nan,
        power_w=number("power_w", given.power_w, 0.0),
        energy_j=number("energy_j", given.energy_j, 0.0),
        relative_change=relative_change,
        arrivals=given.arrivals,
    )


def write_news(news: News) -> bytes:
    """The bytes of what the server says."""
    if isinstance(news, Start):
        return wire.News(start=wire.Start(block=news.block, in_s=news.in_s)).SerializeToString()
    broadcast = wire.Broadcast(block=news.block, lease_until_block=news.lease_until_block)
    _set(broadcast, news.values)
    return wire.News(broadcast=broadcast).SerializeToString()


def read_news(data: bytes) -> News:
    """What the server says. Raises MessageError."""
    given = parsed(wire.News, data)
    if given.HasField("start"):
        block = whole("block", given.start.block, MAX_BLOCK)
        return Start(block, number("in_s", given.start.in_s, -1e9, 1e9))
    check(given.HasField("broadcast"), "news must have a start or a broadcast")
    sent = given.broadcast
    values = {name: getattr(sent, name) for name in BROADCAST_NUMBERS if sent.HasField(name)}
    for name, value in values.items():
        number(name, value, -MOST if name == "price" else 0.0)
    return BroadcastNews(
        block=whole("block", sent.block, MAX_BLOCK),
        values=values,
        lease_until_block=whole("lease_until_block", sent.lease_until_block, 2**33),
    )


def write_leave(request: LeaveRequest) -> bytes:
    """The bytes of a farewell."""
    return wire.LeaveRequest(session=request.session).SerializeToString()


def read_leave(data: bytes) -> LeaveRequest:
    """A farewell. Raises MessageError."""
    return LeaveRequest(printable("session", parsed(wire.LeaveRequest, data).session, empty=False))
