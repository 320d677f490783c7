"""The page over HTTP: three files and the state as JSON, for browsers on this machine alone."""

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Generator
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from partway.dashboard.comparison import Comparison
from partway.dashboard.follow import SUFFIX
from partway.dashboard.live import LiveRun
from partway.dashboard.view import Page
from partway.errors import InputError, shown
from partway.formatting import host_port
from partway.netcdf import DATASET

STATIC = files("partway.dashboard") / "static"
TYPES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""Names by which a browser may call this machine: a page from elsewhere cannot read the state by a name of its own."""
START_S = 10.0


class Source(Protocol):
    """Where the page comes from."""

    def page(self) -> Page:
        """The page as of now."""
        ...


def source_of(folder: Path) -> Source:
    """What is in a folder: a finished comparison, or a live run. Raises InputError where it is neither."""
    if (folder / DATASET).exists():
        return Comparison(folder)
    if any(folder.glob(f"*{SUFFIX}")):
        return LiveRun(folder)
    given = shown(str(folder), 100)
    cure = "give a folder of `partway compare --out` or `partway live --events`"
    raise InputError(f"{given}: {'holds no results' if folder.is_dir() else 'is not a folder'}; {cure}")


def make_app(source: Source) -> Starlette:
    """The application."""
    lock = threading.Lock()

    def current() -> Response:
        with lock:  # a source reads its files from where it was
            return JSONResponse(source.page().as_json(), headers=HEADERS)

    async def state(request: Request) -> Response:
        del request
        return await run_in_threadpool(current)

    async def static(request: Request) -> Response:
        name = request.path_params.get("name", "page.html")
        if name not in TYPES:
            return Response("not found", 404, HEADERS)
        return Response((STATIC / name).read_bytes(), headers=HEADERS, media_type=TYPES[name])

    routes = [Route("/", static), Route("/state", state), Route("/{name}", static)]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))])


@contextlib.contextmanager
def serving(source: Source, address: tuple[str, int]) -> Generator[str]:
    """Serve the page in a thread while the block runs; gives its URL.

    Raises InputError for an address that other machines can reach, or where it cannot listen.
    """
    host, port = address
    if host != "localhost" and not _is_loopback(host):
        raise InputError(
            f"{shown(host)}: the page has no password, so it can be opened on this machine only; from another "
            "machine use `ssh -L PORT:127.0.0.1:PORT`"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as held:
        try:
            listener = held.enter_context(socket.socket(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except OSError as error:
            raise InputError(f"cannot listen at {host_port(host, port)}: {error}") from None
        config = uvicorn.Config(make_app(source), log_level="critical", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        _wait_for(server)
        try:
            yield f"http://{host_port(host, listener.getsockname()[1])}/"
        finally:
            server.should_exit = True
            thread.join(START_S)


def _wait_for(server: uvicorn.Server) -> None:
    end = time.monotonic() + START_S
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
