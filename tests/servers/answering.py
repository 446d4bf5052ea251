"""`stillroom serve` as its users start it: a process of its own on a free port, with what it prints."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_S = 60.0


@dataclass
class Reply:
    """A response: ``headers`` by names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Answering:
    """A running server. Use it as a context manager.

    Args:
        arguments: of ``stillroom serve`` besides the port.
        environment: variables over those of this process.
    """

    def __init__(self, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "stillroom", "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | dict(environment or {})
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = self.wait_for(r"Serving at (https?)://(\S+):(\d+),", START_S)
        self.tls, self.host, self.port = found[1] == "https", found[2].strip("[]"), int(found[3])
        self.host = "127.0.0.1" if self.host == "0.0.0.0" else self.host

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_for(self, pattern: str, seconds: float = 10.0) -> re.Match[str]:
        """The first match in what the server has printed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(f"The server did not print {pattern}:\n{''.join(self.lines)}")

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        if self.tls:
            context = ssl._create_unverified_context()
            return http.client.HTTPSConnection(self.host, self.port, timeout=60, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=60)

    def socket(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection((self.host, self.port), timeout=30)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None,
        over: http.client.HTTPConnection | None = None,
    ) -> Reply:  # fmt: skip
        """One request, on a connection of its own or over one that is kept."""
        connection = over or self.connect()
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, told, response.read())
        finally:
            if over is None:
                connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: bytes, kind: str = "application/octet-stream", **headers: str) -> Reply:
        return self.ask("POST", path, body, {"Content-Type": kind} | headers)

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Stop it, and give its exit code."""
        if self.process.poll() is None:
            self.send_signal(number)
        return self.process.wait(seconds)

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            try:
                self.end()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
        for pipe in (self.process.stderr, self.process.stdout):
            if pipe is not None:
                pipe.close()


def form(files: Sequence[tuple[str, bytes]]) -> tuple[bytes, str]:
    """A multipart body of these files, and its type."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, content in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def together(count: int, do: Callable[[int], Any]) -> list[Any]:
    """What ``do(number)`` gives for each number, all at once in threads."""
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        try:
            results[number] = do(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def sent(paths: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Names and contents of files."""
    return [(path.name, path.read_bytes()) for path in paths]
