"""Time: the event loop's own, which is monotonic; and a loop whose time passes only when nobody has anything to do."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def now() -> float:
    """The time [s] of the running loop."""
    return asyncio.get_running_loop().time()


async def sleep_until(moment: float) -> None:
    """Return at `moment` [s] of the running loop's time; if it has passed, when others have had a turn."""
    await asyncio.sleep(max(0.0, moment - now()))


def run_on_fake_clock(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and all that it starts, in as little time as it takes to compute.

    Raises RuntimeError where all tasks wait for each other. What threads do is not waited for.
    """
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main)


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual time: instead of waiting until a moment it takes it for the present."""

    present = 0.0

    def __init__(self) -> None:
        super().__init__(_Skipping(self))

    def time(self) -> float:
        return self.present


class _Skipping(selectors.DefaultSelector):
    """Tells its loop how long it would have waited."""

    def __init__(self, loop: FakeTimeLoop):
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("every task waits for another one")
            self._loop.present += max(timeout, 0.0)
        return ready
