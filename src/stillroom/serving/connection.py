"""uvicorn's HTTP protocol with bounds on what comes before a request is known: its head, in seconds and in bytes."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST_HEAD = 65_536
"""Bytes of a request's first line and headers."""


class BoundedProtocol(HttpToolsProtocol):
    """Ends a connection that does not bring a whole head in time, be it the first request's or the next one's.

    What is left of a body that nobody reads any more counts as part of that wait, so that a refused sender may finish, but
    not for ever.
    """

    head_seconds = 15.0
    """Set once for the process, before it listens."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head, self._late = 0, False
        self._unanswered: list[RequestResponseCycle] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        for cycle in self._unanswered:  # uvicorn tells the last one alone, and the others write to nobody
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is not None and (self.cycle is None or not self._in_body):
            self._head += len(data)
            if self._head > MOST_HEAD and self._head - len(data) > 0:
                self._end(b"431 Request Header Fields Too Large")
                return
        super().data_received(data)

    @property
    def _in_body(self) -> bool:
        """Whether what comes is the rest of a body whose request is answered already."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()
        self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
        if self.cycle is not None and self.cycle not in self._unanswered:
            self._unanswered.append(self.cycle)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._head = 0
        self._timer = self.loop.call_later(self.head_seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self._head and not self._in_body:
            self._end(b"408 Request Timeout")
        elif not self.transport.is_closing():
            self.transport.close()

    def _end(self, status: bytes) -> None:
        if not self.transport.is_closing():
            head = b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head)
            self.transport.close()


def bounded(head_seconds: float) -> type[BoundedProtocol]:
    """The protocol with this bound."""
    values: dict[str, Any] = {"head_seconds": head_seconds}
    return type("Bounded", (BoundedProtocol,), values)
