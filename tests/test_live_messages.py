"""Messages: what is written is read again, and what breaks a rule is refused."""

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partway.errors import InputError
from partway.live import codec, tensors
from partway.live.checks import MOST
from partway.live.messages import (
    BlockRecord,
    BroadcastNews,
    DeviceConstants,
    InferReply,
    InferRequest,
    LeaveRequest,
    MessageError,
    Policy,
    RegisterReply,
    RegisterRequest,
    Report,
    Start,
)
from partway.live.plan import constants_of, controller_of, device_of
from partway.live.proto import control_pb2 as wire
from partway.live.proto import open_inference_pb2 as inference
from partway.schemes import SCHEMES, settable
from partway.system.world import World

RECORD = BlockRecord(3.0, 0.25, 2.0, 0.5, math.nan, 1e-3, 0.125, math.inf, 0b10010)
REPORT = Report("session", 7, 2.0, RECORD)
READERS: list[Callable[[bytes], Any]] = [
    *(codec.read_register, codec.read_registered, codec.read_report, codec.read_news, codec.read_leave),
    *(tensors.read_infer, tensors.read_inferred),
]
CONSTANTS = DeviceConstants(
    numbers={**dict.fromkeys(codec.NUMBERS, 0.5), "tx_power_max_w": math.inf},
    share=np.array([0.0, 0.5, 1.0]),
    bits=np.array([0.0, 1e6, 2e6]),
    feasible=np.array([True, True, False]),
    proportional=False,
    bits_per_task=0.0,
    laws="table",
    slots=5,
    max_tasks_per_block=3,
    objective="average",
)
POLICY = Policy("priced", {"decay": 0.7, "states": 16}, "priced", 5, "float32", ("price",))
TASK = {"a": np.zeros((2, 3), np.float16), "b": np.zeros((), np.int64)}
WHOLE = [
    codec.write_register(RegisterRequest(1, "0" * 64, "1" * 64, session="key")),
    codec.write_registered(RegisterReply(1, "key", CONSTANTS, POLICY, 2**30, 100, 2, 10, "a", "b")),
    codec.write_report(REPORT),
    codec.write_news(BroadcastNews(5, {"price": 0.5, "share": 0.25}, 15)),
    codec.write_leave(LeaveRequest("key")),
    tensors.write_infer(InferRequest("key", 5, 9, 0.75, "cut-2", TASK)),
    tensors.write_inferred(InferReply(5, 0.1, 0.2, TASK), "cut-2"),
]
"""A valid message for each of the readers."""
finite = st.floats(-MOST, MOST)
names = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20)


def same(one: Any, other: Any) -> bool:
    """Whether two records are equal; NaN equals NaN."""
    return repr(one) == repr(other)


@pytest.mark.parametrize("last", [None, RECORD, replace(RECORD, commanded_w=0.5, relative_change=math.nan)])
def test_a_report_is_read_as_it_was_written(last: BlockRecord | None):
    report = replace(REPORT, last=last)
    assert same(codec.read_report(codec.write_report(report)), report)


@given(finite, st.floats(0, MOST), st.integers(0, 2**32 - 1))
def test_news_are_read_as_they_were_written(price: float, backlog: float, block: int):
    news = BroadcastNews(block, {"price": price, "backlog": backlog}, block + 10)
    assert codec.read_news(codec.write_news(news)) == news
    assert codec.read_news(codec.write_news(Start(block, -0.5))) == Start(block, -0.5)


@given(st.none() | st.integers(0, 2**32 - 1), names)
def test_registration_is_read_as_it_was_written(device: int | None, name: str):
    request = RegisterRequest(device, name, "", 3)
    assert codec.read_register(codec.write_register(request)) == request
    assert codec.read_leave(codec.write_leave(LeaveRequest(name))) == LeaveRequest(name)


@pytest.mark.parametrize("number", range(4))
def test_a_device_is_what_it_was_before_it_was_told(mixed_world: World, number: int):
    """Every number of its record, bit for bit, of four devices no two of which are alike."""
    import jax

    device = jax.tree.map(lambda leaf: leaf[..., number], mixed_world.devices)
    policy = Policy("priced", {"decay": 0.7, "states": 16, "criterion": "average"}, "priced", 5, "float64", ("price",))
    reply = RegisterReply(number, "key", constants_of(device), policy, 2**32 - 1, 100, 2, 10, "a", "b")
    read = codec.read_registered(codec.write_registered(reply))
    assert replace(read, constants=reply.constants) == reply
    again = device_of(read.constants)
    assert jax.tree.structure(again) == jax.tree.structure(device)
    for mine, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(device), strict=True):
        assert mine.dtype == np.asarray(theirs).dtype
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if SCHEMES[name].preparation is None])
def test_hyperparameters_arrive(scheme: str):
    device = SCHEMES[scheme].device
    policy = Policy(scheme, settable(device), scheme, 0, "float32", device.uses_broadcast)
    assert type(controller_of(policy)) is type(device)
    assert settable(controller_of(policy)) == settable(device)


def test_a_peer_makes_nobody_import_code_or_allocate_tables():
    with pytest.raises(InputError, match="not known here"):
        controller_of(Policy("os:system", {}, "", 0, "float32"))
    with pytest.raises(InputError, match="states must be"):
        controller_of(Policy("priced", {"states": 10**9}, "", 0, "float32"))
    with pytest.raises(InputError, match="unknown field"):
        controller_of(Policy("priced", {"__class__": 1}, "", 0, "float32"))


@pytest.mark.parametrize("dtype", [*tensors.OF_NUMPY])
def test_tensors_travel_bit_for_bit(dtype: str):
    values = np.arange(-3, 9).reshape(2, 2, 3).astype(dtype)
    request = InferRequest("key", 5, 9, 0.75, "cut-2", {"a": values, "scalar": values[0, 0, 0], "empty": values[:0]})
    request = replace(request, label="mine")
    read = tensors.read_infer(tensors.write_infer(request))
    assert replace(read, tensors={}) == replace(request, tensors={})
    for name, tensor in request.tensors.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)
        assert (read.tensors[name].shape, read.tensors[name].dtype) == (tensor.shape, tensor.dtype)
    reply = tensors.read_inferred(tensors.write_inferred(InferReply(5, 0.1, 0.2, {"a": values}), "cut-2"))
    assert (reply.task, reply.wait_s, reply.run_s) == (5, 0.1, 0.2)
    some = inference.ModelInferResponse.FromString(
        tensors.write_inferred(InferReply(5, 0.1, 0.2, {"a": values, "b": values}), "cut-2", ["b"], "mine")
    )
    assert (some.id, some.model_name, some.model_version) == ("mine", "cut-2", "1")
    assert [one.name for one in some.outputs] == ["b"]
    np.testing.assert_array_equal(reply.outputs["a"], values)


PROTO = Path(wire.__file__).parent
FIELD = re.compile(r"^ +(optional |repeated )?(map<string, \w+>|[\w.]+) (\w+) = (\d+);", re.MULTILINE)


@pytest.mark.parametrize(("name", "module"), [("control", wire), ("open_inference", inference)])
def test_the_generated_code_is_that_of_the_proto_files(name: str, module: Any):
    """Every field of the text, and no other: `make protos` after a change."""
    text = (PROTO / f"{name}.proto").read_text("utf-8")
    written = sorted((field, int(number)) for _, _, field, number in FIELD.findall(text))
    messages = [*module.DESCRIPTOR.message_types_by_name.values()]
    for message in messages:  # which grows: messages inside messages
        messages.extend(inner for inner in message.nested_types if not inner.GetOptions().map_entry)
    generated = sorted((field.name, field.number) for message in messages for field in message.fields)
    assert written == generated
    assert len(written) > 20


def report_with(**changes: Any) -> bytes:
    """A report on a block in which something is wrong."""
    message = wire.Report.FromString(codec.write_report(REPORT))
    for name, value in changes.items():
        setattr(message.last if hasattr(message.last, name) and name != "queue" else message, name, value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("gain", 0.0, "gain must be"),
        ("gain", -1.0, "gain must be"),
        ("gain", math.nan, "gain must be"),
        ("gain", math.inf, "gain must be"),
        ("gain", 5e-324, "gain must be"),  # 0 in single precision
        ("queue", math.nan, "queue must be"),
        ("queue", -1.0, "queue must be"),
        ("queue", 0.5, "whole number"),
        ("queue", math.inf, "queue must be"),
        ("started", 4.0, "started must be at most"),
        ("offload", 1.5, "offload must be"),
        ("offload", math.nan, "offload must be"),
        ("energy_j", math.nan, "energy_j must be"),
        ("energy_j", -1.0, "energy_j must be"),
        ("energy_j", 1e300, "energy_j must be"),  # infinite in single precision
        ("power_w", math.inf, "power_w must be"),
        ("relative_change", -1.0, "relative_change"),
        ("block", 2**33, "block must be"),
        ("session", "", "session must have"),
        ("session", "a\nb", "session must have"),
        ("session", "a" * 1000, "session must have"),
    ],
)
def test_a_report_that_would_spoil_a_memory_is_refused(field: str, value: Any, why: str):
    with pytest.raises(MessageError, match=why):
        codec.read_report(report_with(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", math.nan),
        ("price", math.inf),
        ("price", -1e300),
        ("backlog", -1.0),
        ("share", math.nan),
        ("service_rate", -0.1),
    ],
)
def test_a_broadcast_that_would_spoil_a_memory_is_refused(field: str, value: float):
    news = wire.News(broadcast=wire.Broadcast(block=3, **{field: value}))
    with pytest.raises(MessageError, match=field):
        codec.read_news(news.SerializeToString())


def test_news_of_no_kind_are_refused():
    with pytest.raises(MessageError, match="start or a broadcast"):
        codec.read_news(b"")


def infer_with(change: Callable[[Any], object]) -> bytes:
    request = InferRequest("key", 5, 9, 0.75, "cut-2", {"a": np.zeros((2, 3), np.float32)})
    message = inference.ModelInferRequest.FromString(tensors.write_infer(request))
    change(message)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.parameters.pop("partway_session"), "partway_session must be a string_param"),
        (lambda m: m.parameters["partway_task"].CopyFrom(inference.InferParameter(double_param=1.0)), "int64_param"),
        (lambda m: m.parameters["partway_task"].CopyFrom(inference.InferParameter(int64_param=-1)), "partway_task"),
        (
            lambda m: m.parameters["partway_offload"].CopyFrom(inference.InferParameter(double_param=math.nan)),
            "partway_offload",
        ),
        (lambda m: m.raw_input_contents.append(b""), "one piece of bytes each"),
        (lambda m: setattr(m.inputs[0], "datatype", "BYTES"), "datatype must be"),
        (lambda m: m.inputs[0].shape.append(2), "do not fit"),
        (lambda m: m.inputs[0].shape.append(-1), "out of range"),
        (lambda m: m.inputs[0].shape.extend([2**40] * 20), "out of range"),
    ],
)
def test_a_task_that_breaks_a_rule_is_refused(change: Callable[[Any], object], why: str):
    with pytest.raises(MessageError, match=why):
        tensors.read_infer(infer_with(change))


@pytest.mark.parametrize("reader", READERS)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(reader: Callable[[bytes], Any], data: bytes):
    """Nothing but MessageError is raised, whatever arrives."""
    with contextlib.suppress(MessageError):
        reader(data)


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """A message with bytes changed, removed, repeated or added."""
    body = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, more = draw(st.integers(0, len(body))), draw(st.binary(max_size=12))
        end = at + draw(st.sampled_from([0, len(more), 30]))
        body[at:end] = draw(st.sampled_from([more, bytes(body[:40])]))
    return bytes(body)


@pytest.mark.parametrize(("reader", "whole"), [(reader, whole) for reader, whole in zip(READERS, WHOLE, strict=True)])
@given(st.data())
def test_a_damaged_message_is_read_or_refused(reader: Callable[[bytes], Any], whole: bytes, data: st.DataObject):
    reader(whole)
    with contextlib.suppress(MessageError):
        reader(data.draw(mutated(whole)))


@given(st.data())
def test_a_damaged_record_is_read_whole_or_refused(data: st.DataObject):
    """Whatever is read has finite numbers: nothing that passes can spoil a memory."""
    whole = bytearray(codec.write_report(REPORT))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        report = codec.read_report(bytes(whole))
    except MessageError:
        return
    assert math.isfinite(report.queue)
    if report.last is not None:
        assert report.last.gain > 0
        assert math.isfinite(report.last.energy_j + report.last.gain + report.last.queue)


def test_constants_that_no_device_can_have_are_refused(mixed_world: World):
    import jax

    constants = constants_of(jax.tree.map(lambda leaf: leaf[..., 0], mixed_world.devices))
    policy = Policy("local", {}, "local", 0, "float32")

    def read(changed: DeviceConstants) -> RegisterReply:
        return codec.read_registered(codec.write_registered(RegisterReply(0, "key", changed, policy, 1, 1, 2, 1)))

    read(constants)
    for name in ("capacity", "mean_gain", "snr_gap", "slot_s", "fleet_size"):
        with pytest.raises(MessageError, match=name):
            read(replace(constants, numbers={**constants.numbers, name: 0.0}))
    with pytest.raises(MessageError, match="tx_power_max_w"):
        read(replace(constants, numbers={**constants.numbers, "tx_power_max_w": math.nan}))
    with pytest.raises(MessageError, match="complete"):
        read(replace(constants, bits=constants.bits[:-1]))
    with pytest.raises(MessageError, match="slots_per_block"):
        read(replace(constants, slots=65))
