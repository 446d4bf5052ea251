"""What a server is told: where it listens, who may ask, and how much it takes on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from stillroom.data.dicom.opening import MOST_PIXELS
from stillroom.errors import UsageError
from stillroom.ranges import at_least, between, positive
from stillroom.serving.certificates import require_certificate

TOKEN_VARIABLE = "STILLROOM_TOKEN"
COUNTS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder where processes leave their counts; :mod:`stillroom.serving.metrics` reads it as it is imported."""
_SHORTEST_TOKEN = 16
_MAKE_TOKEN = "openssl rand -hex 32"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ServeSettings:
    """See ``stillroom serve --help``.

    Attributes:
        runs: run folders or .onnx files, each also as ``NAME=PATH``.
        host: address to listen on.
        port: 0 takes a free one.
        names: host names by which a proxy is asked for this server.
        token: what every request must bear, or None.
        tls_cert, tls_key: files of the certificate and its key, or None.
        workers: processes.
        threads: of one process, each for one batch at a time.
        deadline: seconds within which what is accepted is answered.
        explain_deadline: the same for heat maps.
        max_mb: of one request's body.
        max_images: of one request.
        max_megapixels: of one image.
        body_seconds: within which a body must have come.
        head_seconds: within which a request's head must have come, and the next one of a kept connection.
        drain_seconds: for what was accepted before the server was told to stop.
    """

    runs: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    workers: int = 1
    threads: int = 0
    deadline: float = 2.0
    explain_deadline: float = 30.0
    max_mb: float = 32.0
    max_images: int = 256
    max_megapixels: float = 50.0
    body_seconds: float = 20.0
    head_seconds: float = 15.0
    drain_seconds: float = 60.0

    def __post_init__(self) -> None:
        at_least("--port", self.port, 0, 65535)
        at_least("--workers", self.workers, 1, 256)
        at_least("--threads", self.threads, 0, 256)
        at_least("--max-images", self.max_images, 1, 100_000)
        between("--max-megapixels", self.max_megapixels, MOST_PIXELS / 1e6)
        for name in ("deadline", "explain_deadline", "max_mb", "body_seconds", "head_seconds", "drain_seconds"):
            positive(f"--{name.replace('_', '-')}", getattr(self, name))
        if self.token is not None:
            _require_token(self.token)
        elif self.reaches_far:
            raise UsageError(
                f"{'Other machines' if not self.loopback else 'A proxy'} can reach this server, so it needs a token: name a "
                f"file that holds one with --token-file, or set {TOKEN_VARIABLE}. One is made by `{_MAKE_TOKEN}`."
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key go together: name both files.")
        if self.tls_cert is not None and self.tls_key is not None:
            require_certificate(self.tls_cert, self.tls_key)

    @property
    def loopback(self) -> bool:
        """Whether programs of this machine alone can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def reaches_far(self) -> bool:
        """Whether others than this machine's own programs may ask."""
        return not self.loopback or bool(self.names)

    @property
    def allowed_hosts(self) -> frozenset[str] | None:
        """What a request may name as its host, without port; None where any, for a token tells who may ask."""
        if not self.loopback:
            return None
        return frozenset(name.lower() for name in (*_LOOPBACK_NAMES, self.host, *self.names))

    @property
    def threads_each(self) -> int:
        """Threads of one process: what was asked for, or this process's share of the cores."""
        return self.threads or max(1, len(_cores()) // self.workers)

    @property
    def max_bytes(self) -> int:
        """Of one request's body."""
        return int(self.max_mb * 1e6)

    @property
    def max_pixels(self) -> int:
        """Of one image."""
        return int(self.max_megapixels * 1e6)


def read_token(file: Path | None) -> str | None:
    """The token from this file, or from the environment; None where neither gives one.

    Raises:
        UsageError: both do, or the file cannot be read.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if file is None:
        return given.strip() if given else None
    if given:
        raise UsageError(f"Both --token-file and {TOKEN_VARIABLE} give a token: leave one out.")
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text"
        advice = f"Name a file that you may read and that holds nothing else; `{_MAKE_TOKEN} > token` makes one."
        raise UsageError(f"The token cannot be read from {file}: {reason.lower()}. {advice}") from None


def _require_token(token: str) -> None:
    if len(token) < _SHORTEST_TOKEN or not re.fullmatch(r"[!-~]+", token):
        raise UsageError(
            f"A token has at least {_SHORTEST_TOKEN} letters, digits or signs and no spaces; make one by "
            f"`{_MAKE_TOKEN}`."
        )


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
