"""Real browsers under test: Chromium by its DevTools protocol and Firefox by WebDriver BiDi, both over a WebSocket.

Each is started with a profile of its own, and tells of every request that it makes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

PROGRAMS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "firefox": ("firefox-esr", "firefox")}
_PATIENCE = 120.0


def program_of(name: str) -> str | None:
    """The browser's program on this machine, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS[name])), None)


class Browser:
    """One window of a browser.

    Attributes:
        requests: the address of every request so far, those of workers included.
        complaints: what the browser said of errors and of what the page's policy forbids.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def goto(self, address: str) -> None:
        """Open a page, and wait until it is loaded."""
        raise NotImplementedError

    def before(self, code: str) -> None:
        """Run this in every page from now on, before the page's own scripts."""
        raise NotImplementedError

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, or of the promise that it is, as plain values."""
        raise NotImplementedError

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the browser's own protocol, and what it gives."""
        self._last += 1
        number = self._last
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        deadline = time.monotonic() + _PATIENCE
        while True:
            reply = json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0.1)))
            if reply.get("id") == number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']} {reply.get('message', '')}")
                return dict(reply.get("result", {}))
            self._told(reply)

    def _told(self, event: dict[str, Any]) -> None:
        raise NotImplementedError


class Chromium(Browser):
    """By the DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__(socket)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        # Workers have a network of their own, which is watched from their first moment on.
        self.ask("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self._loaded = False

    def before(self, code: str) -> None:
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=code)

    def goto(self, address: str) -> None:
        self._loaded = False
        self.ask("Page.navigate", url=address)
        deadline = time.monotonic() + _PATIENCE
        while not self._loaded:
            self._told(json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0.1))))

    def evaluate(self, expression: str) -> Any:
        code = f"(async () => JSON.stringify(await ({expression})))()"
        found = self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"].get("exception", {}).get("description", found)))
        value = found["result"].get("value")
        return None if value is None else json.loads(value)

    def _told(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.complaints.append(f"{parameters['entry']['level']}: {parameters['entry']['text']}")
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Target.attachedToTarget":
            for step in ("Network.enable", "Runtime.enable", "Log.enable", "Runtime.runIfWaitingForDebugger"):
                self._last += 1
                self._socket.send(json.dumps({"id": self._last, "method": step, "sessionId": parameters["sessionId"]}))


class Firefox(Browser):
    """By WebDriver BiDi."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__(socket)
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["network.beforeRequestSent", "log.entryAdded"])
        self._context = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def before(self, code: str) -> None:
        self.ask("script.addPreloadScript", functionDeclaration=f"() => {{ {code} }}")

    def goto(self, address: str) -> None:
        self.ask("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def evaluate(self, expression: str) -> Any:
        code = f"(async () => JSON.stringify(await ({expression})))()"
        target = {"context": self._context}
        found = self.ask("script.evaluate", expression=code, target=target, awaitPromise=True)
        if found["type"] == "exception":
            raise RuntimeError(found["exceptionDetails"]["text"])
        value = found["result"].get("value")
        return None if value is None else json.loads(value)

    def _told(self, event: dict[str, Any]) -> None:
        if event.get("method") == "network.beforeRequestSent":
            self.requests.append(event["params"]["request"]["url"])
        elif event.get("method") == "log.entryAdded" and event["params"]["level"] in ("warn", "error"):
            self.complaints.append(f"{event['params']['level']}: {event['params']['text']}")


@contextmanager
def opened(name: str, profile: Path) -> Iterator[Browser]:
    """A browser, ``chromium`` or ``firefox``, which is closed at the end; ``profile`` is an empty folder."""
    program = program_of(name)
    assert program is not None, f"there is no {name} here"
    if name == "chromium":
        flags = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-extensions", "--remote-debugging-port=0",
            f"--user-data-dir={profile}", "about:blank",
        )  # fmt: skip
    else:
        (profile / "user.js").write_text('user_pref("app.update.enabled", false);\n', "utf-8")
        flags = ("--headless", "--no-remote", "--remote-debugging-port=0", "--profile", str(profile))
    process = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        pattern = r"DevTools listening on ws://([^/\s]+)" if name == "chromium" else r"listening on (ws://\S+)"
        place = next(found[1] for line in process.stderr if (found := re.search(pattern, line)))
        address, make = f"{place}/session", Firefox
        if name == "chromium":
            pages = json.load(urlopen(f"http://{place}/json/list"))
            address, make = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page"), Chromium
        with connect(address, max_size=None, compression=None, open_timeout=30, ping_interval=None) as socket:
            yield make(socket)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
