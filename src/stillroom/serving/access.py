"""The gate before the application: who may ask, whether there is room, and what every answer carries.

It stands before the framework, so that a refusal costs next to nothing and is made before a byte of the body is read.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from base64 import b64decode
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillroom.serving import log, metrics
from stillroom.serving.refusals import Refused
from stillroom.serving.settings import ServeSettings

OPEN = ("/v2/health/live", "/v2/health/ready")
"""Asked by whoever keeps the server running, who has no token; they tell nothing else."""

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
"""Of every answer that does not say otherwise."""
_CHALLENGES = [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b'Basic realm="stillroom", charset="UTF-8"')]
"""Of every 401. A line for each way to log in: Chromium takes two on one line for a single one that it does not know."""
_HSTS = (b"strict-transport-security", b"max-age=31536000")
_NO_ROUTE = "unknown"
_MODEL = re.compile(r"^((?:/v1|/v2|/v2/repository)?/models/)[^/]+")


class Gate:
    """An ASGI application around another one.

    Args:
        app: what is asked when nothing speaks against it.
        settings: of the server.
        routes: paths of the application's routes, as they are counted and logged.
        refuse_if_full: raises Refused where a path leads to work for which there is no room.

    Attributes:
        draining: whether the server ends: what was accepted is answered, and nothing more is accepted.
        active: requests that are being answered.
    """

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, routes: frozenset[str], refuse_if_full: Callable[[str], None]
    ) -> None:
        self._app, self._routes, self._refuse_if_full = app, routes, refuse_if_full
        self._hosts = settings.allowed_hosts
        self._token = None if settings.token is None else settings.token.encode()
        self._tls = settings.tls_cert is not None
        self.draining = False
        self.active = 0
        self._busy, self._busy_since = 0, 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, told = time.perf_counter(), _Told(send, self._tls)
        self.active += 1
        reason = None
        try:
            try:
                self._admit(scope)
                await self._app(scope, receive, told.send)
            except Refused as refused:
                await answer_refusal(refused, told.send)
                reason = refused.reason
        except Exception as error:
            log.write_failure(error)
            if told.status == 0:
                text = "Something went wrong in the server; its log says where."
                await answer_refusal(Refused(500, text, "failed"), told.send)
        finally:
            self.active -= 1
            self._note(scope, told, reason, time.perf_counter() - start)

    def _admit(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._hosts is not None and _without_port(host) not in self._hosts:
            text = "This server is not asked by that host name; see --names." if host else "The header Host is missing."
            raise Refused(421, text, "host")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host:
            raise Refused(403, "Pages of other places may not ask this server.", "origin")
        if (
            self._token is not None
            and scope["path"] not in OPEN
            and not self._known(headers.get(b"authorization", b""))
        ):
            text = "A token is needed: send it as `Authorization: Bearer TOKEN`, or as the password of any name."
            raise Refused(401, text, "token")
        if scope["method"] == "POST":
            if self.draining:
                raise Refused(503, "The server is ending.", "draining", {"retry-after": "5", "connection": "close"})
            self._refuse_if_full(scope["path"])

    def _known(self, authorization: bytes) -> bool:
        kind, _, value = authorization.partition(b" ")
        if kind.lower() == b"basic":
            try:
                value = b64decode(value, validate=True).partition(b":")[2]
            except ValueError:
                return False
        elif kind.lower() != b"bearer":
            return False
        return hmac.compare_digest(value.strip(), self._token or b"")

    def _note(self, scope: Scope, told: _Told, reason: str | None, seconds: float) -> None:
        route = _MODEL.sub(r"\1{name}", scope["path"])
        route = route if route in self._routes else _NO_ROUTE
        reason = reason or scope.get("state", {}).get("reason")
        metrics.REQUESTS.labels(route, str(told.status)).inc()
        metrics.SECONDS.labels(route).observe(seconds)
        if reason:
            metrics.REFUSALS.labels(reason).inc()
        if reason == "busy" and route != _NO_ROUTE:
            self._note_busy()
            return
        log.write(
            "request",
            method=scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other",
            route=route,
            status=told.status,
            ms=round(seconds * 1e3, 1),
            reason=reason,
            **scope.get("state", {}).get("noted", {}),
        )

    def _note_busy(self) -> None:
        """Of refusals for want of room one line a second tells how many there were: under their load each would cost."""
        self._busy += 1
        now = time.monotonic()
        if now - self._busy_since >= 1:
            log.write("busy", refused=self._busy)
            self._busy, self._busy_since = 0, now


class _Told:
    """What goes out: every answer carries the headers, and its status is remembered."""

    def __init__(self, send: Send, tls: bool) -> None:
        self._send, self._tls, self.status = send, tls, 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.setdefault("headers", [])
            names = {name for name, _ in given}
            more = [pair for pair in _HEADERS.items() if pair[0] not in names]
            message["headers"] = [*given, *more, *([_HSTS] if self._tls else [])]
        await self._send(message)


async def answer_refusal(refused: Refused, send: Send) -> None:
    """Tell a refusal as JSON, in the form that KServe's protocol has for errors."""
    body = json.dumps({"error": refused.text}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))} | refused.headers
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    pairs += _CHALLENGES if refused.status == 401 else []
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _without_port(host: str) -> str:
    """``[::1]:80`` to ``[::1]``."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() and not name.endswith(":") else host
