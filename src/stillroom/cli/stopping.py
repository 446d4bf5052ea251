"""Stop as people, shells and queues ask for it: Ctrl-C, SIGTERM and SIGHUP are one thing, and a second one is no traceback.

Light, for it comes before everything else is imported: until then a Ctrl-C would end in a traceback of imports.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE_S = 2.0
"""So long after the first signal others change nothing: a key that is pressed twice asks for the same thing."""
_AGAIN_S = 0.05


class Stop(KeyboardInterrupt):
    """A signal that asks to stop; where it comes from matters to the exit code alone.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number


def exit_code(stop: KeyboardInterrupt) -> int:
    """128 and the signal's number, as shells have it: 130, 143 or 129."""
    return 128 + (stop.number if isinstance(stop, Stop) else signal.SIGINT)


def heed() -> dict[int, Any]:
    """From now on the first signal raises :class:`Stop`, and one that comes much later ends the process at once.

    A signal that is ignored, as SIGHUP under nohup, stays so.

    Returns:
        What was done before, by signal; empty where it was this already, or in another thread than the main one.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = any(isinstance(found, _Handler) for found in before.values())
    if heeded or threading.current_thread() is not threading.main_thread():
        return {}
    handler = _Handler()
    replaced = {number: found for number, found in before.items() if found is not signal.SIG_IGN}
    for number in replaced:
        signal.signal(number, handler)
    sys.unraisablehook = _raised_again(sys.unraisablehook)
    return replaced


@contextmanager
def stoppable() -> Iterator[None]:
    """:func:`heed` inside this block, and what was done before after it."""
    hook, before = sys.unraisablehook, heed()
    try:
        yield
    finally:
        if before:
            sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def die_quietly() -> None:
    """From now on a signal ends the process without a word: nothing is left to be said or tidied up.

    Call it as the process ends. One that ends because of a signal keeps that signal's exit code.
    """
    ending = sys.exception()
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if isinstance(handler, _Handler) and isinstance(ending, SystemExit) and ending.code == 128 + handler.number:
            handler.is_done = True
        elif handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class _Handler:
    """Of the signals; remembers the first one and when it came. Make it before all else that is to be done at exit."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.number, self.is_done = 0, False
        atexit.register(self._end)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.is_done:
            os._exit(128 + self.number)
        if self.first is None:
            self.first, self.number = now, number
            raise Stop(number)
        if now - self.first > GRACE_S:
            os.write(2, b"error: Stopped at once.\n")
            os._exit(128 + number)  # files are written whole, and locks and children end with the process

    def _end(self) -> None:
        """Last of all at exit: what Python does after it takes a while, and puts the signals' own ends back first."""
        if self.is_done:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):  # closed, or none at all
                    stream.flush()
            os._exit(128 + self.number)


def _raised_again(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    """An exception in a destructor is printed and lost: one that is to stop the process is sent once more instead."""

    def again(lost: Any) -> None:
        if not isinstance(lost.exc_value, Stop):
            hook(lost)
            return
        number = lost.exc_value.number
        handler = signal.getsignal(number)
        if isinstance(handler, _Handler):
            handler.first = None
            timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()

    return again
