"""Does any request, however malformed, make the server fail, fall, hang, leak memory or say what it should not?

    python proofs/malformed.py [--count 10000] [--seed 0] [--out runs/proofs/malformed]

Starts `stillroom serve` on a model made by hand, and sends it one request after another, of five sorts: drawn by schemathesis
from its openapi.json, as the description has them and as it does not; image files with changed bytes; DICOM files with
changed bytes or another layout, one or several in a request; tensors with changed values; and requests whose very bytes are
changed, head, lengths and chunks included. None may be answered with a status of 500 or more, or not at all within a
minute, or add a line to the log that is no JSON or tells of an exception, or keep the server from answering the next good
request rightly. Its memory may not go on growing from the third to the last quarter. Exits with 1 where one case failed.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from mutated_dicom import mutated, originals
from mutations import ODD, another, damaged, drawn
from PIL import Image
from recorded import carry_out, parser, workshop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))
from answering import Answering, form
from dicom_parts import related
from hand_made import write_model

SECONDS = 60
MEGABYTES = 20
"""By so much the median of the last quarter's memory may be above that of the quarter before. Earlier it grows, as libraries
are loaded and the largest images come: what they took stays with the process. 20 MB are 8 kB for each request."""
_SMALL = 200_000  # bytes of a DICOM file that is changed
_FROM_ONE_DRAW = 25
_WHOLE = 0.15  # share of files that are sent as they are, in requests that are not

Request = tuple[str, str, bytes | None, dict[str, str]]
"""Method, target, body and headers."""


def pictures() -> list[bytes]:
    """Files of several formats and depths."""
    rng, found = np.random.default_rng(0), []
    grey = rng.integers(0, 256, (40, 31)).astype(np.uint8)
    for array, kind in (
        *((grey, kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")),
        (np.stack([grey] * 3, axis=2), "JPEG"),
        (np.stack([grey] * 4, axis=2), "PNG"),
        (rng.integers(0, 65536, (30, 30)).astype(np.uint16), "PNG"),
    ):
        Image.fromarray(array).save(file := BytesIO(), kind)
        found.append(file.getvalue())
    return found


PICTURES = pictures()
TENSOR = {
    "id": "a",
    "inputs": [{"name": "images", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}],
    "outputs": [{"name": "probabilities"}, {"name": "logits"}],
}
TARGETS = ("/v1/predict", "/v1/explain", "/v1/models/first/predict", "/dicomweb/studies", "/v2/models/first/infer")


def of_images(rng: np.random.Generator) -> tuple[str, Request]:
    how, contents = _several(rng, lambda: drawn(PICTURES, rng), damaged)
    target = str(drawn(("/v1/predict", "/v1/explain?as=json&method=rise"), rng))
    if len(contents) == 1 and rng.random() < 0.5:
        kind = str(drawn(("image/png", "image/jpeg", "application/octet-stream", "application/dicom"), rng))
        return how, ("POST", target, contents[0], {"Content-Type": kind})
    body, kind = form([(str(number), content) for number, content in enumerate(contents)])
    return how, ("POST", target, body, {"Content-Type": kind})


def of_dicom(rng: np.random.Generator) -> tuple[str, Request]:
    files = _dicom_files()
    how, contents = _several(rng, lambda: drawn(files, rng), mutated)
    target = str(drawn(("/dicomweb/studies?maps=false", "/dicomweb/studies", "/v1/predict"), rng))
    if target == "/v1/predict":
        return how, ("POST", target, contents[0], {"Content-Type": "application/dicom"})
    body, kind = related(contents)
    return how, ("POST", target, body, {"Content-Type": kind})


def of_tensors(rng: np.random.Generator) -> tuple[str, Request]:
    content = json.dumps(TENSOR).encode()
    if rng.random() < 0.3:
        how, content = damaged(content, rng)
    else:
        how, value = another(TENSOR, rng)
        content = json.dumps(value).encode()
    return how, ("POST", "/v2/models/first/infer", content, {"Content-Type": "application/json"})


def of_bytes(rng: np.random.Generator) -> tuple[str, bytes]:
    """A whole request with its bytes changed, or with an odd head."""
    body, kind = form([("a", drawn(PICTURES, rng))])
    target, odd = str(drawn(TARGETS, rng)), str(drawn(ODD, rng)).encode("utf-8", "surrogateescape")[:70_000]
    length = str(len(body)).encode()
    heads = {
        "as it is": b"Content-Length: " + length,
        "odd length": b"Content-Length: " + odd,
        "two lengths": b"Content-Length: " + length + b"\r\nContent-Length: 3",
        "length and chunks": b"Content-Length: " + length + b"\r\nTransfer-Encoding: chunked",
        "chunks": b"Transfer-Encoding: chunked",
        "odd coding": b"Transfer-Encoding: " + odd,
        "odd header": odd + b": " + odd + b"\r\nContent-Length: " + length,
        "no length": b"X: y",
        "expects": b"Expect: 100-continue\r\nContent-Length: " + length,
        "upgrades": b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: " + length,
        "many headers": b"\r\n".join(b"H%d: x" % number for number in range(2000)),
    }
    how = str(drawn(list(heads), rng))
    if how == "chunks" and rng.random() < 0.7:
        body = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    host, line = (odd, f"POST {target}") if rng.random() < 0.1 else (b"127.0.0.1", f"POST {target}")
    if rng.random() < 0.1:
        line = (
            str(drawn(("GET", "PUT", "OPTIONS", "TRACE", "", "P\0ST"), rng)) + " " + str(drawn((target, "*", ""), rng))
        )
    first = line.encode() + (b" HTTP/1.1" if rng.random() < 0.9 else b" HTTP/" + odd[:10])
    whole = b"\r\n".join([first, b"Host: " + host, b"Content-Type: " + kind.encode(), heads[how], b"", body])
    if rng.random() < 0.6:
        change, whole = damaged(whole, rng)
        how += f", {change}"
    return how, whole * (1 if rng.random() < 0.95 else 3)


def _several(
    rng: np.random.Generator, choose: Callable[[], bytes], change: Callable[..., tuple[str, bytes]]
) -> tuple[str, list[bytes]]:
    """One file or up to three, most of them changed, and how the last one was."""
    how, contents = "as it is", []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        content = choose()
        if rng.random() > _WHOLE:
            how, content = change(content, rng)
        contents.append(content)
    return how, contents


def _dicom_files(known: list[bytes] = []) -> list[bytes]:  # noqa: B006, read once
    if not known:
        known += [path.read_bytes() for path in originals() if path.stat().st_size <= _SMALL]
    return known


def of_description(description: dict[str, Any], seed: int) -> Iterator[tuple[str, Any]]:
    """Requests by schemathesis, without end: of every operation some that fit the description and some that do not."""
    import schemathesis
    from schemathesis.generation import GenerationMode

    schemathesis.serializer("application/dicom", "multipart/related")(_as_bytes)
    operations = [result.ok() for result in schemathesis.openapi.from_dict(description).get_all_operations()]
    for turn in count(seed):
        for operation in operations:
            for mode in (GenerationMode.NEGATIVE, GenerationMode.POSITIVE):
                for number, case in enumerate(_cases(operation.as_strategy(generation_mode=mode), turn)):
                    if number % 2 and "name" in (case.path_parameters or {}):
                        case.path_parameters["name"] = "first"  # any other ends at once
                    yield f"{operation.label}, {mode.value}", case


def _cases(strategy: Any, seed: int) -> list[Any]:
    """Some that a strategy of hypothesis draws; none where there is nothing to draw."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import Unsatisfiable

    found: list[Any] = []

    @seeded(seed)
    @settings(
        max_examples=_FROM_ONE_DRAW,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=strategy)
    def draw(case: Any) -> None:
        found.append(case)

    with suppress(Unsatisfiable):  # nothing can be wrong with what takes nothing
        draw()
    return found


def _as_bytes(context: Any, value: Any) -> Any:
    from schemathesis.transport.serialization import serialize_binary

    return serialize_binary(value)


class Server:
    """The server under proof, with what is known of it.

    Args:
        model: an exported file.
        seed: for what schemathesis draws.
    """

    def __init__(self, model: Path, seed: int) -> None:
        self._answering = Answering(model, "--deadline", "60", "--explain-deadline", "60")
        self._kept = self._answering.connect()
        self._seen = len(self._answering.lines)
        self.pid = self._answering.process.pid
        self._good = self._ask_good()
        self._described = of_description(self._answering.get("/openapi.json").json, seed)

    def end(self) -> None:
        """Stop it."""
        self._kept.close()
        self._answering.__exit__()

    def described(self) -> tuple[str, str]:
        """Send the next request of schemathesis: what it was, and its status or an error."""
        import requests

        what, case = next(self._described)
        try:
            answer = case.call(base_url=f"http://127.0.0.1:{self._answering.port}", timeout=SECONDS)
        except requests.Timeout:
            return what, "no answer"
        except (requests.RequestException, ValueError, UnicodeError):  # what no client can send
            return what, "not sent"
        return what, str(answer.status_code)

    def sent(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> str:
        """Send a request: its status, or an error."""
        try:
            return str(self._answering.ask(method, target, body, headers).status)
        except TimeoutError:
            return "no answer"
        except (OSError, http.client.HTTPException):
            return "closed"

    def sent_raw(self, content: bytes) -> str:
        """Send bytes, say that no more come, and read to the end: the worst status."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self._answering.port), timeout=SECONDS) as connection:
            try:
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65_536):
                    answer += part
            except TimeoutError:
                return "no answer"
            except OSError:  # it was refused before all was sent
                pass
        statuses = [line[9:12].decode() for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        return max(statuses, default="closed")

    def verdict(self, status: str) -> str:
        """What is wrong after a request with this status; empty where nothing is."""
        wrong = bad_status(status)
        lines, self._seen = self._answering.lines[self._seen :], len(self._answering.lines)
        wrong = wrong or next(filter(None, map(bad_line, lines)), "")
        if self._answering.process.poll() is not None:
            return f"it has ended with {self._answering.process.returncode}"
        try:
            return wrong or ("" if self._ask_good() == self._good else "the next answer is wrong")
        except (OSError, http.client.HTTPException) as error:
            self._kept.close()
            return wrong or f"the next good request got no answer ({type(error).__name__})"

    @property
    def megabytes(self) -> float:
        """Its memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def _ask_good(self) -> tuple[int, Any]:
        reply = self._answering.ask("POST", "/v1/predict", PICTURES[0], {"Content-Type": "image/png"}, self._kept)
        return reply.status, reply.json


def bad_status(status: str) -> str:
    """What is wrong with a status, or with what is there in the place of one."""
    if status == "no answer" or (status.isdecimal() and int(status) >= 500):
        return f"answered {status}"
    return ""


def bad_line(line: str) -> str:
    """What is wrong with a line on standard error."""
    try:
        entry = json.loads(line)
    except ValueError:
        return f"it printed {line[:200]!r}"
    told = entry.get("event") == "failure" or "Traceback" in line or entry.get("level") in ("error", "critical")
    return f"its log says {line[:300]!r}" if told else ""


def grown(cases: Sequence[dict[str, Any]]) -> float:
    """MB by which a server has grown from its third to its last quarter; the most, where several took part."""
    found = [0.0]
    for server in {case["server"] for case in cases}:
        memory = [case["megabytes"] for case in cases if case["server"] == server]
        half, quarter = memory[len(memory) // 2 :], len(memory) // 4
        found.append(float(np.median(half[quarter:]) - np.median(half[:quarter])) if quarter else 0.0)
    return max(found)


def carried_out(server: Server, rng: np.random.Generator, number: int, kept: Path) -> dict[str, Any]:
    """One case: what was sent, and what came of it. What failed is kept as a file."""
    kinds: dict[str, Callable[[np.random.Generator], tuple[str, Any]]] = {
        "images": of_images,
        "DICOM": of_dicom,
        "tensors": of_tensors,
        "bytes": of_bytes,
    }
    kind = ("description", *kinds)[number % (1 + len(kinds))]
    content: Any = None
    if kind == "description":
        how, status = server.described()
    else:
        how, content = kinds[kind](rng)
        status = server.sent_raw(content) if kind == "bytes" else server.sent(*content)
    found = {"kind": kind, "how": how, "status": status, "megabytes": round(server.megabytes, 1), "server": server.pid}
    if wrong := server.verdict(status):
        if content is not None:
            kept.mkdir(exist_ok=True)
            (kept / f"{number}-{uuid.uuid4().hex[:6]}").write_text(repr(content))
        found["failed"] = wrong
    return found


def _span(cases: Sequence[dict[str, Any]]) -> str:
    tenths = [cases[place]["megabytes"] for place in range(0, len(cases), max(1, len(cases) // 10))]
    return " ".join(f"{one:.0f}" for one in tenths) + " MB"


def main(arguments: list[str] | None = None) -> int:
    """Do the cases, and print what came of them."""
    warnings.simplefilter("ignore")  # pydicom's, of the odd values that it is asked to write
    given = parser(__doc__, name="malformed", count=10_000).parse_args(arguments)
    folder = workshop(given)
    (folder / "first").mkdir(parents=True, exist_ok=True)
    os.environ.pop("STILLROOM_TOKEN", None)
    model = write_model(folder / "first" / "student.onnx", white=65535)
    server, cases = Server(model, given.seed), []
    try:
        for case in carry_out(given, lambda rng, number: carried_out(server, rng, number, folder / "failed")):
            cases.append(case)
            if "failed" in case:
                print(f"case {case['case']}, {case['kind']}, {case['how']}: {case['failed']}", flush=True)
    finally:
        server.end()
    for kind in dict.fromkeys(case["kind"] for case in cases):
        counts = Counter(case["status"] for case in cases if case["kind"] == kind)
        print(f"{kind}: {', '.join(f'{count:,} {status}' for status, count in sorted(counts.items()))}")
    failed, more = sum("failed" in case for case in cases), grown(cases)
    print(f"{len(cases):,} requests, {failed:,} failed; memory: {_span(cases)}; last quarter {more:+.0f} MB")
    if more > MEGABYTES:
        print(f"It has grown by more than {MEGABYTES} MB.")
    return 1 if failed or more > MEGABYTES else 0


if __name__ == "__main__":
    sys.exit(main())
