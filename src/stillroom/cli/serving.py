"""The verb that answers over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def serve(
    runs: Annotated[list[str], Parameter(consume_multiple=True)],
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    names: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative="")] = None,
    token_file: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    workers: int = 1,
    threads: int = 0,
    deadline: float = 2.0,
    explain_deadline: float = 30.0,
    max_mb: float = 32.0,
    max_images: int = 256,
    max_megapixels: float = 50.0,
    body_seconds: float = 20.0,
    head_seconds: float = 15.0,
    drain_seconds: float = 60.0,
) -> None:
    """Answer over HTTP: classes, heat maps, and tensors by KServe's protocol. For research: it is no medical device.

    Programs of this machine alone can ask; others need a token. SIGTERM or Ctrl-C ends it when all that was accepted is
    answered, and SIGHUP opens the models anew.

    ```
    stillroom serve runs/first
    stillroom serve runs/skin eyes=runs/second/student.onnx --port 9000
    stillroom serve runs/first --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
    ```

    Args:
        runs: run folders or exported .onnx files; `NAME=PATH` gives one another name.
        host: the address to listen on. Any but this machine's own needs a token.
        port: the port to listen on; 0 takes a free one.
        names: host names by which a proxy on this machine is asked. They need a token.
        token_file: a file that holds the token which every request must bear; or set STILLROOM_TOKEN.
        tls_cert: file of the certificate, in PEM, for HTTPS.
        tls_key: file of its key.
        workers: processes, which share the port.
        threads: batches that one process computes at a time. Default: its share of the cores.
        deadline: seconds within which an image is answered; whoever would wait longer is told at once to come again.
        explain_deadline: the same for heat maps.
        max_mb: how many MB a request may have.
        max_images: how many images a request may have, frames of DICOM files counted.
        max_megapixels: how many million pixels an image may have; of a larger one no more than its head is read.
        body_seconds: within which a request's body must have come.
        head_seconds: within which a request's head must have come, the next one's of a kept connection too.
        drain_seconds: how long, when it is told to end, it waits for what it has accepted.
    """
    from stillroom.cli import console
    from stillroom.errors import UsageError
    from stillroom.extras import need

    need("fastapi", "`stillroom serve`")
    from stillroom.serving.settings import ServeSettings, read_token
    from stillroom.serving.start import start

    if names is not None and not names:
        raise UsageError("--names was given without a name: say by which host names a proxy asks, or leave it out.")
    settings = ServeSettings(
        tuple(runs), host, port, names or (), read_token(token_file), tls_cert, tls_key, workers, threads,
        deadline, explain_deadline, max_mb, max_images, max_megapixels, body_seconds, head_seconds, drain_seconds,
    )  # fmt: skip
    start(settings, console.say)
