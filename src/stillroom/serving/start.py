"""A server from its settings: models opened first, so that what is wrong with them is said before anything listens."""

from __future__ import annotations

from collections.abc import Callable

from stillroom.serving.processes import serve_in_processes
from stillroom.serving.settings import ServeSettings


def start(settings: ServeSettings, say: Callable[[str], object]) -> None:
    """Serve until told to stop.

    Args:
        settings: of the server.
        say: is told where it listens, when it does.

    Raises:
        UsageError: a model cannot be opened, or the address cannot be had.
        RunError: of several processes one after another ends.
    """
    if settings.workers > 1:
        _check_models(settings)
        from stillroom.serving.server import bind

        bind(settings).close()  # to share a port is allowed even where another server has it
        with bind(settings, shared=True) as held:  # it does not listen: it keeps the port
            port = held.getsockname()[1]
            serve_in_processes(settings, port, lambda: say(_said(settings, port)))
        return
    from stillroom.serving.server import bind, serve_here
    from stillroom.serving.shelf import Shelf

    shelf = Shelf.open(settings.runs)
    listening = bind(settings)
    port = listening.getsockname()[1]
    serve_here(settings, shelf, listening, lambda: say(_said(settings, port)))


def _check_models(settings: ServeSettings) -> None:
    from stillroom.serving.shelf import Shelf

    Shelf.open(settings.runs)


def _said(settings: ServeSettings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.tls_cert else "http"
    far = " Requests need the token." if settings.token else ""
    return f"Serving at {scheme}://{host}:{port}, for research: no medical device.{far} Ctrl-C ends it."
