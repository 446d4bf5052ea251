"""What is for people and for those who watch the server: the page that classifies in the browser, and Prometheus' counts."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from threading import Lock
from weakref import WeakKeyDictionary

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from stillroom.deployment.page import LANGUAGES, page_of
from stillroom.errors import UsageError
from stillroom.serving import metrics
from stillroom.serving.desk import Desk
from stillroom.serving.shelf import NOTICE, Served

_CLOSED = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_POLICY = {"content-security-policy": f"connect-src 'none'; {_CLOSED}"}
"""Of the page, which says itself what more it forbids."""
_STYLE = """
body { margin: 0 auto; max-width: 42rem; padding: 2rem 1.25rem; font: 17px/1.55 system-ui, "Segoe UI", Roboto, sans-serif;
  background: light-dark(#f4f6f8, #14171a); color: light-dark(#16191c, #e8ebed); overflow-wrap: break-word; }
h1 { font-size: 1.5rem; }
h1 + p { padding: 0.6rem 0.9rem; border-left: 4px solid light-dark(#805200, #e7bd63);
  background: light-dark(#fdf5e3, #2a2313); }
ul { list-style: none; padding: 0; }
li { padding: 0.9rem 1rem; margin: 0 0 0.6rem; border: 1px solid light-dark(#d9dee2, #353c42); border-radius: 8px;
  background: light-dark(#fff, #1c2024); }
a { color: light-dark(#0b4f86, #85bdf0); } li a { font-weight: 600; }
"""
_DIGEST = b64encode(sha256(_STYLE.encode()).digest()).decode()
_STYLED = {"content-security-policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; {_CLOSED}"}
"""Of the pages that stand here."""
_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Stillroom</title>
<style>{style}</style>
<h1>Stillroom</h1>
<p><strong>{notice}</strong></p>
"""
_LIST = (
    _HEAD
    + """<p>Served here, each with a page that classifies in the browser:</p>
<ul>{models}</ul>
<p>Programs send an image as the body of a POST to <code>/v1/models/NAME/predict</code>. What can be asked stands in
<a href="openapi.json">openapi.json</a>.</p>
</html>
"""
)
_NO_PAGE = (
    _HEAD
    + """<p>{name} has no page for the browser here: {reason}</p>
<p>It answers programs: send an image as the body of a POST to <code>/v1/predict</code>. What can be asked stands in
<a href="/openapi.json">openapi.json</a>.</p>
</html>
"""
)


def list_of(models: Iterable[Served]) -> str:
    """The page of a server with several models: what each tells apart, and the way to its page."""
    items = "".join(
        f'<li><a href="models/{escape(served.name)}">{escape(served.name)}</a>: '
        f"{escape(', '.join(served.predictor.classes))}"
        f"{' (trained on synthetic images)' if served.predictor.synthetic else ''}</li>"
        for served in models
    )
    return _LIST.format(notice=escape(NOTICE), style=_STYLE, models=items)


def without_page(name: str, reason: str) -> str:
    """What stands in the place of a model's page that cannot be made, for this reason."""
    return _NO_PAGE.format(notice=escape(NOTICE), style=_STYLE, name=escape(name), reason=escape(reason))


class _Pages:
    """The pages of models, each made when it is first asked for and kept as long as its model is served."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Served, dict[str, bytes]] = WeakKeyDictionary()
        self._one_at_a_time = Lock()

    def of(self, served: Served, language: str) -> bytes:
        """Raises UsageError where there can be none, and where the model's file is not the one that is served any more."""
        with self._one_at_a_time:
            made = self._made.setdefault(served, {})
            if language not in made:
                page = page_of(served.path, language=language).encode()
                _ = served.predictor.digest  # raises where the file was exchanged, which the page then may be of
                made[language] = page
            return made[language]


def routes(desk: Desk) -> APIRouter:
    """The pages and /metrics."""
    router, pages = APIRouter(), _Pages()

    async def page(request: Request, served: Served) -> Response:
        language = _language(request)
        try:
            return HTMLResponse(await asyncio.to_thread(pages.of, served, language), headers=_POLICY)
        except UsageError as error:
            return HTMLResponse(without_page(served.name, str(error)), headers=_STYLED)

    @router.get("/", include_in_schema=False)
    async def first(request: Request) -> Response:
        if len(desk.shelf.names) == 1:
            return await page(request, desk.shelf.only())
        return HTMLResponse(list_of(desk.shelf), headers=_STYLED)

    @router.get("/models/{name}", include_in_schema=False)
    async def by_name(request: Request, name: str) -> Response:
        return await page(request, desk.model(name))

    @router.get("/metrics", summary="Counts for Prometheus", response_class=Response)
    async def counts() -> Response:
        text, kind = metrics.exposition()
        return Response(text, media_type=kind)

    return router


def _language(request: Request) -> str:
    """The first of the browser's languages that the page speaks, in the order in which it names them; else English."""
    wanted = request.headers.get("accept-language", "").lower().split(",")
    return next((one for text in wanted if (one := text.strip()[:2]) in LANGUAGES), LANGUAGES[0])
