"""Several processes that serve on one port: started, told of signals, started again where one falls, and ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from stillroom.errors import RunError, StillroomError
from stillroom.serving import log
from stillroom.serving.settings import COUNTS_VARIABLE, ServeSettings

_FALLS = 5
"""So many processes may fall within a minute; then something is wrong that no new start mends."""
_TICK_S = 0.1


def serve_in_processes(settings: ServeSettings, port: int, started: Callable[[], object]) -> None:
    """Serve with ``settings.workers`` processes until this one is told to stop.

    Args:
        settings: of the server.
        port: that is held already, so that no other server takes it.
        started: called when all accept requests.

    Raises:
        RunError: processes fall one after another.
    """
    with tempfile.TemporaryDirectory(prefix="stillroom-counts-") as place:
        os.environ[COUNTS_VARIABLE] = place
        try:
            _Family(replace(settings, port=port), Path(place)).run(started)
        finally:
            del os.environ[COUNTS_VARIABLE]


class _Family:
    def __init__(self, settings: ServeSettings, place: Path) -> None:
        self._settings, self._place = settings, place
        self._context = multiprocessing.get_context("spawn")
        self._ready = self._context.Semaphore(0)
        self._processes: list[BaseProcess] = []
        self._ending, self._falls = False, list[float]()

    def run(self, started: Callable[[], object]) -> None:
        before = {
            number: signal.signal(number, self._told) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            self._processes = [self._start() for _ in range(self._settings.workers)]
            waiting = self._settings.workers
            while any(process.is_alive() for process in self._processes) or not self._ending:
                while waiting and self._ready.acquire(block=False):
                    waiting -= 1
                    if not waiting:
                        started()
                if not self._ending:
                    self._processes = [self._kept(process) for process in self._processes]
                time.sleep(_TICK_S)
        finally:
            for process in self._processes:
                with suppress(AttributeError, ValueError):
                    process.terminate()
                process.join(self._settings.drain_seconds)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> BaseProcess:
        process = self._context.Process(target=_work, args=(self._settings, self._ready, os.getpid()))
        process.start()
        return process

    def _kept(self, process: BaseProcess) -> BaseProcess:
        """The process, or a new one in the place of one that has fallen."""
        if process.is_alive():
            return process
        from prometheus_client import multiprocess

        log.write("fallen", exit_code=process.exitcode)
        multiprocess.mark_process_dead(process.pid, str(self._place))
        now = time.monotonic()
        self._falls = [when for when in self._falls if when > now - 60] + [now]
        if len(self._falls) > _FALLS:
            raise RunError("The server's processes end one after another: see its log.")
        return self._start()

    def _told(self, number: int, _: object) -> None:
        self._ending |= number != signal.SIGHUP
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)


def _work(settings: ServeSettings, ready: object, parent: int) -> None:
    """One of the processes."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves
    from stillroom.serving.server import bind, serve_here
    from stillroom.serving.shelf import Shelf

    try:
        shelf, listening = Shelf.open(settings.runs), bind(settings, shared=True)
    except StillroomError as error:
        log.write("not_started", text=str(error))
        sys.exit(error.exit_code)
    release = ready.release  # type: ignore[attr-defined]
    serve_here(settings, shelf, listening, release, lambda: os.kill(parent, signal.SIGHUP))
