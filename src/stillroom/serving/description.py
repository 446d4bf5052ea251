"""What openapi.json says besides the routes: examples that the served models take as they stand, and who needs the token."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from stillroom.serving import kserve
from stillroom.serving.access import OPEN
from stillroom.serving.predicting import REFUSALS
from stillroom.serving.shelf import Shelf

_SIDE = 16
_BOUNDARY = "stillroom"
_INFER = "/v2/models/{name}/infer"
_JSON = "application/json"


def described(plain: dict[str, Any], shelf: Shelf, *, guarded: bool) -> dict[str, Any]:
    """The description with its examples, which are those of the first model.

    Args:
        plain: what the framework makes of the routes; it is left as it is.
        shelf: the models.
        guarded: whether all but :data:`OPEN` needs the token.
    """
    told: dict[str, Any] = json.loads(json.dumps(plain))  # a copy in which no two places are the same object
    served = next(iter(shelf))
    asked, answered = kserve.examples(served)
    values = {
        "name": served.name,
        "version": answered["model_version"],
        "of": served.predictor.classes[0],
        "method": served.method,
        "as": "png",
        "maps": False,
    }
    for path, operations in told["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                parameter["example"] = values[parameter["name"]]
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                if kind != _JSON:
                    body["examples"] = {"file": _file(kind, path.replace("{name}", served.name))}
    infer = told["paths"][_INFER]["post"]
    infer["requestBody"]["content"][_JSON]["example"] = asked
    infer["responses"]["200"]["content"][_JSON]["example"] = answered
    return _with_token(told) if guarded else told


def _file(kind: str, path: str) -> dict[str, str]:
    """How a body of this type is sent, and where it is a picture, a small one."""
    how = {
        "multipart/form-data": "-F image=@one.png -F image=@two.png",
        "multipart/related": "--data-binary @parts -H 'Content-Type: multipart/related; boundary=B'",
    }.get(kind, f"--data-binary @file -H 'Content-Type: {kind}'")
    out = " -o answer" if path.endswith(("/explain", "/studies")) else ""
    shown = {"summary": f"curl {how} http://127.0.0.1:8000{path}{out}"}
    content = _pictures().get(kind)
    return shown if content is None else shown | {"externalValue": content}


@cache
def _pictures() -> dict[str, str]:
    """By type, a body that holds a picture of some pixels, as an address that holds its bytes (RFC 2397)."""
    grey = Image.fromarray(np.linspace(0, 255, _SIDE * _SIDE).astype(np.uint8).reshape(_SIDE, _SIDE))
    png, jpeg = BytesIO(), BytesIO()
    grey.save(png, "PNG")
    grey.save(jpeg, "JPEG")
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="one.png"\r\n\r\n'
    form = head.encode() + png.getvalue() + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return {
        "image/png": _address("image/png", png.getvalue()),
        "image/jpeg": _address("image/jpeg", jpeg.getvalue()),
        "application/octet-stream": _address("application/octet-stream", png.getvalue()),
        "multipart/form-data": _address(f"multipart/form-data;boundary={_BOUNDARY}", form),
    }


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _with_token(told: dict[str, Any]) -> dict[str, Any]:
    """The description, saying that all but :data:`OPEN` needs the token, and how it is sent."""
    ways = {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}}
    told.setdefault("components", {})["securitySchemes"] = ways
    for path, operations in told["paths"].items():
        for operation in operations.values() if path not in OPEN else ():
            operation["security"] = [{way: []} for way in ways]
            operation["responses"].setdefault("401", REFUSALS[401])
    return told
