"""A sweep on a running Dask cluster: everything that knows Dask."""

import contextlib
import re
from collections.abc import Generator
from concurrent.futures import Executor
from importlib import import_module
from typing import Any

from partway.errors import InputError, shorten, shown

CONNECT_TIMEOUT_S = 20
ADDRESS = re.compile(r"(?:(?:tcp|tls|ucx|wss?)://)?[^/\s]+:\d+")


@contextlib.contextmanager
def dask_executor(address: str) -> Generator[Executor]:
    """An executor for a Dask scheduler; calls that are unfinished when the block ends are cancelled.

    Raises InputError where Dask is not installed or no scheduler answers at `address`.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise InputError("--dask: needs Dask; install it with pip install 'partway[cluster]'") from None
    # checked here: for a malformed address distributed leaves a half-made client, which warns when it is deleted
    if not ADDRESS.fullmatch(address):
        raise InputError(f"--dask {shown(address)}: expected a scheduler's address, such as tcp://10.0.0.1:8786")
    try:
        client = distributed.Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # a TimeoutError is an OSError
        why = shorten(str(error) or type(error).__name__, 120)
        raise InputError(f"--dask {shown(address)}: no Dask scheduler answers ({why})") from None
    try:
        yield client.get_executor(pure=False)
    finally:
        client.close()


def scheduler_gone(executor: Executor) -> bool:
    """Whether a Dask client has given up its scheduler; its futures would then never finish."""
    client: Any = getattr(executor, "_client", None)  # the executor has no public way back to its client
    return getattr(client, "status", "running") in ("closing", "closed")
