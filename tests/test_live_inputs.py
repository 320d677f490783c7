"""A device's own inputs: what is read, in which order it is run, and that its results are those of the network."""

import asyncio
import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from live_site import ended
from onnx_models import any_size, network, node, saved

from partway.cli.main import main
from partway.errors import InputError
from partway.live import demo, documents, inputs
from partway.live.accounts import metrics
from partway.live.agent import Agent, AgentLog, synthetic
from partway.live.clock import now, run_on_fake_clock
from partway.live.engine import Tensors
from partway.live.halves import Halves
from partway.live.inputs import Answer, Inputs, OwnTasks, Results, lines_of, results_folder, write_arrays
from partway.live.memory import MemoryLink
from partway.live.messages import RegisterReply
from partway.live.network import write_small_network
from partway.live.plan import make_plan
from partway.live.preflight import TOLERANCE
from partway.live.processes import serving
from partway.live.report import served_figures
from partway.live.service import Service
from partway.live.tasks import (
    ANSWERED,
    FAILED,
    FINISHED_HERE,
    LOCAL,
    WAITING,
    Rest,
    Source,
    TaskLog,
    Tasks,
    Timing,
)
from partway.live.workload import Workload
from partway.scenario.loading import load


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return Halves(write_small_network(tmp_path_factory.mktemp("network")), "fp16")


class Now:
    """Halves that compute in the loop: nobody waits for a thread, and a clock may skip."""

    def __init__(self, halves: Halves):
        self._halves = halves

    async def front(self, share: float, number: int, given: Tensors | None, device: int) -> tuple[str, Tensors]:
        return self._halves.front_now(share, number, given, device)

    async def back(self, model: str, tensors: Tensors) -> Tensors:
        return self._halves.back_now(model, tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._halves, name)


FAST: dict[str, Any] = {"slot_s": 0.01, "group.*.cpu_max_hz": 5e9}
"""Blocks of 50 ms, in which a device can finish two tasks and a half."""


class Law(Workload):
    """A task in every slot of two, or in none."""

    def __init__(self, arrives: int):
        self._arrives = arrives

    def arrivals(self, block: int) -> np.ndarray:
        return np.full(2, self._arrives)

    def expected(self, block: int) -> np.ndarray:
        return self.arrivals(block)

    def gain(self, block: int) -> float:
        return 1.0


def image(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).integers(0, 256, (1, 3, 32, 32)) / 255).astype(np.float32)


def images(folder: Path, count: int) -> dict[str, np.ndarray]:
    """So many files of images, written in another order than that of their names: by name."""
    made = {f"{'abcdefghijklmnop'[i]}.npy": image(i) for i in range(count)}
    for name in reversed(made):
        np.save(folder / name, made[name])
    return made


Make = Callable[[Workload], Workload]


def run(
    engine: Any,
    folder: Path,
    tasks: Make,
    scheme: str = "priced",
    blocks: int = 80,
    real: bool = False,
    on_service: Callable[[Service], object] = lambda service: None,
    **changes: Any,
) -> AgentLog:
    """A run of one device, which has to send."""
    profile = demo.write_network_profile(engine.profile, folder)
    scenario = load(demo.scenario_for(engine.profile, profile), {"devices": 1} | changes)
    plan = make_plan(scenario, scheme, blocks=blocks, seed=1)

    async def together() -> AgentLog:
        service = Service(plan, engine)
        on_service(service)

        def workload(reply: RegisterReply) -> Workload:
            return tasks(synthetic(reply))

        running = asyncio.create_task(service.run())
        log = await Agent(MemoryLink(service, 0.001), engine, workload=workload).run()
        await running
        return log

    return asyncio.run(together()) if real else run_on_fake_clock(together())


def right(halves: Halves, given: np.ndarray, found: Mapping[str, Any], exact: bool) -> None:
    """The result is that of the whole network: bit for bit, or as near as tensors that are sent as float16 allow."""
    expected = halves.whole_now(0, {"image": given})
    assert set(found) == set(expected)
    for name, value in expected.items():
        limit = 0.0 if exact else TOLERANCE * float(np.abs(value).max())
        assert np.abs(np.asarray(found[name]) - value).max() <= limit


# A folder


@pytest.mark.parametrize("scheme", ["priced", "full"])
def test_a_folder_is_run_once_in_the_order_of_names(halves: Halves, tmp_path: Path, scheme: str):
    """Task k has the k-th file, arrives when the k-th task of the scenario's law does, and its result is right."""
    given = images(tmp_path, 12)
    (tmp_path / "out").mkdir()
    results, made = Results(tmp_path / "out", None), list[OwnTasks]()
    read = Inputs([str(tmp_path / name) for name in given], halves.read, results)
    law = list[int]()

    def own(laws: Workload) -> Workload:
        law.extend(int(laws.arrivals(block).sum()) for block in range(80))
        made.append(OwnTasks(laws, read, as_read=False))
        return made[0]

    log = run(Now(halves), tmp_path, own, scheme)
    read.close()
    assert made[0].over
    assert len(log.late_s) < 80  # it has left before the end of the run
    tasks = sorted(log.tasks, key=lambda task: task.number)
    assert [task.block for task in tasks] == [block for block, count in enumerate(law) for _ in range(count)][:12]
    assert {task.outcome for task in tasks} <= {ANSWERED, LOCAL}
    assert sum(task.outcome == ANSWERED for task in tasks) > 2
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        f"{number:06d}-{Path(name).stem}.npz" for number, name in enumerate(given)
    ]
    assert (results.written, results.fault) == (12, "")
    for task, (name, value) in zip(tasks, given.items(), strict=True):
        with np.load(tmp_path / "out" / f"{task.number:06d}-{Path(name).stem}.npz") as found:
            right(halves, value, found, exact=task.outcome == LOCAL or task.offload == 1.0)


def test_blocks_after_the_only_device_has_left_do_not_count(halves: Halves, tmp_path: Path):
    """The server runs to its end; what it prints is the cost of the blocks with the device."""
    given = images(tmp_path, 3)
    (tmp_path / "out").mkdir()
    read = Inputs([str(tmp_path / name) for name in given], halves.read, Results(tmp_path / "out", None))
    served = list[Service]()
    log = run(Now(halves), tmp_path, lambda laws: OwnTasks(laws, read, as_read=False), on_service=served.append)
    read.close()
    (service,), blocks = served, len(log.late_s)
    measured = metrics(service.ledger, service.plan, service.party.changes, None)
    document = documents.of_server(service.plan, service.ledger, measured, None, "")
    assert document["reports"] == [1] * blocks + [0] * (80 - blocks)
    cost = np.asarray(measured.cost())[0]
    assert cost[blocks:].max() == 0 < cost[:blocks].max()
    assert served_figures(document)[0].cost == pytest.approx(cost[blocks // 2 : blocks].mean())


def test_inputs_that_the_run_leaves_have_no_result(halves: Halves, tmp_path: Path):
    given = images(tmp_path, 16)
    (tmp_path / "out").mkdir()
    results = Results(tmp_path / "out", None)
    read = Inputs([str(tmp_path / name) for name in given], halves.read, results)
    log = run(Now(halves), tmp_path, lambda laws: OwnTasks(laws, read, as_read=False), blocks=6)
    read.close()
    done = [task for task in log.tasks if task.outcome != WAITING]
    assert 0 < len(done) == results.written == len(list((tmp_path / "out").iterdir())) < 16
    assert results.fault == "the run has ended"


def test_random_inputs_are_those_of_the_device(halves: Halves):
    """Two tasks of device 3 that arrive in block 0 and are run in block 1."""
    drawn = list[tuple[int, int]]()

    class Noting(Now):
        async def front(self, share: float, number: int, given: Tensors | None, device: int) -> tuple[str, Tensors]:
            drawn.append((device, number))
            assert given is None
            return await super().front(share, number, given, device)

    async def nobody(rest: Rest) -> None:
        raise AssertionError

    class Randomly(Source):
        pass

    async def both() -> None:
        tasks = Tasks(3, Noting(halves), Timing(now(), 0.1, 2), nobody, Randomly())
        tasks.arrive(0, np.ones(2))
        tasks.start(1, 2, 0.0)
        assert await tasks.drain() == []

    run_on_fake_clock(both())
    assert drawn == [(3, 0), (3, 1)]


# Standard input


def test_every_line_is_answered(halves: Halves, tmp_path: Path):
    """Good ones by the network's output, bad ones by what is wrong; the device leaves when there are no more lines."""
    given = images(tmp_path, 5)
    np.save(tmp_path / "wrong.npy", np.zeros((2, 2), np.float32))
    (tmp_path / "text.npy").write_text("no array")
    lines = [*(str(tmp_path / name) for name in given), *(str(tmp_path / bad) for bad in ("wrong.npy", "text.npy")), ""]
    reading, writing = os.pipe()
    os.write(writing, "\n".join([*lines, "missing.npy"]).encode())  # the last one without an end
    os.close(writing)
    said = list[str]()
    read = Inputs(lines_of(reading), halves.read, Results(None, said.append))
    log = run(halves, tmp_path, lambda laws: OwnTasks(laws, read, as_read=True), real=True, **FAST)
    read.close()
    os.close(reading)
    answers = {answer["input"]: answer for answer in map(json.loads, said)}
    assert set(answers) == {*lines, "missing.npy"}
    assert [task.number for task in sorted(log.tasks, key=lambda task: task.number)] == list(range(5))
    for name, value in given.items():
        answer = answers[str(tmp_path / name)]
        assert answer["outcome"] in (LOCAL, ANSWERED, FINISHED_HERE)
        assert sum(answer["stages_s"].values()) == pytest.approx(answer["latency_s"])
        right(halves, value, answer["outputs"], exact=answer["outcome"] == LOCAL)
    errors = [answers[line]["error"] for line in (lines[5], lines[6], "", "missing.npy")]
    assert "the network reads float32 of (1, 3, 32, 32)" in errors[0]
    assert all("is not a file of inputs" in error for error in errors[1:])


def test_a_task_arrives_when_its_line_is_read_and_one_in_a_slot():
    """Three lines before a block of two slots ends: two tasks in it, the third in the next, each with its own time."""
    read = Inputs(["a", "b", "c"], lambda path: {"path": np.array(str(path))}, lambda answer: None)
    read.ahead.wait()
    own = OwnTasks(Law(0), read, as_read=True)
    assert [own.arrivals(block).tolist() for block in range(3)] == [[1, 1], [1, 0], [0, 0]]
    moments = [own.arrived(number) for number in range(3)]
    assert moments == sorted(moments, key=lambda moment: moment or 0.0)
    assert [own.inputs(number) for number in range(3)] == [{"path": np.array(path)} for path in "abc"]
    assert not own.over
    for number in range(3):
        own.failed(TaskLog(0, number, 0, 0.0), "no")
    assert own.over


@pytest.mark.parametrize("as_read", [True, False])
def test_what_is_expected_arrives_if_no_more_is_read(monkeypatch: pytest.MonkeyPatch, as_read: bool):
    """To ask changes nothing. Five inputs, at most three of them open, two slots in a block."""
    monkeypatch.setattr(inputs, "MAX_OPEN", 3)
    read = Inputs("abcde", lambda path: {}, lambda answer: None)
    own, seen = OwnTasks(Law(1), read, as_read), list[list[int]]()
    own.prepare()
    for block in range(6):
        read.ahead.wait()
        expected = [own.expected(block), own.expected(block)]
        seen.append(own.arrivals(block).tolist())
        assert [np.asarray(one).tolist() for one in expected] == [seen[-1], seen[-1]]
        if block == 2:
            own.ended(TaskLog(0, 0, 0, 0.0), {})
    assert seen[:3] == [[1, 1], [1, 0], [0, 0]]


def test_no_more_is_read_than_may_be_open(monkeypatch: pytest.MonkeyPatch):
    """Whoever writes the lines waits, until one is answered and its answer is written."""
    monkeypatch.setattr(inputs, "MAX_OPEN", 3)
    taken, wrote, let = list[int](), threading.Semaphore(0), threading.Semaphore(0)
    more = threading.Semaphore(0)

    def lines() -> Iterator[str]:
        for line in range(10):
            taken.append(line)
            more.release()
            yield str(line)

    def slow(answer: Answer) -> None:
        wrote.release()
        let.acquire()

    read = Inputs(lines(), lambda path: {}, slow)
    read.ahead.wait()
    assert taken == [0, 1, 2]
    for _ in range(3):
        more.acquire()
    read.answer(Answer("0"))
    wrote.acquire()
    assert taken == [0, 1, 2]  # the answer is being written
    let.release()
    more.acquire()
    assert taken == [0, 1, 2, 3]


def test_a_device_takes_no_more_than_may_be_open(monkeypatch: pytest.MonkeyPatch):
    """A folder does not make the loop wait for a place that only a result can free."""
    monkeypatch.setattr(inputs, "MAX_OPEN", 3)
    own = OwnTasks(Law(1), Inputs(map(str, range(9)), lambda path: {}, lambda answer: None), as_read=False)
    own.prepare()
    assert [own.arrivals(block).sum() for block in range(3)] == [2, 1, 0]
    own.ended(TaskLog(0, 1, 0, 0.0), {})
    came = 0
    for block in range(3, 503):  # its place has been freed once it is answered, and the next one read
        came = own.arrivals(block).sum()
        if came:
            break
        time.sleep(0.01)
    assert came == 1
    assert own.arrivals(503).sum() == 0


def test_an_answer_that_fails_unexpectedly_is_raised_at_the_end_and_the_others_are_written():
    written = list[str]()

    def answer(one: Answer) -> None:
        if one.given == "0":
            raise RuntimeError("a fault of ours")
        written.append(one.given)

    read = Inputs(["0", "1", "2"], lambda path: {}, answer)
    assert read.ahead.wait(10)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        read.close()
    assert written == ["1", "2"]


# Files


def test_a_file_that_does_not_fit_is_refused(halves: Halves, tmp_path: Path):
    good = image(0)
    cases: dict[str, tuple[Any, str]] = {
        "large.npy": (good * 2, "numbers from 0 to 2; an image travels in 8 bits, its numbers must be from 0 to 1"),
        "nan.npy": (np.where(good > 0.5, np.nan, good), "numbers from nan to nan"),
        "bytes.npy": ((good * 255).astype(np.uint8), "numbers from 0 to 255"),
        "shape.npy": (good[0], r"the network reads float32 of \(1, 3, 32, 32\)"),
        "complex.npy": (good.astype(np.complex64), "complex64"),
        "pickle.npy": (np.array([{}], object), "allow_pickle=False"),
    }
    for name, (array, why) in cases.items():
        np.save(tmp_path / name, array, allow_pickle=True)
        with pytest.raises(InputError, match=why):
            halves.read(tmp_path / name)
    np.save(tmp_path / "double.npy", good.astype(np.float64))
    np.testing.assert_array_equal(halves.read(tmp_path / "double.npy")["image"], good)


@pytest.mark.parametrize("shape", [(1, 3, 12, 10), (2, 3, 8, 8)])
def test_inputs_have_the_shape_that_is_given(tmp_path: Path, shape: tuple[int, ...]):
    """A file with open sizes: what comes from both halves is what onnxruntime computes with the file itself."""
    path = saved(tmp_path, any_size())
    halves = Halves(path, "fp16", shapes={"x": shape})
    np.save(tmp_path / "wrong.npy", np.zeros((1, 3, 9, 9), np.float32))
    with pytest.raises(InputError, match=re.escape(f"the network reads float32 of {shape}")):
        halves.read(tmp_path / "wrong.npy")
    given = {f"{k}.npy": (np.random.default_rng(k).integers(0, 256, shape) / 255).astype("float32") for k in range(6)}
    for name, value in given.items():
        np.save(tmp_path / name, value)
    (tmp_path / "out").mkdir()
    read = Inputs([str(tmp_path / name) for name in given], halves.read, Results(tmp_path / "out", None))
    log = run(Now(halves), tmp_path, lambda laws: OwnTasks(laws, read, as_read=False), "full")
    read.close()
    assert [task.outcome for task in log.tasks].count(ANSWERED) >= 2
    whole = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for number, value in enumerate(given.values()):
        (expected,) = whole.run(None, {"x": value})
        with np.load(tmp_path / "out" / f"{number:06d}-{number}.npz") as found:
            assert found["y"].shape == (shape[0], 5)
            np.testing.assert_allclose(found["y"], expected, atol=TOLERANCE * np.abs(expected).max())


def test_a_network_with_several_inputs_reads_them_by_name(tmp_path: Path):
    """NaN is a number like others where nothing is coded in 8 bits."""
    nodes = [node("Add", "x y", "h"), node("MatMul", "h w", "z")]
    path = saved(tmp_path, network(nodes, {"x": (1, 4), "y": (1, 4)}, ["z"], {"w": (4, 2)}))
    halves = Halves(path, "fp32")
    x, y = np.float32([[1, 2, 3, np.nan]]), np.float32([[5, 6, 7, -1e9]])
    np.savez(tmp_path / "both.npz", y=y, x=x, more=x)
    given = halves.read(tmp_path / "both.npz")
    assert set(given) == {"x", "y"}
    expected = halves.whole_now(0, given)
    for share in halves.shares[halves.shares > 0]:
        model, tensors = halves.front_now(float(share), 0, given)
        np.testing.assert_array_equal(halves.back_now(model, tensors)["z"], expected["z"])
    np.savez(tmp_path / "one.npz", x=x)
    with pytest.raises(InputError, match="has no array 'y'"):
        halves.read(tmp_path / "one.npz")


def test_an_input_that_the_network_cannot_compute_fails_alone(tmp_path: Path):
    """An index that is out of range: that task fails at either side, the others have their results."""
    nodes = [node("Gather", "w i", "row"), node("Relu", "row", "r"), node("MatMul", "r v", "y")]
    made = network(nodes, {"i": (1,)}, ["y"], {"w": (3, 64), "v": (64, 64)}, types={"i": onnx.TensorProto.INT64})
    halves = Halves(saved(tmp_path, made), "fp16")
    paths = list[str]()
    for number, index in enumerate([0, 7, 2, 9, 1]):
        paths.append(str(tmp_path / f"{number}.npy"))
        np.save(paths[-1], np.array([index]))
    said = list[str]()
    read = Inputs(paths, halves.read, Results(None, said.append))
    log = run(Now(halves), tmp_path, lambda laws: OwnTasks(laws, read, as_read=False))
    read.close()
    outcomes = [task.outcome for task in sorted(log.tasks, key=lambda task: task.number)]
    assert [outcome == FAILED for outcome in outcomes] == [False, True, False, True, False]
    answers = sorted(map(json.loads, said), key=lambda answer: answer["task"])
    assert ["outputs" in answer for answer in answers] == [True, False, True, False, True]
    assert all("onnxruntime cannot run the network" in answers[failed]["error"] for failed in (1, 3))


# Results


def test_arrays_may_have_any_name_and_any_number(tmp_path: Path):
    arrays = {"file": np.float32([np.nan, np.inf]), "/model/out:0": np.arange(3), "": np.float16(2)}
    write_arrays(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert set(found) == set(arrays)
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype


def test_a_result_that_cannot_be_written_is_said_and_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    task, said = TaskLog(0, 0, 0, 0.0, 1.0, 2.0, answered=2.0, outcome=LOCAL), list[str]()
    results = Results(tmp_path, said.append)

    def full(path: Path, arrays: Tensors) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "write_arrays", full)
        results(Answer("a.npy", task, {"y": np.ones(1)}))
    results(Answer("b.npy", replace(task, number=1), {"y": np.array([np.nan])}))
    first, second = map(json.loads, said)
    assert "cannot be written (No space left on device)" in first["error"]
    assert second["output"] == str(tmp_path / "000001-b.npz")
    assert results.written == 1
    assert "No space left" in results.fault


def test_values_in_a_line_are_exact_and_what_json_has_no_word_for_is_null():
    said = list[str]()
    values = np.float32([[0.1, np.nan, -np.inf]])
    Results(None, said.append)(Answer("a", TaskLog(0, 3, 0, 0.0, answered=1.0, outcome=LOCAL), {"y": values}))
    answer = json.loads(said[0])
    assert answer["outputs"] == {"y": [[float(np.float32(0.1)), None, None]]}
    assert answer["task"] == 3


def test_a_device_leaves_when_nobody_reads_its_answers():
    def broken(line: str) -> None:
        raise BrokenPipeError

    results = Results(None, broken)
    reading, writing = os.pipe()  # a driver that is silent
    own = OwnTasks(Law(0), Inputs(lines_of(reading), lambda path: {}, results), True, lambda: results.closed)
    assert not own.over
    results(Answer("a", error="no"))
    assert own.over
    os.close(writing)


# The command


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--outputs new", "--outputs needs --inputs or --stdin"),
        ("--inputs images", "--inputs needs --outputs DIR"),
        ("--inputs images --stdin", "not allowed with argument --inputs"),
        ("--inputs images --outputs images", "--outputs 'images': is not empty"),
        ("--inputs images --outputs new --count 2", "--inputs is for one device, got --count 2"),
        ("--stdin --json -", "--json -: standard output has the answers of --stdin"),
        ("--inputs new --outputs other", "--inputs 'new': cannot be read"),
        ("--inputs empty --outputs new", "--inputs 'empty': has no .npz or .npy files"),
        ("--inputs bad --outputs new", "the network reads float32 of (1, 3, 32, 32)"),
    ],
)
def test_what_does_not_fit_is_said_before_the_device_joins(
    flags: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for name, array in (("images", image(0)), ("bad", np.zeros(3))):
        Path(name).mkdir()
        np.save(Path(name) / "a.npy", array)
    Path("empty").mkdir()
    assert main(["join", "127.0.0.1:1", *flags.split()]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


def test_a_folder_for_results_is_new_or_empty(tmp_path: Path):
    assert results_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "a" / "b" / "old.npz").touch()
    with pytest.raises(InputError, match="is not empty"):
        results_folder(tmp_path / "a" / "b")


@pytest.mark.slow
def test_another_program_drives_a_device_by_pipes(halves: Halves, tmp_path: Path):
    """Over sockets: it gives one line after the other, reads each answer, and ends the device by closing the pipe."""
    given = images(tmp_path, 8)
    flags = ["--set", "devices=2", "--blocks", "120"]
    with serving(tmp_path, *flags) as fleet:
        (tmp_path / "folder").mkdir()
        images(tmp_path / "folder", 4)
        folder = ["--inputs", str(tmp_path / "folder"), "--outputs", str(tmp_path / "out")]
        fleet.start("folder", "join", fleet.target, "--device", "1", *folder)
        command = [sys.executable, "-m", "partway", "join", fleet.target, "--device", "0", "--stdin"]
        with subprocess.Popen(
            command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as device:
            assert device.stdin is not None
            assert device.stdout is not None
            for name, value in given.items():
                device.stdin.write(f"{name}\n")
                device.stdin.flush()
                answer = json.loads(device.stdout.readline())
                assert answer["input"] == name
                right(halves, value, answer["outputs"], exact=answer["outcome"] == LOCAL)
            device.stdin.write("missing.npy\n")
            device.stdin.close()
            assert "is not a file of inputs" in json.loads(device.stdout.readline())["error"]
            assert device.stdout.read() == ""
            assert device.stderr is not None
            said = device.stderr.read()
            assert device.wait(60) == 0
        assert "joined" in said
        assert "tasks that arrived" in said
        ended(fleet, "folder", within_s=60)
        assert len(list((tmp_path / "out").iterdir())) == 4
        for number, (name, value) in enumerate(images(tmp_path / "folder", 4).items()):
            with np.load(tmp_path / "out" / f"{number:06d}-{Path(name).stem}.npz") as found:
                right(halves, value, found, exact=False)
        ended(fleet, "server", within_s=120)


@pytest.mark.slow
def test_a_device_ends_with_the_run_while_its_standard_input_is_open(tmp_path: Path):
    """A line that is not read is not answered; the thread that waits for one keeps nobody from ending."""
    with serving(tmp_path, "--set", "devices=1", "--blocks", "8") as fleet:
        command = [sys.executable, "-m", "partway", "join", fleet.target, "--stdin"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as device:
            assert device.wait(120) == 0
            assert device.stdout is not None
            assert device.stdout.read() == b""
        ended(fleet, "server", within_s=60)


@pytest.mark.slow
def test_the_program_of_the_page_gets_its_answers(tmp_path: Path):
    """docs/live.md: two images, two answers."""
    page = (Path(__file__).parents[1] / "docs" / "live.md").read_text("utf-8")
    (program,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "--stdin" in one)
    (tmp_path / "images").mkdir()
    for k in range(2):
        np.save(tmp_path / "images" / f"{k}.npy", image(k))
    with serving(tmp_path, "--set", "devices=1", "--blocks", "200") as fleet:
        program = program.replace("127.0.0.1:7070", fleet.target)
        program = program.replace('["partway"', f'[{sys.executable!r}, "-m", "partway"')
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
        )
    outcomes = [line.split()[0] for line in done.stdout.splitlines()]
    assert len(outcomes) == 2
    assert set(outcomes) <= {LOCAL, ANSWERED}


def test_the_network_of_the_page_normalises_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """docs/live.md: on numbers from 0 to 1 it gives what the network without it gives on normalised ones; it is cut."""
    page = (Path(__file__).parents[1] / "docs" / "live.md").read_text("utf-8")
    (program,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "normalised" in one)
    write_small_network(tmp_path).rename(tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    mean, deviation = (np.float32(part).reshape(1, 3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    given = image(0)
    (expected,) = onnxruntime.InferenceSession("net.onnx").run(None, {"image": (given - mean) / deviation})
    cut = Halves(tmp_path / "normalising.onnx", "fp16")
    for share in cut.shares:
        name, sent = cut.front_now(float(share), 0, {"image": given})
        found = cut.back_now(name, sent) if name else sent
        np.testing.assert_allclose(found["scores"], expected, atol=TOLERANCE * np.abs(expected).max())
