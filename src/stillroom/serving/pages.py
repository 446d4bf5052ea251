"""What is for people and for those who watch the server: the first page, and Prometheus' counts."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from stillroom.serving import metrics
from stillroom.serving.desk import Desk
from stillroom.serving.shelf import NOTICE

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Stillroom</title>
<h1>Stillroom</h1>
<p><strong>{notice}</strong></p>
<p>Served here:</p>
<ul>{models}</ul>
<p>Send an image as the body of a POST to <code>/v1/predict</code>. What can be asked stands in
<a href="openapi.json">openapi.json</a>.</p>
</html>
"""


def routes(desk: Desk) -> APIRouter:
    """The first page and /metrics."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def first() -> HTMLResponse:
        models = "".join(
            f"<li>{escape(served.name)}: {escape(', '.join(served.predictor.classes))}"
            f"{' (trained on synthetic images)' if served.predictor.synthetic else ''}</li>"
            for served in desk.shelf
        )
        return HTMLResponse(_PAGE.format(notice=escape(NOTICE), models=models))

    @router.get("/metrics", summary="Counts for Prometheus", response_class=Response)
    async def counts() -> Response:
        text, kind = metrics.exposition()
        return Response(text, media_type=kind)

    return router
