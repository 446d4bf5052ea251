"""Hand what an Orthanc stores to Stillroom, and store what comes back beside it.

    stillroom serve runs/first
    python deploy/orthanc.py --orthanc http://127.0.0.1:8042 --stillroom http://127.0.0.1:8000

Follows Orthanc's list of changes, so that nothing is lost while it or the server is away, and asks again where the server
has no room. Answers have the same UIDs every time: what is sent twice is stored once. Needs Python and nothing else, so that
this file can be copied to where Orthanc runs. User and password of Orthanc are taken from ORTHANC_LOGIN (``user:password``).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

MAKER = "Stillroom"
OF_THE_INSTANCE = (400, 409, 413, 415, 422)
"""Refusals that come again however often it is sent; any other, as of a wrong token, is of how the server is asked."""
AT_ONCE = 100
SECONDS = 120.0
AGAIN_S = 5.0
WATCHED_S = 1.0


class Place:
    """A server: its address, and what every request to it bears."""

    def __init__(self, url: str, authorization: str | None) -> None:
        self._url, self._authorization = url.rstrip("/"), authorization

    def ask(self, path: str, body: bytes | None = None, kind: str = "application/dicom") -> tuple[bytes, str]:
        """The content of an answer and its type. Raises HTTPError where it is a refusal, OSError where there is none."""
        headers = {"Authorization": self._authorization} if self._authorization else {}
        if body is not None:
            headers["Content-Type"] = kind
        with urlopen(Request(self._url + path, body, headers), timeout=SECONDS) as answer:
            return answer.read(), answer.headers.get("Content-Type", "")


def parts_of(body: bytes, kind: str) -> Iterator[bytes]:
    """The DICOM files of an answer."""
    boundary = re.search(r'boundary="?([^";]+)', kind)
    if boundary is None:
        raise ValueError(f"The server answered with {kind or 'nothing known'}.")
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if re.search(rb"(?mi)^content-type: *application/dicom *(;|\r?$)", head):
            yield content


def answer(instance: str, orthanc: Place, stillroom: Place) -> str:
    """Have one instance answered, and say what became of it."""
    try:
        tags = json.loads(orthanc.ask(f"/instances/{instance}/simplified-tags")[0])
        if tags.get("Manufacturer") == MAKER or "Rows" not in tags:
            return "passed over: no picture, or an answer itself"
        content, _ = orthanc.ask(f"/instances/{instance}/file")
    except HTTPError as error:
        if error.code == 404:  # deleted meanwhile
            return "gone"
        raise
    while True:
        try:
            files = list(parts_of(*stillroom.ask("/dicomweb/studies", content)))
            break
        except HTTPError as error:
            if error.code in OF_THE_INSTANCE:
                return f"refused ({error.code}): {error.read()[:500].decode(errors='replace')}"
            if error.code != 503:
                raise
            time.sleep(float(error.headers.get("Retry-After") or AGAIN_S))
    for file in files:
        orthanc.ask("/instances", file)
    return f"{len(files)} objects stored"


def follow(orthanc: Place, stillroom: Place, last: Path, once: bool) -> None:
    """Answer every instance that Orthanc stores.

    Args:
        orthanc, stillroom: where they are.
        last: file that holds the number of the last change that was dealt with.
        once: end when there is nothing more, instead of waiting for more.
    """
    done = int(last.read_text()) if last.exists() else 0
    while True:
        found = json.loads(orthanc.ask(f"/changes?since={done}&limit={AT_ONCE}")[0])
        for change in found["Changes"]:
            if change["ChangeType"] == "NewInstance":
                print(change["ID"], answer(change["ID"], orthanc, stillroom), flush=True)
            done = change["Seq"]
            keep(last, done)
        if found["Done"]:
            if once:
                return
            time.sleep(WATCHED_S)


def keep(last: Path, done: int) -> None:
    """Note the last change, whole or not at all."""
    beside = last.with_name(f"{last.name}.new")
    beside.write_text(str(done))
    beside.replace(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orthanc", default="http://127.0.0.1:8042")
    parser.add_argument(
        "--stillroom", default="http://127.0.0.1:8000", help="with /v1/models/NAME where several are served"
    )
    parser.add_argument("--token-file", type=Path, help="a file that holds the server's token")
    parser.add_argument("--last", type=Path, default=Path("stillroom-last-change"), help="where it notes how far it is")
    parser.add_argument("--once", action="store_true", help="end when all that is stored is answered")
    given = parser.parse_args()
    login = os.environ.get("ORTHANC_LOGIN")
    token = given.token_file.read_text("utf-8").strip() if given.token_file else None
    orthanc = Place(given.orthanc, "Basic " + base64.b64encode(login.encode()).decode() if login else None)
    stillroom = Place(given.stillroom, f"Bearer {token}" if token else None)
    while True:
        try:
            follow(orthanc, stillroom, given.last, given.once)
            return
        except (OSError, HTTPException) as error:
            told = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else str(error)
            if given.once:
                sys.exit(f"error: Orthanc or the server does not answer: {told}.")
            print(f"Orthanc or the server does not answer ({told}); again in {AGAIN_S:g} s.", flush=True)
            time.sleep(AGAIN_S)


if __name__ == "__main__":
    main()
