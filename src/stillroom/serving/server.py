"""One process that serves: uvicorn around the application, and what signals ask of it."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from stillroom.errors import UsageError
from stillroom.serving import log
from stillroom.serving.access import Gate
from stillroom.serving.app import make_app
from stillroom.serving.connection import bounded
from stillroom.serving.desk import Desk
from stillroom.serving.kserve import load_anew
from stillroom.serving.refusals import Refused
from stillroom.serving.settings import ServeSettings
from stillroom.serving.shelf import Shelf

AGAIN_S = 2.0
"""So long after the first signal to stop others change nothing: a key that is pressed twice asks for the same thing."""
_TICK_S = 0.05
_ADVICE = {
    errno.EADDRINUSE: "Name another with --port (0 takes a free one), or end what listens there.",
    errno.EACCES: "Ports below 1024 are not for everybody: name a higher one with --port.",
}
"""What to do where an address cannot be had, by why."""

Todo = Callable[[], Coroutine[None, None, None]]


class _Server(uvicorn.Server):
    """uvicorn, whose signals are ours."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve_here(
    settings: ServeSettings,
    shelf: Shelf,
    listening: socket.socket,
    started: Callable[[], object] = lambda: None,
    tell_others: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, and then until what was accepted is answered. SIGHUP opens all models anew.

    Args:
        settings: of the server.
        shelf: the opened models.
        listening: a bound socket.
        started: called when requests are accepted.
        tell_others: see :func:`~stillroom.serving.app.make_app`.
    """
    log.redirect()
    gate, desk = make_app(settings, shelf, tell_others)
    config = uvicorn.Config(
        gate,
        http=bounded(settings.head_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, int(settings.head_seconds)),
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    server = _Server(config)
    ending = _Ending(server, gate, settings.drain_seconds)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # uvloop, where it is installed
        runner.run(_serve(server, ending, desk, listening, started))
    desk.end()


async def _serve(
    server: _Server, ending: _Ending, desk: Desk, listening: socket.socket, started: Callable[[], object]
) -> None:
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def begin(todo: Todo) -> None:
        task = loop.create_task(todo())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.asked, begin)
    loop.add_signal_handler(signal.SIGHUP, begin, lambda: _reload_all(desk))
    begin(lambda: _tell_when(server, started))
    await server.serve([listening])


class _Ending:
    """How a server ends: nothing new is accepted, what was accepted is answered, then it stops."""

    def __init__(self, server: _Server, gate: Gate, seconds: float) -> None:
        self._server, self._gate, self._seconds = server, gate, seconds
        self._since: float | None = None

    def asked(self, begin: Callable[[Todo], None]) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._gate.draining = True
            log.write("draining", active=self._gate.active)
            begin(self._drain)
        elif now - self._since > AGAIN_S:
            self._server.force_exit = self._server.should_exit = True

    async def _drain(self) -> None:
        assert self._since is not None
        while self._gate.active and time.monotonic() < self._since + self._seconds:
            await asyncio.sleep(_TICK_S)
        self._server.should_exit = True


async def _reload_all(desk: Desk) -> None:
    for name in desk.shelf.names:
        with suppress(Refused):  # which is logged, and the old model goes on
            await load_anew(desk, name)


async def _tell_when(server: _Server, started: Callable[[], object]) -> None:
    while not server.started:
        await asyncio.sleep(_TICK_S / 5)
    started()


def bind(settings: ServeSettings, *, shared: bool = False) -> socket.socket:
    """A socket on the address that was asked for.

    Args:
        settings: of the server.
        shared: whether several processes listen on it, each with a socket of its own.

    Raises:
        UsageError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # named, or answers in two parts wait for Nagle
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        bound.close()
        reason = (error.strerror or str(error)).lower()
        advice = _ADVICE.get(error.errno or 0, "Name with --host an address of this machine, such as 127.0.0.1.")
        raise UsageError(
            f"The address {settings.host} port {settings.port} cannot be had: {reason}. {advice}"
        ) from None
    bound.set_inheritable(True)
    return bound
