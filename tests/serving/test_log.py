"""The log says what was asked of which route and how it ended; of whom and of what it says nothing."""

import numpy as np
import pytest
from answering import Answering, form
from dicom_files import SECRETS, write_dicom


@pytest.fixture(scope="module")
def spoken(model, tmp_path_factory):
    """A server that was asked of a patient in every way that leads to an answer or an error, ended, with its counts."""
    folder = tmp_path_factory.mktemp("patient")
    good = write_dicom(folder / "good", np.full((24, 24), 900, np.uint16)).read_bytes()
    damaged = good[: len(good) // 2]
    with Answering(model) as server:
        for body in (good, damaged, good.replace(b"DICM", b"DICX")):
            server.post("/v1/predict", body, "application/dicom")
            server.post("/v1/explain", body, "application/dicom")
        server.post("/v1/predict", *form([("Quagmire_Zebulon.png", b"x"), ("Quagmire.dcm", good)]))
        server.get("/v1/models/Quagmire/predict?name=Zebulon")
        server.get("/Quagmire/Zebulon")
        server.post("/v1/explain?of=Quagmire", good)
        server.post("/v1/explain?method=Quagmire", good)
        server.ask("DELETE", "/v1/predict")
        server.post("/v1/predict", good, "application/Quagmire", Authorization="Basic Quagmire", Cookie="Quagmire=1")
        server.post("/v1/predict", b"--a\r\nQuagmire[]: x\r\n\r\nx\r\n--a--", "multipart/form-data; boundary=a")
        with server.socket() as connection:
            connection.sendall(b"Quagmire is no request\r\n\r\n")
            connection.recv(100)
        counts = server.get("/metrics").body.decode()
    return server, counts


def test_no_line_names_the_patient(spoken):
    server, counts = spoken
    said = "".join(server.lines) + counts
    assert not [secret for secret in SECRETS if secret in said]
    assert "127.0.0.1" not in "".join(server.lines[1:])


def test_each_request_has_a_line(spoken):
    server, _ = spoken
    lines = [line for line in server.log if line["event"] == "request"]
    assert len(lines) == 15
    assert lines[0] == {
        "time": lines[0]["time"], "event": "request", "method": "POST", "route": "/v1/predict", "status": 200,
        "ms": lines[0]["ms"], "bytes": lines[0]["bytes"], "files": 1, "images": 1, "model": "first",
    }  # fmt: skip
    routes = {line["route"] for line in lines}
    assert routes == {"/v1/predict", "/v1/explain", "/v1/models/{name}/predict", "/metrics", "unknown"}
    assert {line["status"] for line in lines} == {200, 400, 404, 405, 415, 422}
    assert not [line for line in server.log if line["event"] == "failure"]


def test_every_line_is_json(spoken):
    server, _ = spoken
    assert [line for line in server.lines if not line.startswith(("{", "Serving at"))] == []


def test_answers_are_counted_by_kind(spoken):
    _, counts = spoken
    assert 'stillroom_answers_total{kind="unreadable",model="first"}' in counts
    assert 'stillroom_requests_total{route="/v1/predict",status="422"} 2.0' in counts
    assert 'stillroom_refusals_total{reason="wrong_type"} 1.0' in counts
    assert 'stillroom_request_seconds_count{route="/v1/explain"} 5.0' in counts
