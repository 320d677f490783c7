"""Checks before a live run, none of which needs more than this machine; each says what it found."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from partway.errors import InputError
from partway.live import cpu, extra
from partway.live.credentials import Files

if TYPE_CHECKING:
    from partway.live.halves import Halves

Check = Callable[[], str]
TASKS = 3
"""Inputs on which every cut is tried."""
TOLERANCE = 0.02
"""Largest error of a cut tensor sent as float16, as a share of the largest output."""
PAUSES, PAUSE_S = 50, 0.01
MAX_LATE_S = 0.005
"""How late a pause may end, 99 times of 100: more would show in slots of 50 ms."""


def checks(
    network: "Callable[[Path], Halves]",
    server: str | None,
    files: Files,
    kind: str = cpu.PACING,
    cpu_path: Path | None = None,
) -> list[tuple[str, Check]]:
    """What is checked, in order: a name and a function that says what it found, or raises InputError.

    network         makes the halves; it may write files to the folder that it is given
    server          one that should answer, to which a device with these files connects
    files           are read in any case
    kind, cpu_path  of the CPU (`partway.live.cpu`)
    """
    made: list[tuple[str, Check]] = [("packages", _packages), ("clock", _clock)]
    made += [("CPU", lambda: _cpu(kind, cpu_path))] if kind != cpu.PACING else []
    if not extra.missing():
        made += [("network", lambda: _network(network)), ("port", _port)]
        made += [("credentials", lambda: _credentials(files))] if files != Files() else []
        made += [("server", lambda: _server(server, files))] if server else []
    return made


def _packages() -> str:
    extra.require()
    names = [*extra.PACKAGES.values()]
    for what, packages in extra.PACKAGES_FOR.items():
        extra.require_for(what)
        names += packages.values()
    return f"{', '.join(names)} are installed"


def _clock() -> str:
    late = list[float]()
    for _ in range(PAUSES):
        due = time.monotonic() + PAUSE_S
        time.sleep(PAUSE_S)
        late.append(time.monotonic() - due)
    worst = float(np.percentile(late, 99))
    if worst > MAX_LATE_S:
        raise InputError(f"timers are {1e3 * worst:.1f} ms late (99 %): stop other programs, or use longer slots")
    return f"timers are {1e3 * float(np.median(late)):.2f} ms late (median), {1e3 * worst:.2f} ms (99 %)"


def _cpu(kind: str, folder: Path | None) -> str:
    with cpu.taken(kind, folder) as taken:
        return taken.about


def _network(network: "Callable[[Path], Halves]") -> str:
    with tempfile.TemporaryDirectory(prefix="partway-live-") as folder:
        halves = network(Path(folder))
        worst, longest = 0.0, 0.0
        for number in range(TASKS):
            whole = halves.whole_now(number)
            for share in halves.shares:
                began = time.perf_counter()
                name, tensors = halves.front_now(float(share), number)
                outputs = halves.back_now(name, tensors) if name else tensors
                longest = max(longest, time.perf_counter() - began)
                worst = max([worst, *(_error(whole[output], outputs[output]) for output in outputs)])
    if worst > TOLERANCE:
        raise InputError(
            f"a cut changes the result by {worst:.2g} of its largest number when tensors travel as float16"
        )
    cuts = f"{len(halves.shares)} cuts, each within {worst:.1g} of the whole network"
    return f"{halves.profile.name}, {halves.given}: {cuts}; a task takes up to {1e3 * longest:.1f} ms on this CPU"


def _error(expected: np.ndarray, given: np.ndarray) -> float:
    """The largest difference, as a share of the largest number."""
    largest = float(np.max(np.abs(expected.astype(float)), initial=0.0))
    difference = float(np.max(np.abs(expected.astype(float) - given.astype(float)), initial=0.0))
    return difference / largest if largest else difference


def _port() -> str:
    from partway.live.grpc_client import GrpcLink
    from partway.live.grpc_server import GrpcServer

    async def probe() -> float:
        server = GrpcServer(None)
        try:
            port = await server.start("127.0.0.1:0")
        except OSError as error:
            raise InputError(f"no server can listen at 127.0.0.1: {error}") from None
        link = GrpcLink(f"127.0.0.1:{port}")
        try:
            await link.probe()
            began = time.perf_counter()
            await link.probe()
            return time.perf_counter() - began
        finally:
            await link.close()
            await server.stop(0)

    return f"a server here answers in {1e3 * asyncio.run(probe()):.1f} ms"


def _credentials(files: Files) -> str:
    files.secret()
    files.for_device()
    given = {"certificate and key": files.cert, "certificate of a CA": files.ca, "token": files.token}
    return f"{', '.join(name for name, path in given.items() if path is not None)}: can be used"


def _server(target: str, files: Files) -> str:
    from partway.live import endpoints
    from partway.live.grpc_client import GrpcLink
    from partway.live.messages import Refused

    token, credentials = files.secret(), files.for_device()
    endpoints.check_secret(target, credentials is not None, token)

    async def probe() -> None:
        link = GrpcLink(target, token, credentials)
        try:
            await link.probe()
        finally:
            await link.close()

    try:
        asyncio.run(probe())
    except Refused as error:
        if error.code == "UNAUTHENTICATED" and files.token is None:
            return f"{target} answers, and asks for a token"
        raise InputError(endpoints.reason_of(target, error)) from None
    return f"{target} answers"
