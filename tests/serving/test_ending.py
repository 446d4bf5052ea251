"""A server ends, and exchanges its models, without losing what it has accepted; several processes do as one does."""

import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from answering import Answering, together
from hand_made import write_model

from stillroom import Predictor

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def own(model, tmp_path):
    """A model that may be exchanged."""
    return shutil.copy(model, tmp_path / "own.onnx")


def exchange(path, **changes):
    """Put another model there, as an export does: whole at once."""
    new = write_model(path.with_suffix(".new"), **changes)
    new.replace(path)
    return Predictor.load(path).digest


@pytest.fixture(scope="module")
def content(images):
    return next(path for path in images if path.name == "grey1.png").read_bytes()


def test_what_was_accepted_is_answered_and_nothing_new_is(model, content):
    with Answering(model) as server, server.socket() as slow:
        head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        slow.sendall(head.encode() + content[:50])
        time.sleep(0.3)
        kept = server.connect()
        assert server.ask("GET", "/v2/health/ready", over=kept).status == 200
        server.send_signal(signal.SIGTERM)
        server.wait_for('"draining"')
        assert server.ask("GET", "/v2/health/ready", over=kept).status == 503
        assert server.ask("GET", "/v2/health/live", over=kept).status == 200
        refused = server.ask("POST", "/v1/predict", content, over=kept)
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert server.process.poll() is None
        slow.sendall(content[50:])
        received = b""
        while part := slow.recv(65536):
            received += part
        assert received.startswith(b"HTTP/1.1 200")
        assert b'"predictions"' in received
        assert server.process.wait(10) == 0


def test_who_never_finishes_does_not_keep_it_from_ending(model):
    with Answering(model, "--drain-seconds", 1) as server, server.socket() as stuck:
        stuck.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        time.sleep(0.2)
        start = time.monotonic()
        assert server.end(signal.SIGINT, 15) == 0
        assert 0.8 < time.monotonic() - start < 10


def test_a_reload_loses_no_request(own, content, tmp_path):
    before = Predictor.load(own).digest
    with Answering(f"m={own}") as server:
        replies, ended = [], threading.Event()

        def ask(_):
            connection = server.connect()
            while not ended.is_set():
                replies.append(server.ask("POST", "/v1/predict", content, over=connection))

        def change(_):
            time.sleep(0.5)
            for temperature in (2.0, 3.0, 4.0):
                digests.append(exchange(own, temperature=temperature))
                server.send_signal(signal.SIGHUP)
                server.wait_for(digests[-1])
                time.sleep(0.3)
            ended.set()

        digests = [before]
        failed = [one for one in together(6, lambda number: change(0) if number == 0 else ask(number)) if one]
        assert not failed
        assert {reply.status for reply in replies} == {200}
        told = [reply.json["model"]["digest"] for reply in replies]
        assert set(told) == set(digests)
        assert len(set(digests)) == 4

        own.write_bytes(b"no model")
        server.send_signal(signal.SIGHUP)
        server.wait_for('"loaded": false')
        assert "is not an ONNX model that can be opened" in server.log[-1]["text"]
        assert server.post("/v1/predict", content).json["model"]["digest"] == digests[-1]


def test_a_model_is_loaded_anew_over_http_by_whoever_has_the_token(own, content):
    with Answering(f"m={own}", environment={"STILLROOM_TOKEN": TOKEN}) as server:
        path, bearer = "/v2/repository/models/m/load", {"Authorization": f"Bearer {TOKEN}"}
        assert server.post(path, b"{}", "application/json").status == 401
        digest = exchange(own, temperature=2.0)
        assert server.post(path, b"{}", "application/json", **bearer).json == {"name": "m", "digest": digest}
        assert server.post("/v1/predict", content, **bearer).json["model"]["digest"] == digest
        own.write_bytes(b"no model")
        reply = server.post(path, b"", "application/json", **bearer)
        assert reply.status == 422
        assert "changed or damaged" in reply.json["error"] or "not an ONNX model" in reply.json["error"]
        assert server.post("/v1/predict", content, **bearer).json["model"]["digest"] == digest


def test_without_a_token_nobody_loads_over_http(server):
    assert server.post("/v2/repository/models/first/load", b"", "application/json").status == 403


def test_processes_answer_as_one(own, content):
    with Answering(f"m={own}", "--workers", 2, environment={"STILLROOM_TOKEN": TOKEN}) as server:
        bearer = {"Authorization": f"Bearer {TOKEN}"}

        def digests():
            replies = together(16, lambda _: server.post("/v1/predict", content, **bearer))
            assert {reply.status for reply in replies} == {200}
            return {reply.json["model"]["digest"] for reply in replies}

        assert digests() == {Predictor.load(own).digest}
        counts = server.get("/metrics", **bearer).body.decode()
        assert re.search(r"^stillroom_answers_total\{.*\} 16\.0$", counts, re.MULTILINE)

        digest = exchange(own, temperature=2.0)
        assert server.post("/v2/repository/models/m/load", b"", **bearer).status == 200
        end = time.monotonic() + 10
        while (found := digests()) != {digest} and time.monotonic() < end:
            time.sleep(0.1)
        assert found == {digest}

        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        serving = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(serving) == 2
        os.kill(int(serving[0]), signal.SIGKILL)
        server.wait_for('"fallen"')
        time.sleep(2)
        assert digests() == {digest}
        assert server.end() == 0
