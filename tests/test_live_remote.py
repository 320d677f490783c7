"""Back halves that another server of the Open Inference Protocol computes: the same results, and clear words if not."""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from live_site import devices_of, ended, outcomes

from partway.cli.main import main
from partway.dnn.runtime import Session
from partway.dnn.triton import model_file
from partway.errors import InputError
from partway.live import tensors as wire
from partway.live.halves import Halves
from partway.live.messages import MessageError, Refused
from partway.live.network import write_small_network
from partway.live.processes import serving
from partway.live.proto import open_inference_pb2 as inference
from partway.live.remote import Remote
from partway.live.tasks import ANSWERED, FINISHED_HERE

KSERVE = Path(os.environ.get("PARTWAY_KSERVE", Path(__file__).parents[1] / ".venv" / "kserve" / "bin" / "python"))
"""An environment of its own: its requirements are not ours."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Halves, Path]:
    folder = tmp_path_factory.mktemp("models")
    halves = Halves(write_small_network(folder), "fp16")
    repository = folder / "repository"
    repository.mkdir()
    halves.write_models(repository)
    return halves, repository


def computed(repository: Path, request: Any) -> Any:
    """What a server of the protocol answers, in a few lines."""
    session = Session(model_file(repository, request.model_name))
    given = {
        one.name: np.frombuffer(raw, wire.DATATYPES[one.datatype]).reshape(list(one.shape))
        for one, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }
    names = [one.name for one in request.outputs]
    reply = inference.ModelInferResponse(model_name=request.model_name)
    results = session.run(given)
    for name, value in ((name, results[name]) for name in names):
        reply.outputs.add(name=name, datatype=wire.OF_NUMPY[value.dtype.name], shape=value.shape)
        reply.raw_output_contents.append(value.tobytes())
    return reply


@asynccontextmanager
async def inference_server(
    repository: Path, answer: Callable[[Path, Any], Any] = computed, has: Callable[[str], bool] = lambda name: True
) -> AsyncIterator[str]:
    async def infer(data: bytes, context: Any) -> bytes:
        return answer(repository, inference.ModelInferRequest.FromString(data)).SerializeToString()

    async def ready(data: bytes, context: Any) -> bytes:
        name = inference.ModelReadyRequest.FromString(data).name
        return inference.ModelReadyResponse(ready=has(name)).SerializeToString()

    server: Any = grpc.aio.server()
    methods: dict[str, Any] = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
        "ModelReady": grpc.unary_unary_rpc_method_handler(ready),
    }
    handlers = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        await server.stop(0)


def test_a_remote_back_half_gives_what_the_local_one_gives(site: tuple[Halves, Path]):
    halves, repository = site

    async def every_cut() -> None:
        async with inference_server(repository) as address:
            remote = Remote(halves, address)
            await remote.check()
            for share in halves.shares:
                model, sent = halves.front_now(float(share), 3)
                if not model:
                    continue
                mine, theirs = halves.back_now(model, sent), await remote.back(model, sent)
                assert list(mine) == list(theirs)
                for name, value in mine.items():
                    np.testing.assert_array_equal(theirs[name], value)

    asyncio.run(every_cut())


def test_a_server_without_the_models_is_named_before_the_run(site: tuple[Halves, Path]):
    halves, repository = site

    async def check() -> None:
        async with inference_server(repository, has=lambda name: name == "cut-0") as address:
            with pytest.raises(InputError, match=r"it has no model cut-\d+; `partway serve --write-models DIR`"):
                await Remote(halves, address).check()
        with pytest.raises(InputError, match="UNAVAILABLE"):
            await Remote(halves, "grpc://127.0.0.1:1").check()

    asyncio.run(check())


def renamed(repository: Path, request: Any) -> Any:
    reply = computed(repository, request)
    reply.outputs[0].name = "another"
    return reply


def flattened(repository: Path, request: Any) -> Any:
    reply = computed(repository, request)
    del reply.outputs[0].shape[:1]
    return reply


def broken(repository: Path, request: Any) -> Any:
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(renamed, MessageError), (flattened, MessageError), (broken, Refused)],
    ids=lambda one: one.__name__,
)
def test_an_answer_that_does_not_fit_is_no_result(
    answer: Callable[[Path, Any], Any], error: type[Exception], site: tuple[Halves, Path]
):
    halves, repository = site

    async def ask() -> None:
        async with inference_server(repository, answer) as address:
            model, sent = halves.front_now(float(halves.shares[-1]), 0)
            with pytest.raises(error):
                await Remote(halves, address).back(model, sent)

    asyncio.run(ask())


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "http://127.0.0.1:9000", "grpc://host", "grpc://:1", "grpc://"])
def test_an_engine_has_an_address(address: str, site: tuple[Halves, Path]):
    with pytest.raises(InputError, match="--engine must be grpc://HOST:PORT"):
        Remote(site[0], address)


def test_models_are_written_as_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "repository"
    assert main(["serve", "--write-models", str(out)]) == 0
    assert "cut-0" in capsys.readouterr().out
    assert (out / "cut-0" / "1" / "model.onnx").exists()
    assert 'name: "cut-0"' in (out / "cut-0" / "config.pbtxt").read_text()
    assert main(["serve", "--write-models", str(out)]) == 2


@pytest.mark.slow
@pytest.mark.skipif(not KSERVE.exists(), reason="`make test-slow` installs kserve into .venv/kserve")
def test_a_kserve_model_server_computes_the_back_halves(tmp_path: Path, site: tuple[Halves, Path]):
    """Server and devices as processes; a third one is KServe's: every task that is sent comes back by it."""
    halves, repository = site
    log, served = tmp_path / "kserve.log", tmp_path / "served"
    command = [str(KSERVE), str(Path(__file__).with_name("kserve_server.py")), str(repository), str(served)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            address = _address(log, process)
            _compare(halves, address)
            with serving(tmp_path, "--blocks", "40", "--engine", address) as fleet:
                fleet.start("devices", "join", fleet.target, "--device", "0", "--count", "4")
                ended(fleet, "server", "devices", within_s=120)
                counted, document = outcomes(devices_of(fleet, "devices")), fleet.document("server")
        finally:
            process.kill()
    assert counted[ANSWERED] == document["tasks"]["answered"] > 10
    assert counted[FINISHED_HERE] == 0
    assert len(served.read_text()) >= counted[ANSWERED]  # a letter for each


def _address(log: Path, process: "subprocess.Popen[bytes]") -> str:
    """Where it listens, once it does."""
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text("utf-8", "replace").splitlines():
            if line.startswith("grpc://"):
                return line
        time.sleep(0.2)
    raise AssertionError(log.read_text("utf-8", "replace")[-2000:])


def _compare(halves: Halves, address: str) -> None:
    async def ask() -> None:
        remote = Remote(halves, address)
        for _ in range(100):
            try:
                await remote.check()
                break
            except InputError:
                await asyncio.sleep(0.3)
        for share in halves.shares[1:]:
            model, sent = halves.front_now(float(share), 1)
            if model:
                for name, value in (await remote.back(model, sent)).items():
                    np.testing.assert_allclose(value, halves.back_now(model, sent)[name], rtol=1e-5, atol=1e-6)

    asyncio.run(ask())
