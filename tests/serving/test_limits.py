"""What is too large, too slow or too much is told so at once, and the server goes on."""

import gzip
import http.client
import socket
import time
import zlib
from contextlib import suppress

import numpy as np
import pytest
from answering import Answering, form, together
from dicom_files import write_dicom
from PIL import Image

MB = 1_000_000
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'


@pytest.fixture(scope="module")
def small(model):
    """A server that takes bodies of 1 MB and 4 images, and waits two seconds for whoever is slow."""
    with Answering(model, "--max-mb", 1, "--max-images", 4, "--body-seconds", 1.5, "--head-seconds", 1.5) as running:
        yield running


@pytest.fixture(scope="module")
def png(images):
    return next(path for path in images if path.name == "grey1.png").read_bytes()


def read_reply(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def require_alive(server, png):
    assert server.post("/v1/predict", png, "image/png").status == 200


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain", "/v2/models/first/infer"])
def test_a_body_that_declares_to_be_too_large_is_refused_before_it_is_sent(small, path, png):
    with small.socket() as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {50 * MB}\r\n\r\n"
        connection.sendall(head.encode())
        status, _, body = read_reply(connection)
    assert status == 413
    assert b"1 MB" in body
    require_alive(small, png)


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=x"])
def test_a_body_in_chunks_is_refused_when_it_has_become_too_large(small, png, kind):
    with small.socket() as connection:
        head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        chunk = b"10000\r\n" + b"\0" * 65536 + b"\r\n"
        for _ in range(20):
            connection.sendall(chunk)
        status, _, _ = read_reply(connection)
    assert status == 413
    require_alive(small, png)


def test_who_waits_for_leave_to_send_is_refused_without_sending(small):
    with small.socket() as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 50000000\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_too_many_images_are_refused(small, png, tmp_path):
    body, kind = form([(f"{number}.png", png) for number in range(5)])
    assert small.post("/v1/predict", body, kind).status == 413
    frames = write_dicom(tmp_path / "five", np.zeros((5, 8, 8), np.uint8)).read_bytes()
    reply = small.post("/v1/predict", frames, "application/dicom")
    assert reply.status == 413
    assert "4 images, frames of DICOM files counted" in reply.json["error"]
    body, kind = form([(f"{number}.png", png) for number in range(4)])
    assert small.post("/v1/predict", body, kind).status == 200


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"", "image/png", 400, "no body"),
        (b"{}", "application/json", 415, "Send an image as the body"),
        (b"--x\r\n\r\nno end", "multipart/form-data; boundary=x", 400, "damaged"),
        (b"no form", "multipart/form-data", 400, "damaged"),
        (b"no form", "multipart/form-data; boundary=y", 400, "damaged"),
        (FIELD, "multipart/form-data; boundary=x", 400, "no file"),
    ],
)  # fmt: skip
def test_a_body_that_holds_no_image_is_refused_in_words(small, body, kind, status, words):
    reply = small.post("/v1/predict", body, kind)
    assert (reply.status, words in reply.json["error"]) == (status, True), reply.body


def bomb(side: int) -> bytes:
    """A PNG of ``side`` x ``side`` black pixels of one bit."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    packer, packed = zlib.compressobj(9), b""
    for _ in range(side):
        packed += packer.compress(bytes(1 + (side + 7) // 8))
    packed += packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_a_pixel_bomb_is_refused_by_its_head(small, png):
    content = bomb(20_000)
    assert len(content) < MB
    start = time.monotonic()
    reply = small.post("/v1/predict", content, "image/png")
    assert time.monotonic() - start < 2
    assert reply.status == 422
    assert "at most 50 million are taken here: make it smaller" in reply.json["predictions"][0]["error"]
    require_alive(small, png)


@pytest.fixture(scope="module")
def narrow(model):
    """A server that takes images of up to a million pixels."""
    with Answering(model, "--max-megapixels", 1) as running:
        yield running


def test_an_image_of_too_many_pixels_is_refused_by_its_head(narrow, png, tmp_path):
    head = bomb(2000)[:-300]  # of which what follows is damaged, which nobody gets to see
    dicom = write_dicom(tmp_path / "large", np.zeros((1200, 1000), np.uint8)).read_bytes()
    for content, found in ((head, "4.0"), (dicom, "1.2")):
        reply = narrow.post("/v1/predict", content)
        assert reply.status == 422
        wanted = f"the image has {found} million pixels; at most 1 million are taken here: make it smaller"
        assert reply.json["predictions"][0]["error"] == wanted
        assert wanted in narrow.post("/v1/explain", content).json["explanation"]["error"]
    assert narrow.post("/v1/predict", bomb(1000)).status == 200
    require_alive(narrow, png)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain", "/v2/models/first/infer"])
def test_a_compressed_body_is_refused(small, png, path):
    reply = small.post(path, gzip.compress(png), "image/png", **{"Content-Encoding": "gzip"})
    assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")
    assert "without Content-Encoding" in reply.json["error"]
    assert small.post("/v1/predict", png, "image/png", **{"Content-Encoding": "identity"}).status == 200


def test_a_body_that_does_not_come_is_given_up(small, png):
    with small.socket() as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n0123")
        start = time.monotonic()
        status, headers, _ = read_reply(connection)
        assert 1 < time.monotonic() - start < 5
        assert (status, headers["connection"]) == (408, "close")
        assert connection.recv(1) == b""
    require_alive(small, png)


@pytest.mark.parametrize("begun", [b"", b"POST /v1/predict HTTP/1.1\r\nHost: loc"])
def test_a_head_that_does_not_come_is_given_up_however_often_a_byte_does(small, begun):
    with small.socket() as connection:
        connection.sendall(begun)
        start = time.monotonic()
        connection.settimeout(0.3)
        received = None
        while received is None and time.monotonic() < start + 6:
            try:
                received = connection.recv(100)
            except TimeoutError:
                if begun:
                    connection.sendall(b"a")
        assert 1 < time.monotonic() - start < 5
        assert received.startswith(b"HTTP/1.1 408") if begun else received == b""


def test_a_head_without_end_is_given_up(small):
    with small.socket() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        with suppress(ConnectionError):
            for number in range(400):
                connection.sendall(f"X-{number}: {'y' * 500}\r\n".encode())
                time.sleep(0.001)
        received = b""
        with suppress(ConnectionError):
            received = connection.recv(100)
        assert received[:12] in (b"", b"HTTP/1.1 431")


def test_a_sender_that_breaks_off_costs_nothing(small, png):
    for _ in range(20):
        with small.socket() as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n0123")
    require_alive(small, png)


def test_whoever_asks_thrice_and_leaves_is_no_failure(small, png):
    """uvicorn tells only the last of several requests on a connection that nobody reads any more."""
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(png)}\r\n\r\n".encode()
    for _ in range(10):
        with small.socket() as connection:
            connection.sendall((head + png) * 3)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while connection.recv(65_536):
                    pass
    require_alive(small, png)
    assert not [entry for entry in small.log if entry["event"] == "failure"]


@pytest.fixture(scope="module")
def slow_image(tmp_path_factory):
    """A picture that takes some hundred milliseconds to decode and resize."""
    path = tmp_path_factory.mktemp("slow") / "large.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (3000, 3000), dtype=np.uint8)).save(path, compress_level=1)
    return path.read_bytes()


def test_who_would_wait_too_long_is_told_at_once_when_to_come_again(model, slow_image, png):
    with Answering(model, "--deadline", 0.5, "--threads", 1, "--max-mb", 20) as server:
        quiet = [server.post("/v1/predict", slow_image) for _ in range(3)]
        assert {reply.status for reply in quiet} == {200}

        def ask(number):
            start = time.monotonic()
            reply = server.post("/v1/predict", slow_image)
            return reply, time.monotonic() - start

        replies = together(24, ask)
        statuses = [reply.status for reply, _ in replies]
        assert set(statuses) == {200, 503}
        refused = [reply for reply, _ in replies if reply.status == 503]
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        assert all("Ask again in" in reply.json["error"] for reply in refused)
        require_alive(server, png)
        counts = server.get("/metrics").body.decode()
        assert f'stillroom_refusals_total{{reason="busy"}} {len(refused)}.0' in counts
        assert 'stillroom_waiting{line="answer"} 0.0' in counts
