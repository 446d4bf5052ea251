"""Bodies of multipart/related made and taken apart, as DICOMweb has them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from typing import Any


def related(files: Sequence[bytes], kind: str = "application/dicom") -> tuple[bytes, str]:
    """A body of these files, and its type."""
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
    body = b"".join(head + content + b"\r\n" for content in files) + f"--{boundary}--\r\n".encode()
    return body, f'multipart/related; type="{kind}"; boundary={boundary}'


def parts_of(body: bytes, kind: str) -> tuple[list[bytes], dict[str, Any]]:
    """The DICOM files of an answer, and what it says became of each instance."""
    (boundary,) = re.findall(r"boundary=(\w+)", kind)
    before, *parts, after = (b"\r\n" + body).split(f"\r\n--{boundary}".encode())
    assert before == b""
    assert after == b"--\r\n"
    files, told = [], {}
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        if b"application/dicom+json" in head:
            told = json.loads(content)
        else:
            assert b"application/dicom; transfer-syntax=1.2.840.10008.1.2.1" in head
            files.append(content)
    return files, told
