"""Bodies of requests: read whole into memory within bounds of size and time, and taken apart. Nothing is written to disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from stillroom.serving.refusals import Refused

HELD = 16
"""So many of the largest bodies may be held at once; more are told to come again."""
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Sent:
    """A file that was sent.

    Attributes:
        name: what its sender calls it, without folders; None where it does not say.
        content: its bytes.
    """

    name: str | None
    content: bytes


class Bodies:
    """What bounds the bodies of all requests together.

    Args:
        most: bytes of one.
        seconds: within which one must have come.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, which counts as held until the block inside ends.

        Raises:
            Refused: it is compressed, empty or too large, also by what it declares, which then is not read; it came too
                slowly; or all bodies together are too large.
        """
        if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            text = "Bodies are taken as they are: send it without Content-Encoding."
            raise Refused(415, text, "wrong_type", {"accept-encoding": "identity"})
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.most:
            raise self.too_large()
        parts: list[bytes] = []
        taken = 0
        try:
            async with asyncio.timeout(self.seconds):
                async for part in request.stream():
                    taken += len(part)
                    self._held += len(part)
                    if taken > self.most:
                        raise self.too_large()
                    if self._held > HELD * self.most:
                        text = "Too much is being sent at once. Ask again in 1 s."
                        raise Refused(503, text, "busy", {"retry-after": "1"})
                    parts.append(part)
            content = b"".join(parts)
            del parts
            if not content:
                raise Refused(400, "The request has no body: send an image.", "empty")
            yield content
        except TimeoutError:
            text = f"The request's body did not come within {self.seconds:g} s."
            raise Refused(408, text, "slow", {"connection": "close"}) from None
        except ClientDisconnect:
            raise Refused(400, "The request's body broke off.", "broken_off", {"connection": "close"}) from None
        finally:
            self._held -= taken

    def too_large(self) -> Refused:
        """What is told of a body that is too large."""
        return Refused(413, f"A request may have {self.most / 1e6:g} MB: send fewer or smaller images.", "too_large")


def files_in(content: bytes, content_type: str, most: int) -> list[Sent]:
    """The files of a body: all parts of a form that are files, else the body itself.

    Raises:
        Refused: the form is damaged, holds no file or more than ``most``; or the body's type is none of an image.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        boundary = options.get(b"boundary", b"")
        sent = _parts(content, boundary, most, _name_in_form)
        if not sent:
            raise Refused(400, "The form holds no file: send each image as a part with a file name.", "empty")
        return sent
    main = kind.partition(b"/")[0]
    if main in (b"", b"image") or kind in (b"application/dicom", b"application/octet-stream"):
        return [Sent(None, content)]
    text = (
        "Send an image as the body and its type in the header Content-Type (image/png, application/dicom, "
        "application/octet-stream), or several images as a form."
    )
    raise Refused(415, text, "wrong_type")


def instances_in(content: bytes, content_type: str, most: int) -> list[Sent]:
    """The DICOM files of a body: parts of multipart/related, else the body itself.

    Raises:
        Refused: the parts are damaged, none is of DICOM's type or more than ``most`` are; or the body is of another type.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"application/dicom":
        return [Sent(None, content)]
    if kind == b"multipart/related" and options.get(b"type", b"application/dicom").lower() == b"application/dicom":
        sent = _parts(content, options.get(b"boundary", b""), most, _is_instance)
        if not sent:
            raise Refused(400, "No part of the body is of the type application/dicom.", "empty")
        return sent
    text = 'Send DICOM files as multipart/related; type="application/dicom", or one as application/dicom.'
    raise Refused(415, text, "wrong_type")


Headers = dict[bytes, bytes]


def _name_in_form(headers: Headers) -> tuple[bool, str | None]:
    """Whether a form's part is a file, and its name without folders."""
    _, options = parse_options_header(headers.get(b"content-disposition", b""))
    called = options.get(b"filename", b"").decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return b"filename" in options, called[:_LONGEST_NAME] or None


def _is_instance(headers: Headers) -> tuple[bool, str | None]:
    """Whether a part is a DICOM file; they have no names."""
    kind, _ = parse_options_header(headers.get(b"content-type", b""))
    return kind == b"application/dicom", None


def _parts(
    content: bytes, boundary: bytes, most: int, name_of: Callable[[Headers], tuple[bool, str | None]]
) -> list[Sent]:
    found: list[Sent] = []
    headers: Headers = {}
    name, value, body = bytearray(), bytearray(), bytearray()
    whole: list[bool] = []

    def header_ended() -> None:
        headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def ended() -> None:
        is_file, called = name_of(headers)
        if is_file:
            if len(found) == most:
                raise Refused(413, f"A request may have {most} images: send them in several.", "too_many")
            found.append(Sent(called, bytes(body)))
        headers.clear()
        body.clear()

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: value.extend(data[start:end]),
                "on_header_end": header_ended,
                "on_part_data": lambda data, start, end: body.extend(data[start:end]),
                "on_part_end": ended,
                "on_end": lambda: whole.append(True),
            },
        )
        parser.write(content)
    except MultipartParseError:
        whole = []
    if not whole:
        raise Refused(400, "The body is damaged: its parts do not end as its boundary says.", "damaged")
    return found
