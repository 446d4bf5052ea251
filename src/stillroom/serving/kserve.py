"""The routes of KServe's Open Inference Protocol, version 2: health, metadata, tensors, and loading a model anew."""

from __future__ import annotations

import asyncio
import json
import math
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from stillroom.errors import RunError, UsageError
from stillroom.serving import log
from stillroom.serving.desk import Desk, kind_of_work
from stillroom.serving.predicting import REFUSALS, as_json
from stillroom.serving.refusals import Refused
from stillroom.serving.shelf import NOTICE, Served

_TYPES = {"FP32": np.float32, "FP64": np.float64}
_LOADED: dict[int | str, dict[str, Any]] = {
    200: {"description": "It was opened, and answers from now on."},
    403: {"description": "The server has no token, without which nobody may load over HTTP."},
    404: REFUSALS[404],
    422: {"description": "It cannot be opened; the old one answers on."},
}


def routes(desk: Desk, ready: Any, tell_others: Any) -> APIRouter:
    """The routes below /v2.

    Args:
        desk: the models and their lines.
        ready: whether new requests are accepted.
        tell_others: called after a model was loaded anew, for other processes of the same server.
    """
    router = APIRouter(prefix="/v2")

    def known(name: str, version: str | None = None) -> Served:
        served = desk.model(name)
        if version is not None and version != _version(served):
            raise Refused(404, f"This model's version is {_version(served)}.", "no_model")
        return served

    @router.get("/health/live", summary="Whether the server runs")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Whether the server accepts requests")
    async def is_ready() -> Response:
        return as_json({"ready": ready()}, 200 if ready() else 503)

    @router.get("", summary="What the server is")
    async def server() -> dict[str, Any]:
        from importlib import metadata

        return {"name": "stillroom", "version": metadata.version("stillroom"), "extensions": [], "notice": NOTICE}

    @router.get("/models/{name}", summary="What a model takes and gives")
    @router.get("/models/{name}/versions/{version}", include_in_schema=False)
    async def model(name: str, version: str | None = None) -> dict[str, Any]:
        return _metadata(known(name, version))

    @router.get("/models/{name}/ready", summary="Whether a model answers")
    @router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        return {"name": known(name, version).name, "ready": True}

    body = {"requestBody": {"required": True, "content": {"application/json": {}}}}  # examples are of the served model
    answered = {200: {"description": "Tensors.", "content": {"application/json": {}}}}

    @router.post(
        "/models/{name}/infer",
        summary="Tensors in, tensors out: no preprocessing, no rules",
        openapi_extra=body,
        response_class=Response,
        responses={**answered, **REFUSALS},  # type: ignore[dict-item]
    )
    @router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        served = known(name, version)
        async with desk.bodies.read(request) as content:
            request.state.noted = {"bytes": len(content), "model": served.name}
            kind = kind_of_work(served, "infer", partial(_each, served), served.seconds)
            (found,) = await desk.answers.ask(kind, [(content, desk.settings.max_images)])
        return Response(found, media_type="application/json")

    @router.post(
        "/repository/models/{name}/load",
        summary="Open a model's file again, without losing a request",
        responses=_LOADED,
    )
    async def load(request: Request, name: str) -> dict[str, Any]:
        desk.model(name)
        if desk.settings.token is None:
            raise Refused(403, "Loading over HTTP needs a server with a token; or send it SIGHUP.", "token")
        return await load_anew(desk, name, tell_others)

    return router


async def load_anew(desk: Desk, name: str, tell_others: Any = None) -> dict[str, Any]:
    """Open a model again; where it cannot be opened the old one goes on. Raises Refused with 422."""
    try:
        new = await asyncio.to_thread(desk.shelf.reload, name)
    except (UsageError, RunError) as error:
        log.write("load", model=name, loaded=False, text=str(error))
        raise Refused(422, str(error), "not_loaded") from None
    log.write("load", model=name, loaded=True, digest=new.digest)
    if tell_others is not None:
        tell_others()
    return {"name": name, "digest": new.digest}


def examples(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request that this model takes as it stands, of one black image, and the form of its answer."""
    (images,) = _metadata(served)["inputs"]
    shape = [1, *images["shape"][1:]]
    pixels = images | {"shape": shape, "data": [0] * math.prod(shape)}
    classes = len(served.predictor.classes)
    told = {"name": "probabilities", "shape": [1, classes], "datatype": "FP32", "data": [1 / classes] * classes}
    return (
        {"inputs": [pixels], "outputs": [{"name": "probabilities"}]},
        {"model_name": served.name, "model_version": _version(served), "outputs": [told]},
    )


def _each(served: Served, asked: list[tuple[bytes, int]]) -> list[bytes | Refused]:
    """One request's tensors at a time: each may hold a batch."""
    found: list[bytes | Refused] = []
    for content, most in asked:
        try:
            found.append(_inferred(served, content, most))
        except Refused as refused:
            found.append(refused)
    return found


def _inferred(served: Served, content: bytes, most: int) -> bytes:
    try:
        asked = json.loads(content)
        (tensor,) = asked["inputs"]
        name, shape, kind, data = (tensor[key] for key in ("name", "shape", "datatype", "data"))
        wanted = [one["name"] for one in asked.get("outputs") or _metadata(served)["outputs"]]
        said = asked.get("id")
        if not all(isinstance(text, str) for text in (name, kind, *wanted)):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(
            400, "The request is not as the protocol has it: `inputs` with one tensor `images`.", "damaged"
        ) from None
    predictor = served.predictor
    given = {one["name"]: one for one in _metadata(served)["outputs"]}
    side = [predictor.channels, predictor.size, predictor.size]
    if name != "images" or kind not in _TYPES:
        raise Refused(400, "The input is one tensor `images` of datatype FP32.", "damaged")
    if not wanted or [one for one in wanted if one not in given]:
        raise Refused(400, f"The model has these outputs: {', '.join(given)}.", "damaged")
    try:
        with np.errstate(over="ignore"):  # which is out of range
            images = np.array(data, dtype=_TYPES[kind]).reshape(shape)
    except (ValueError, TypeError, OverflowError):
        raise Refused(400, "The tensor's data are not numbers of its shape.", "damaged") from None
    if images.ndim != 4 or list(images.shape[1:]) != side or not 1 <= len(images) <= most:
        raise Refused(
            400, f"`images` has the shape [N, {side[0]}, {side[1]}, {side[2]}], N from 1 to {most}.", "damaged"
        )
    if not ((images >= 0) & (images <= 1)).all():
        raise Refused(400, "The values of `images` lie between 0, black, and 1, white.", "damaged")
    found = predictor.ask(images, *wanted)
    outputs = [
        {"name": key, "shape": list(found[key].shape), "datatype": "FP32", "data": found[key].ravel().tolist()}
        for key in wanted
    ]
    answer = {"model_name": served.name, "model_version": _version(served), "outputs": outputs}
    return json.dumps(answer | ({"id": said} if isinstance(said, str) else {}), allow_nan=False).encode()


def _version(served: Served) -> str:
    """The beginning of its digest: what is exchanged is another version."""
    return served.digest[:12]


def _metadata(served: Served) -> dict[str, Any]:
    predictor = served.predictor
    classes = len(predictor.classes)
    shapes = {"logits": [-1, classes], "probabilities": [-1, classes]}
    if predictor.foreign:
        shapes["distance"] = [-1]
    return {
        "name": served.name,
        "versions": [_version(served)],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {
                "name": "images",
                "datatype": "FP32",
                "shape": [-1, predictor.channels, predictor.size, predictor.size],
            }
        ],
        "outputs": [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in shapes.items()],
    }
