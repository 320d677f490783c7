"""A sweep on a running Dask cluster: everything that speaks to Dask."""

import contextlib
import re
from collections.abc import Generator
from concurrent.futures import Executor
from importlib import import_module
from typing import Any

from partway.errors import InputError, shorten, shown

PATIENCE_S = 20
ADDRESS = re.compile(r"(?:(?:tcp|tls|ucx|wss?)://)?[^/\s]+:\d+")


@contextlib.contextmanager
def dask_executor(address: str) -> Generator[Executor]:
    """An executor that a Dask scheduler stands behind; what is left there when the block ends is withdrawn.

    Raises InputError where Dask is not installed or nobody answers at `address`.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise InputError("--dask: needs Dask; install it with pip install 'partway[cluster]'") from None
    if not ADDRESS.fullmatch(
        address
    ):  # distributed leaves a half-made client behind, which complains when it is deleted
        raise InputError(f"--dask {shown(address)}: expected a scheduler's address, such as tcp://10.0.0.1:8786")
    try:
        client = distributed.Client(address, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # a TimeoutError is an OSError
        why = shorten(str(error) or type(error).__name__, 120)
        raise InputError(f"--dask {shown(address)}: no Dask scheduler answers there ({why})") from None
    try:
        yield client.get_executor(pure=False)
    finally:
        client.close()


def scheduler_gone(executor: Executor) -> bool:
    """Whether a Dask client has given up its scheduler: its futures then never end."""
    client: Any = getattr(executor, "_client", None)
    return getattr(client, "status", "running") in ("closing", "closed")
