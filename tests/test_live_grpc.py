"""The same parties over sockets: gRPC on loopback, and what the server refuses."""

import asyncio
import contextlib
import hashlib
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from live_site import certificates

from partway.cli.main import main
from partway.errors import InputError
from partway.live import demo, endpoints, grpc_client
from partway.live.accounts import metrics, stages
from partway.live.agent import PASSING, Agent
from partway.live.credentials import Files
from partway.live.grpc_client import UNWRITTEN, GrpcLink
from partway.live.grpc_server import ATTEND, INFER, MAX_CONTROL_BYTES, REGISTER, GrpcServer
from partway.live.halves import Halves
from partway.live.messages import InferRequest, LeaveRequest, Refused, RegisterRequest, Report
from partway.live.network import write_small_network
from partway.live.plan import LivePlan, make_plan
from partway.live.service import Service
from partway.live.tasks import ANSWERED
from partway.measurement.latency import end_of_run
from partway.scenario.loading import load
from partway.simulation.rollout import rollout

BLOCKS = 12


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Halves, LivePlan]:
    folder = tmp_path_factory.mktemp("network")
    path = write_small_network(folder)
    halves = Halves(path, "fp16")
    scenario = load(
        demo.scenario_for(halves.profile, demo.write_network_profile(halves.profile, folder)),
        {"device.arrival_prob": 0.3},
    )
    model = {"model_sha256": halves.sha256, "model_words": halves.words}
    plan = make_plan(scenario, "priced", blocks=BLOCKS, seed=1, lease_blocks=200, **model)
    return path, halves, plan


@asynccontextmanager
async def listening(
    plan: LivePlan, halves: Halves | None = None, token: str = ""
) -> AsyncIterator[tuple[Service, int]]:
    service = Service(plan, halves)
    server = GrpcServer(service, token, halves.max_bytes() if halves else 0)
    port = await server.start("127.0.0.1:0")
    try:
        yield service, port
    finally:
        await server.stop(0)


def test_four_devices_on_sockets_cost_what_the_simulation_costs(network: tuple[Path, Halves, LivePlan]):
    """A real network, real sockets and a real clock: the same actions, and every task that is sent is answered."""
    _, halves, plan = network

    async def main() -> tuple[Service, list[Any]]:
        async with listening(plan, halves) as (service, port):
            links = [GrpcLink(f"127.0.0.1:{port}") for _ in range(plan.devices)]
            agents = [Agent(link, halves, RegisterRequest(number)) for number, link in enumerate(links)]
            running = asyncio.create_task(service.run(60.0))
            logs = await asyncio.gather(*(agent.run() for agent in agents))
            await running
            for link in links:
                await link.close()
            return service, list(logs)

    service, logs = asyncio.run(main())
    tasks = [task for log in logs for task in log.tasks]
    sent = [task for task in tasks if task.outcome == ANSWERED]
    assert len(sent) == service.ledger.received == service.ledger.answered > 0
    assert service.ledger.duplicates == 0
    simulated = rollout(plan.world, plan.pair, plan.stream, [plan.seed], BLOCKS, precision="float32").metrics
    measured = metrics(service.ledger, plan, service.party.changes, None)
    np.testing.assert_array_equal(measured.arrived, simulated.arrived)
    assert len(service.ledger.records) == BLOCKS * plan.devices
    if not service.ledger.late and not any(log.misses for log in logs):  # on a loaded machine messages come too late
        np.testing.assert_allclose(measured.cost(), np.asarray(simulated.cost()), rtol=1e-4)
    of = stages(tasks, end_of_run(BLOCKS, plan.slots, plan.slot_s))
    assert of.network >= 0
    assert of.latency == pytest.approx(sum(of.delays.values()) + of.network)


def refused(call: Callable[[GrpcLink], Awaitable[Any]], plan: LivePlan, token: str = "", own: str = "") -> Refused:
    """How a call is refused."""

    async def main() -> Refused:
        async with listening(plan, token=token) as (_, port):
            link = GrpcLink(f"127.0.0.1:{port}", own)
            try:
                with pytest.raises(Refused) as caught:
                    await call(link)
                return caught.value
            finally:
                await link.close()

    return asyncio.run(main())


async def first_news(link: GrpcLink, session: str) -> None:
    async def reports() -> AsyncIterator[Report]:
        yield Report(session, 0, 0.0)
        await asyncio.sleep(5)

    async for _ in link.attend(reports()):
        return


async def twice(link: GrpcLink) -> None:
    """Register all devices, and one more."""
    for _ in range(5):
        await link.register(RegisterRequest())


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda link: link.register(RegisterRequest(version=99)), "FAILED_PRECONDITION"),
        (lambda link: link.register(RegisterRequest(scenario_sha256="0" * 64)), "FAILED_PRECONDITION"),
        (lambda link: link.register(RegisterRequest(model_sha256="0" * 64)), "FAILED_PRECONDITION"),
        (lambda link: link.register(RegisterRequest(4)), "INVALID_ARGUMENT"),
        (twice, "RESOURCE_EXHAUSTED"),
        (lambda link: link.leave(LeaveRequest("nobody")), "UNAUTHENTICATED"),
        (lambda link: link.infer(InferRequest("nobody", 0, 0, 0.5), 5.0), "UNAUTHENTICATED"),
        (lambda link: first_news(link, "nobody"), "UNAUTHENTICATED"),
        (lambda link: link._called(link._register, b"\xff\xff", 5.0), "INVALID_ARGUMENT"),
        (lambda link: link._called(link._infer, b"\xff\xff", 5.0), "INVALID_ARGUMENT"),
        (lambda link: link._called(link._register, b"\x00" * (MAX_CONTROL_BYTES + 1), 20.0), "RESOURCE_EXHAUSTED"),
    ],
)
def test_the_server_says_why_it_refuses(
    call: Callable[[GrpcLink], Awaitable[Any]], code: str, network: tuple[Path, Halves, LivePlan]
):
    assert refused(call, network[2]).code == code


@pytest.mark.parametrize("own", ["", "x" * 32])
def test_without_the_token_nothing_is_answered(own: str, network: tuple[Path, Halves, LivePlan]):
    secret, no_token = "0123456789abcdef", ("UNAUTHENTICATED", "the token is missing or wrong")
    for call, allowed in (
        (lambda link: link.probe(), [no_token]),
        (lambda link: link.register(RegisterRequest()), [no_token]),
        (lambda link: link.infer(InferRequest("nobody", 0, 0, 0.5), 5.0), [no_token]),
        # the server may end the stream while the first report is written: gRPC then loses its reason
        (lambda link: first_news(link, "nobody"), [no_token, ("UNAVAILABLE", "the stream has ended")]),
    ):
        why = refused(call, network[2], secret, own)
        assert (why.code, why.reason) in allowed


def test_a_task_that_is_sent_twice_is_done_once(network: tuple[Path, Halves, LivePlan]):
    _, halves, plan = network

    async def main() -> tuple[Service, list[Any]]:
        async with listening(plan, halves) as (service, port):
            link = GrpcLink(f"127.0.0.1:{port}")
            session = (await link.register(RegisterRequest())).session
            model, tensors = halves.front_now(float(halves.shares[4]), 0)
            request = InferRequest(session, 7, 0, float(halves.shares[4]), model, tensors)
            stream = asyncio.create_task(attend_silently(link, session))
            while not service._sessions.attending():
                await asyncio.sleep(0.01)
            running = asyncio.create_task(service.run(0.01))
            answers = await asyncio.gather(*(link.infer(request, 20.0) for _ in range(3)))
            running.cancel()
            stream.cancel()
            await link.close()
            return service, answers

    service, answers = asyncio.run(main())
    assert (service.ledger.received, service.ledger.duplicates) == (1, 2)
    expected = halves.whole_now(0)["scores"]
    for answer in answers:
        np.testing.assert_allclose(answer.outputs["scores"], expected, atol=1e-2)


def test_only_a_device_that_the_ca_has_signed_can_speak(tmp_path: Path, network: tuple[Path, Halves, LivePlan]):
    certificates(tmp_path)
    own = {name: (tmp_path / f"{name}.pem", tmp_path / f"{name}.key") for name in ("device", "expired", "foreign")}
    ca, stranger = tmp_path / "ca.pem", tmp_path / "stranger.pem"
    server = Files(tmp_path / "server.pem", tmp_path / "server.key", ca).for_server()

    async def main() -> list[str]:
        listener = GrpcServer(Service(network[2]))
        port = await listener.start("127.0.0.1:0", server)
        devices = {
            "signed": Files(*own["device"], ca).for_device(),
            "no certificate": Files(ca=ca).for_device(),
            "one of yesterday": Files(*own["expired"], ca).for_device(),
            "one by another CA": Files(*own["foreign"], ca).for_device(),
            "another server": Files(*own["device"], stranger).for_device(),
            "no encryption": None,
        }
        reached = list[str]()
        for name, credentials in devices.items():
            link = GrpcLink(f"localhost:{port}", credentials=credentials)
            with contextlib.suppress(Refused):
                await link.probe()
                reached.append(name)
            await link.close()
        await listener.stop(0)
        return reached

    assert asyncio.run(main()) == ["signed"]


def test_why_a_server_does_not_let_a_device_join_is_said_in_words(tmp_path: Path):
    """At once where waiting does not help."""
    certificates(tmp_path)
    own = Files(tmp_path / "server.pem", tmp_path / "server.key").for_server()
    expired, early = (
        Files(tmp_path / f"{name}.pem", tmp_path / f"{name}.key").for_server() for name in ("expired", "early")
    )
    asking = Files(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem").for_server()
    ca, stranger = (Files(ca=tmp_path / f"{name}.pem").for_device() for name in ("ca", "stranger"))
    made: dict[str, Any] = {"token": "t" * 16, "credentials": ca}

    async def main() -> dict[str, str]:
        secured, *others = servers = GrpcServer(None, "t" * 16), *(GrpcServer(None) for _ in range(5))
        plain, renamed, late, soon, strict = others
        port, open_port = await secured.start("127.0.0.1:0", own), await plain.start("127.0.0.1:0")
        here, found = f"localhost:{port}", dict[str, str]()
        for name, target, change, wait_s in (
            ("wrong token", here, {"token": "u" * 16}, 60.0),
            ("another CA", here, {"credentials": stranger}, 60.0),
            ("another name", f"127.0.0.2:{await renamed.start('127.0.0.2:0', own)}", {}, 60.0),
            ("expired", f"localhost:{await late.start('127.0.0.1:0', expired)}", {}, 60.0),
            ("early", f"localhost:{await soon.start('127.0.0.1:0', early)}", {}, 60.0),
            ("no TLS there", f"localhost:{open_port}", {}, 60.0),
            ("no TLS here", here, {"credentials": None}, 60.0),
            ("no certificate", f"127.0.0.1:{await strict.start('127.0.0.1:0', asking)}", {}, 0.0),
            ("nobody there", "127.0.0.1:1", {}, 0.0),
        ):
            with pytest.raises(InputError) as refused:
                await endpoints.join(target, None, RegisterRequest(), wait_s=wait_s, **(made | change))
            found[name] = str(refused.value).replace(target, "HERE")
        for server in servers:
            await server.stop(0)
        return found

    began, found = time.monotonic(), asyncio.run(main())
    assert time.monotonic() - began < 50
    none = "no server answers at HERE: "
    assert found == {
        "wrong token": "HERE: the token is missing or wrong, see --token-file",
        "another CA": f"{none}no CA of --tls-ca has signed its certificate",
        "another name": f"{none}its certificate is for another name",
        "expired": f"{none}its certificate has expired",
        "early": f"{none}its certificate is not valid yet; is the time right on both machines?",
        "no TLS there": f"{none}it does not speak TLS, which --tls-ca asks for",
        "no TLS here": f"{none}it speaks TLS, give --tls-ca",
        "no certificate": f"{none}it closes the connection; with --tls-client-ca it asks for --tls-cert and --tls-key",
        "nobody there": f"{none}nothing listens there",
    }


def test_a_token_travels_to_other_machines_encrypted_alone():
    endpoints.check_secret("127.0.0.1:7070", secured=False, token="t" * 16)
    endpoints.check_secret("edge.local:7070", secured=True, token="t" * 16)
    with pytest.raises(InputError, match=r"would be sent to 'edge.local:7070' unencrypted"):
        endpoints.check_secret("edge.local:7070", secured=False, token="t" * 16)


def test_a_port_that_is_taken_is_said():
    async def main() -> str:
        first = GrpcServer(None)
        port = await first.start("127.0.0.1:0")
        with pytest.raises(OSError) as refused:  # noqa: PT011
            await GrpcServer(None).start(f"127.0.0.1:{port}")
        await first.stop(0)
        return str(refused.value)

    assert asyncio.run(main()) == "Address already in use"


def test_certificates_that_do_not_fit_are_refused_with_their_names(tmp_path: Path):
    certificates(tmp_path)
    (tmp_path / "junk").write_text("junk")
    at = {name: tmp_path / name for name in ("junk", "server.pem", "server.key", "device.key")}
    for cert, key in (("junk", "junk"), ("server.pem", "device.key"), ("server.key", "server.pem")):
        with pytest.raises(InputError, match=r"--tls-cert .* must be a certificate and its private key"):
            Files(at[cert], at[key]).for_server()
    with pytest.raises(InputError, match=r"--tls-ca .*must hold a certificate"):
        Files(ca=at["junk"]).for_device()
    with pytest.raises(InputError, match=r"--tls-client-ca .*must hold a certificate"):
        Files(at["server.pem"], at["server.key"], at["junk"]).for_server()


@pytest.mark.parametrize("secret", ["", "short", "x" * 10 + "\n" + "y" * 10])
def test_a_token_that_can_be_guessed_is_refused(secret: str, tmp_path: Path):
    file = tmp_path / "token"
    file.write_text(secret)
    with pytest.raises(InputError, match="16 printable characters"):
        Files(token=file).secret()


def test_files_that_belong_together_are_asked_for(tmp_path: Path):
    with pytest.raises(InputError, match="give both"):
        Files(cert=tmp_path / "cert").for_server()
    with pytest.raises(InputError, match="needs --tls-cert"):
        Files(ca=tmp_path / "ca").for_server()
    with pytest.raises(InputError, match=r"--tls-ca .* cannot be read"):
        Files(ca=tmp_path / "ca").for_device()


async def attend_silently(link: GrpcLink, session: str) -> None:
    async def reports() -> AsyncIterator[Report]:
        yield Report(session, 0, 0.0)
        await asyncio.Event().wait()

    async for _ in link.attend(reports()):
        pass


@pytest.mark.parametrize(
    ("address", "secured", "accepted"),
    [
        ("127.0.0.1:0", False, True),
        ("localhost:7070", False, True),
        ("[::1]:7070", False, True),
        ("0.0.0.0:7070", False, False),
        ("[::]:7070", False, False),
        ("192.168.1.2:7070", False, False),
        ("edge.local:7070", False, False),
        ("0.0.0.0:7070", True, True),
        ("7070", False, False),
        ("127.0.0.1:port", False, False),
        ("127.0.0.1:70700", False, False),
    ],
)
def test_nobody_else_can_connect_without_encryption_and_a_secret(address: str, secured: bool, accepted: bool):
    if accepted:
        endpoints.check_address(address, secured, secured)
        return
    with pytest.raises(InputError, match="--bind"):
        endpoints.check_address(address, secured, secured)


def test_what_a_server_lacks_that_others_can_reach_is_named():
    with pytest.raises(InputError, match="machines: give --tls-cert and --tls-key, or bind"):
        endpoints.check_address("0.0.0.0:7070", encrypted=False, asks=True)
    with pytest.raises(InputError, match="machines: give --token-file or --tls-client-ca, or bind"):
        endpoints.check_address("0.0.0.0:7070", encrypted=True, asks=False)


def test_a_stream_that_ends_while_a_report_is_written_may_be_opened_again():
    """gRPC then says that the error is internal; a device that took it for the server's word would never come back."""
    lost = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), UNWRITTEN)
    assert grpc_client._refused(lost).code in PASSING
    real = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "cannot be computed"
    )
    assert grpc_client._refused(real).code not in PASSING


def test_a_device_with_another_network_is_told_so(network: tuple[Path, Halves, LivePlan]):
    path, halves, plan = network
    service, file = Service(plan), hashlib.sha256(path.read_bytes()).hexdigest()
    expected = f"this server runs another network than yours: small.onnx (SHA-256 {file[:12]}...), image=1x3x32x32"
    larger = Halves(path, "fp16", shapes={"image": (1, 3, 64, 64)})
    for theirs in ("0" * 64, larger.sha256):
        with pytest.raises(Refused, match=re.escape(expected)):
            service.register(RegisterRequest(model_sha256=theirs))
    same = Halves(path, "fp16", shapes={"image": (1, 3, 32, 32)})
    assert same.sha256 == halves.sha256


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"no server answers at 127\.0\.0\.1:1: "):
        asyncio.run(endpoints.join("127.0.0.1:1", None, RegisterRequest(), wait_s=0.3))


def test_a_device_waits_for_a_server_that_starts_later():
    """It says so once, however often it tries."""

    async def main() -> list[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        said, link = list[str](), GrpcLink(f"127.0.0.1:{port}")
        reaching = asyncio.create_task(endpoints.reach(link, 60.0, lambda error: said.append(error.code)))
        await asyncio.sleep(1.0)
        assert not reaching.done()
        server = GrpcServer(None)
        await server.start(f"127.0.0.1:{port}")
        await reaching
        await link.close()
        await server.stop(0)
        return said

    assert asyncio.run(main()) == ["UNAVAILABLE"]


def test_a_device_gives_up_after_the_time_that_it_is_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert main(["join", "127.0.0.1:1", "--wait", "0.5"]) == 2
    said = capsys.readouterr()
    assert said.out == "no server answers at 127.0.0.1:1: nothing listens there; trying again for 0.5 s\n"
    assert said.err == "partway: no server answers at 127.0.0.1:1: nothing listens there\n"
    given = dict[str, float]()

    async def join(*positional: Any, wait_s: float, **named: Any) -> list[Any]:
        given["wait_s"] = wait_s
        raise InputError("enough")

    monkeypatch.setattr(endpoints, "join", join)
    assert main(["join", "127.0.0.1:1"]) == 2
    assert given == {"wait_s": 120.0}


def test_models_are_described_in_the_words_of_the_protocol(network: tuple[Path, Halves, LivePlan]):
    """What ModelMetadata says of a model, ModelInfer takes; another name is not found."""
    from partway.live.proto import open_inference_pb2 as inference

    _, halves, plan = network

    async def main() -> tuple[Any, list[bool], Refused]:
        async with listening(plan, halves) as (_, port):
            link = GrpcLink(f"127.0.0.1:{port}")

            async def ask(method: str, request: Any) -> bytes:
                call = link._channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
                return await link._called(call, request.SerializeToString(), 5.0)

            described = await ask("ModelMetadata", inference.ModelMetadataRequest(name="cut-3"))
            ready = [
                inference.ModelReadyResponse.FromString(
                    await ask("ModelReady", inference.ModelReadyRequest(name=name))
                ).ready
                for name in ("cut-3", "cut-99")
            ]
            with pytest.raises(Refused) as caught:
                await ask("ModelMetadata", inference.ModelMetadataRequest(name="cut-99"))
            await link.close()
            return inference.ModelMetadataResponse.FromString(described), ready, caught.value

    described, ready, why = asyncio.run(main())
    assert (ready, why.code) == ([True, False], "NOT_FOUND")
    kinds = {"FP16": np.float16, "FP32": np.float32, "UINT8": np.uint8}
    sent = {one.name: np.zeros(list(one.shape), kinds[one.datatype]) for one in described.inputs}
    assert sent
    assert halves.refusal("cut-3", sent) is None
    outputs = {name: (value.dtype, value.shape) for name, value in halves.back_now("cut-3", sent).items()}
    assert {one.name: (kinds[one.datatype], tuple(one.shape)) for one in described.outputs} == outputs


def test_the_paths_are_those_of_the_proto_files():
    from partway.live.proto import control_pb2, open_inference_pb2

    control = control_pb2.DESCRIPTOR.services_by_name["Control"]
    inference = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert f"/{control.full_name}/{control.methods_by_name['Register'].name}" == REGISTER
    assert f"/{control.full_name}/{control.methods_by_name['Attend'].name}" == ATTEND
    assert f"/{inference.full_name}/{inference.methods_by_name['ModelInfer'].name}" == INFER
