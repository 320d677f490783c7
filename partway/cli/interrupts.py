"""Ctrl-C that always takes effect, even where Python drops it or an extension module turns it into another error."""

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, NoReturn

RESEND_S = 0.05
"""How long after Ctrl-C was lost it is sent again."""
_pressed = threading.Event()


def install() -> None:
    """Note every Ctrl-C, and send it again where Python drops it. Must be called in the main thread.

    An exception in a destructor or in JAX's garbage-collection callback goes to `sys.unraisablehook`, and Python
    continues: the signal is sent again when that code has returned. Where Ctrl-C is ignored, as in a background job of
    a shell, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    report: Callable[[Any], Any] = sys.unraisablehook
    main_thread = threading.get_ident()

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            # a thread of the low-level module takes none of the locks that the interrupted code may hold
            _thread.start_new_thread(_resend, (main_thread,))
        else:
            report(unraisable)

    signal.signal(signal.SIGINT, _note)
    sys.unraisablehook = hook


def pressed() -> bool:
    """Whether Ctrl-C was pressed; an error after it is taken for its consequence.

    A module that is interrupted while it is imported, for instance, may say that a package is missing.
    """
    return _pressed.is_set()


@contextlib.contextmanager
def ending_by(end: Callable[[], object]) -> Generator[None]:
    """Call `end`, which must end the process, on Ctrl-C, instead of raising KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)
    if before is _note:
        signal.signal(signal.SIGINT, lambda number, frame: end())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _note(number: int, frame: FrameType | None) -> NoReturn:
    _pressed.set()
    raise KeyboardInterrupt


def _resend(main_thread: int) -> None:
    time.sleep(RESEND_S)
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main_thread, signal.SIGINT)  # wakes the thread where it waits
    else:
        _thread.interrupt_main()
