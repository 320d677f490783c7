"""Signals that end a command tidily: Ctrl-C, a request to terminate, a terminal that was closed.

Each becomes a KeyboardInterrupt that always takes effect, even where Python drops it or an extension module turns it
into another error.
"""

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

from partway.files import SIGNALS

RESEND_S = 0.05
"""How long after an interrupt was lost it is sent again."""
OURS = (signal.default_int_handler, signal.SIG_DFL)
"""The handlers of a process that does not ignore the signal: the system's default, and Python's for Ctrl-C."""


class _Received:
    """The first signal, and whether Python has lost the exception of the last one."""

    first: int | None = None
    lost = False


_received = _Received()


def install() -> None:
    """Note SIGNALS, and send them again where Python drops them. Must be called in the main thread.

    An exception in a destructor or in JAX's garbage-collection callback goes to `sys.unraisablehook`, and Python
    continues: the signal is sent again when that code has returned. A signal that is ignored, as Ctrl-C is in a
    background job of a shell and SIGHUP after `nohup`, stays so.
    """
    numbers = [number for number in SIGNALS if signal.getsignal(number) in OURS]
    if not numbers:
        return
    report: Callable[[Any], Any] = sys.unraisablehook
    main_thread = threading.get_ident()

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            _received.lost = True
            # a thread of the low-level module takes none of the locks that the interrupted code may hold
            _thread.start_new_thread(_resend, (main_thread, _received.first or signal.SIGINT))
        else:
            report(unraisable)

    for number in numbers:
        signal.signal(number, _note)
    sys.unraisablehook = hook


def ignore() -> None:
    """Ignore SIGNALS from now on: the process is about to end by itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def received() -> int | None:
    """The signal that asked for the end, if any; an error after it is taken for its consequence.

    A module that is interrupted while it is imported, for instance, may say that a package is missing.
    """
    return _received.first


@contextlib.contextmanager
def ending_by(end: Callable[[], object]) -> Generator[None]:
    """Call `end`, which must end the process, on a signal, instead of raising KeyboardInterrupt."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    noted = [number for number, handler in before.items() if handler is _note]

    def handle(number: int, frame: FrameType | None) -> None:
        _received.first = _received.first or number
        end()

    for number in noted:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in noted:
            signal.signal(number, before[number])


def _note(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt. After the first signal only Ctrl-C does so again, not a second request to terminate.

    A service manager may send SIGHUP after SIGTERM; that must not stop what the first one has begun to clean up.
    """
    again = _received.first is not None and not _received.lost
    _received.lost = False
    _received.first = _received.first or number
    if number == signal.SIGINT or not again:
        raise KeyboardInterrupt


def _resend(main_thread: int, number: int) -> None:
    time.sleep(RESEND_S)
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main_thread, number)  # wakes the thread where it waits
    else:
        _thread.interrupt_main()
