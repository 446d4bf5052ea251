"""The routes in Stillroom's own words: answers as `predict --json` gives them, maps as `explain` draws them."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from stillroom.after.heat_map import trusted
from stillroom.deployment.prediction import Prediction
from stillroom.errors import nearest
from stillroom.explanation.claims import FAITHFUL
from stillroom.serving.desk import Desk, body_of
from stillroom.serving.parameters import require_parameters
from stillroom.serving.refusals import Refused
from stillroom.serving.shelf import NOTICE, Served
from stillroom.serving.work import Drawn
from stillroom.settings.methods import Method

EdgeMethod = Literal["rise", "score_cam", "score_cam_fast"]
Form = Literal["png", "npy", "json"]
OfClass = Annotated[str | None, Query(description="The class to explain. Default: the most probable one.")]
ByMethod = Annotated[
    EdgeMethod | None,
    Query(description="How the map is drawn. Default: the one that the run has tested for faithfulness."),
]
InForm = Annotated[
    Form,
    Query(
        alias="as",
        description="`png`: the map over the image; `npy`: the map alone; `json`: both, and all that is said.",
    ),
]
_JSON = json.JSONEncoder(allow_nan=False)
_PREDICT = re.compile(r"/v1(?:/models/(?P<name>[^/]+))?/predict")
_TYPES: dict[Form, str] = {"png": "image/png", "npy": "application/x-npy", "json": "application/json"}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"image": {"type": "array", "items": _BINARY["schema"]}}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "One image as it is, or several as files of a form.",
        "content": {
            **dict.fromkeys(("image/png", "image/jpeg", "application/dicom", "application/octet-stream"), _BINARY),
            "multipart/form-data": {"schema": _FILES},
        },
    }
}
_SAID = Prediction(
    Path("image.png"),
    decision=("left",),
    probabilities={"left": 0.93, "right": 0.07},
    possible=("left",),
    foreign=False,
    foreign_score=0.4,
)
_EXAMPLE = {"name": "first", "digest": "0" * 64, "synthetic": False}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"example": {"error": text}}}}
    for status, text in {
        400: "The request has no body, or a damaged form.",
        401: "A token is needed.",
        404: "There is no model of that name.",
        408: "The body came too slowly.",
        413: "The body is too large, or holds too many images.",
        415: "The body is of a type that no image has, or is compressed (Content-Encoding).",
        422: "None of the images can be read; the answer names the reason of each.",
        503: "Too many images are waiting; `Retry-After` says when to come again.",
    }.items()
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What the model says of each image.",
        "content": {
            "application/json": {"example": {"model": _EXAMPLE, "notice": NOTICE, "predictions": [_SAID.to_dict()]}}
        },
    }
}
_UNREAD = Prediction(Path("image.png"), error="the file is empty (0 bytes)")
_WHY = "The image cannot be used: the file is empty (0 bytes)."


def _none_read(**rest: Any) -> dict[int | str, dict[str, Any]]:
    """The refusals, that of unreadable images with all that its answer holds."""
    example = {"model": _EXAMPLE, "notice": NOTICE, "error": _WHY, **rest}
    text = REFUSALS[422]["description"]
    return {**REFUSALS, 422: {"description": text, "content": {"application/json": {"example": example}}}}


_MAP: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The heat map over the image, alone, or with all that is said of it.",
        "content": {
            "image/png": _BINARY,
            "application/x-npy": _BINARY,
            "application/json": {
                "example": {
                    "model": _EXAMPLE,
                    "notice": NOTICE,
                    "explanation": _SAID.to_dict()
                    | {"class": "left", "empty": False, "method": "rise"}
                    | trusted(FAITHFUL, "What was found of such maps on the test images."),
                    "picture": "base64 of a PNG",
                    "map": "base64 of a .npy file",
                }
            },
        },
    }
}


def routes(desk: Desk) -> APIRouter:
    """The routes below /v1."""
    router = APIRouter(prefix="/v1")
    told: dict[str, Any] = {"openapi_extra": _BODY, "response_class": Response}
    answers = {**_ANSWER, **_none_read(predictions=[_UNREAD.to_dict()])}
    maps = {**_MAP, **_none_read(explanation=_UNREAD.to_dict())}

    @router.get("/models", summary="The models that are served")
    async def models() -> dict[str, Any]:
        return {"notice": NOTICE, "models": [_described(served) for served in desk.shelf]}

    async def explained(
        request: Request, name: str | None, of: str | None, method: Method | None, form: Form
    ) -> Response:
        served = desk.model(name)
        if of is not None and of not in served.predictor.classes:
            close, known = nearest(of, served.predictor.classes), ", ".join(served.predictor.classes)
            raise Refused(422, f"The model knows no such class.{close} Classes: {known}.", "no_class")
        async with desk.frames(request) as frames:
            if len(frames) != 1:
                raise Refused(422, "One image is explained at a time: send them in several requests.", "too_many")
            (drawn,) = await desk.explain(served, frames, method or served.method, of)
        request.state.noted |= {"images": 1, "model": served.name, "map": drawn.method}
        return await asyncio.to_thread(_shown, served, drawn, form)

    @router.post(
        "/predict",
        summary="Classify images",
        responses=answers,
        **told,
    )
    async def predict(request: Request) -> Response:
        return await _predicted(desk, request, None)

    @router.post(
        "/models/{name}/predict",
        summary="Classify images",
        responses=answers,
        **told,
    )
    async def predict_by(request: Request, name: str) -> Response:
        return await _predicted(desk, request, name)

    @router.post(
        "/explain",
        summary="Show where the model looks",
        responses=maps,
        **told,
    )
    async def explain(
        request: Request,
        of: OfClass = None,
        method: ByMethod = None,
        form: InForm = "png",
    ) -> Response:
        return await explained(request, None, of, method, form)

    @router.post(
        "/models/{name}/explain",
        summary="Show where the model looks",
        responses=maps,
        **told,
    )
    async def explain_by(
        request: Request,
        name: str,
        of: OfClass = None,
        method: ByMethod = None,
        form: InForm = "png",
    ) -> Response:
        return await explained(request, name, of, method, form)

    return router


def straight(app: ASGIApp, desk: Desk) -> ASGIApp:
    """The application, whose framework is passed by where images are to be classified.

    They are most of what a server is asked, and routing alone would cost each a twentieth of its CPU. The routes above
    answer alike; the server's description is made of them. HEAD, by which balancers ask, is answered as GET; the body does
    not leave.
    """

    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        asked = _PREDICT.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        answer = app if asked is None else await _predicted(desk, Request(scope, receive), asked["name"])
        await answer(scope, receive, send)

    return ask


async def _predicted(desk: Desk, request: Request, name: str | None) -> Response:
    require_parameters(request, ())
    served = desk.model(name)
    async with desk.frames(request) as frames:
        found = await desk.predict(served, frames)
    request.state.noted |= {"images": len(found), "model": served.name}
    predictions = [one.to_dict() for one in found]
    if all(one.error for one in found):
        return as_json(body_of(served, error=_why(found), predictions=predictions), 422)
    return as_json(body_of(served, predictions=predictions))


def _why(found: Sequence[Prediction]) -> str:
    """What is said of a request of whose images none is answered."""
    if len(found) == 1:
        error = str(found[0].error).rstrip(".")
        return f"The image cannot be used: {error[:1].lower() if error[1:2].islower() else error[:1]}{error[1:]}."
    return f"None of the {len(found)} images can be used: `predictions` says of each why."


def as_json(values: dict[str, Any], status: int = 200) -> Response:
    """JSON, with all numbers finite."""
    return Response(_JSON.encode(values), status, media_type="application/json")


def _described(served: Served) -> dict[str, Any]:
    predictor = served.predictor
    return served.to_dict() | {
        "network": predictor.name,
        "task": predictor.task.kind,
        "classes": list(predictor.classes),
        "size": predictor.size,
        "channels": predictor.channels,
        "method": served.method,
    }


def _shown(served: Served, drawn: Drawn, form: Form) -> Response:
    """A map in the wanted form; what is said of it goes into a header where the body is a picture."""
    explanation = drawn.explanation
    said = {name: value for name, value in explanation.to_dict().items() if name not in ("picture", "array")}
    said |= {"method": drawn.method} | trusted(drawn.verdict, drawn.statement)
    if drawn.heat is None or drawn.picture is None:
        return as_json(body_of(served, error=_why([explanation.prediction]), explanation=said), 422)
    picture, array = BytesIO(), BytesIO()
    if form != "npy":
        drawn.picture.save(picture, "PNG")
    if form != "png":
        np.save(array, drawn.heat)
    if form == "json":
        files = {"picture": b64encode(picture.getvalue()).decode(), "map": b64encode(array.getvalue()).decode()}
        return as_json(body_of(served, explanation=said, **files))
    header = json.dumps(body_of(served, explanation=said), allow_nan=False)  # ASCII, as a header must be
    content = picture.getvalue() if form == "png" else array.getvalue()
    return Response(content, media_type=_TYPES[form], headers={"stillroom-explanation": header})
