"""DICOM in, DICOM out: instances are sent as to an archive (STOW-RS), and objects about them come back.

Nothing is stored here: the answer to the request holds the objects, and whoever asks stores them.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from stillroom.deployment.dicom_out.objects import get_ready
from stillroom.errors import NotInstalled
from stillroom.serving.bodies import instances_in
from stillroom.serving.desk import Desk
from stillroom.serving.instances import Answered, Instance, Outcome, objects_for, open_instances
from stillroom.serving.predicting import REFUSALS
from stillroom.serving.refusals import Refused
from stillroom.serving.shelf import Served

_JSON = "application/dicom+json"
_PART = "Content-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n"
_ACCEPTED = ("*/*", "multipart/*", "multipart/related")
_WORDS = {"00110010": {"vr": "LO", "Value": ["STILLROOM"]}}
"""Reserves elements of our own for words, for the standard has codes alone."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "One DICOM file, or several as parts of the type application/dicom.",
        "content": {"application/dicom": _BINARY, "multipart/related": _BINARY},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Of each instance a Structured Report; of each frame a Secondary Capture with the heat map and, where "
        "the instance says how it lies in the patient, a Parametric Map. The last part, of the type application/dicom+json, "
        "says what became of each instance, as STOW-RS does.",
        "content": {"multipart/related": _BINARY},
    },
    202: {
        "description": "The same, where an object is missing or leaves something out.",
        "content": {"multipart/related": _BINARY},
    },
    409: {
        "description": "There is no object: of each instance the reason (00081197), also in words (00111001).",
        "content": {
            _JSON: {
                "example": {
                    "00081198": {
                        "vr": "SQ",
                        "Value": [
                            {
                                "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
                                "00081155": {"vr": "UI", "Value": ["1.2.3"]},
                                "00081197": {"vr": "US", "Value": [0xC000]},
                            }
                        ],
                    }
                }
            }
        },
    },
    406: {"description": "Objects are given as multipart/related alone: nothing is stored here."},
    501: {"description": "The extra `dicom` is not installed."},
}
_UNLIKE = {status: told for status, told in REFUSALS.items() if status != 422}

WithMaps = Annotated[bool, Query(description="Whether heat maps are drawn; without them there is the report alone.")]


def routes(desk: Desk) -> APIRouter:
    """The routes that end in /dicomweb/studies."""
    router = APIRouter()
    told: dict[str, Any] = {
        "summary": "Answers about DICOM instances, as DICOM objects",
        "openapi_extra": _BODY,
        "response_class": Response,
        "responses": {**_ANSWERS, **_UNLIKE},
    }

    async def stored(request: Request, name: str | None, maps: bool) -> Response:
        served = desk.model(name)
        _require_accepted(request.headers.get("accept", ""))
        try:
            await asyncio.to_thread(get_ready, "An answer in DICOM")
        except NotInstalled as error:
            raise Refused(501, str(error), "not_installed") from None
        async with desk.bodies.read(request) as content:
            files = instances_in(content, request.headers.get("content-type", ""), desk.settings.max_images)
            request.state.noted = {"bytes": len(content), "files": len(files), "model": served.name}
            instances = await asyncio.to_thread(open_instances, files, desk.settings.max_images, maps)
            answered = await _answered(desk, served, instances, maps)
        outcomes = await asyncio.to_thread(_each, served, instances, answered)
        request.state.noted |= {
            "images": sum(map(len, answered)),
            "objects": sum(len(outcome.made) for outcome in outcomes),
        }
        return await asyncio.to_thread(_response, outcomes)

    @router.post("/dicomweb/studies", **told)
    async def store(request: Request, maps: WithMaps = True) -> Response:
        return await stored(request, None, maps)

    @router.post("/v1/models/{name}/dicomweb/studies", **told)
    async def store_by(request: Request, name: str, maps: WithMaps = True) -> Response:
        return await stored(request, name, maps)

    return router


async def _answered(desk: Desk, served: Served, instances: Sequence[Instance], maps: bool) -> list[Answered]:
    """What is said of the frames of each instance: all are asked about at once, so that they wait in line once."""
    frames = [frame for instance in instances for frame in instance.frames]
    found: list[tuple[Any, Any]] = []
    if maps and frames:
        drawn = await desk.explain(served, frames, served.method, None)
        found = [(one.explanation.prediction, one) for one in drawn]
    elif frames:
        found = [(answer, None) for answer in await desk.predict(served, frames)]
    there = iter(found)
    return [[next(there) for _ in instance.frames] for instance in instances]


def _each(served: Served, instances: Sequence[Instance], answered: Sequence[Answered]) -> list[Outcome]:
    return [objects_for(served, instance, said) for instance, said in zip(instances, answered, strict=True)]


def _require_accepted(accept: str) -> None:
    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if accept.strip() and not any(kind in _ACCEPTED for kind in wanted):
        text = (
            'What is made of instances comes back as multipart/related; type="application/dicom", which the request does '
            "not accept. Nothing is stored here."
        )
        raise Refused(406, text, "wrong_type")


def _response(outcomes: Sequence[Outcome]) -> Response:
    """The objects as parts and then what became of each instance; that alone where there is no object."""
    told = json.dumps(_told(outcomes)).encode()
    files = [made.content for outcome in outcomes for made in outcome.made]
    if not files:
        return Response(told, 409, media_type=_JSON)
    boundary = uuid.uuid4().hex  # 122 random bits: in no file
    begin = f"--{boundary}\r\n".encode()
    parts = [part for content in files for part in (begin, _PART.encode(), content, b"\r\n")]
    parts += [begin, f"Content-Type: {_JSON}\r\n\r\n".encode(), told, f"\r\n--{boundary}--\r\n".encode()]
    partly = any(outcome.failed or outcome.warned for outcome in outcomes)
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return Response(b"".join(parts), 202 if partly else 200, media_type=kind)


def _told(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The Store Instances Response of PS3.18, 10.5.3, in DICOM's JSON model."""
    told: dict[str, list[dict[str, Any]]] = {"00081198": [], "00081199": [], "0008119A": []}
    for outcome in outcomes:
        uids = outcome.instance.uids
        item: dict[str, Any] = {}
        if uids:
            item = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in zip(("00081150", "00081155"), uids, strict=True)}
        if outcome.failed:
            code, words = outcome.failed
            item["00081197"] = {"vr": "US", "Value": [code]}
            told["00081198" if uids else "0008119A"].append(item | _in_words(words))
        elif outcome.warned:
            code, words = outcome.warned
            item["00081196"] = {"vr": "US", "Value": [code]}
            told["00081199"].append(item | _in_words(words))
        else:
            told["00081199"].append(item)
    return {tag: {"vr": "SQ", "Value": items} for tag, items in told.items() if items}


def _in_words(words: str) -> dict[str, Any]:
    return _WORDS | {"00111001": {"vr": "UT", "Value": [words]}}
