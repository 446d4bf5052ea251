"""KServe's protocol: health, metadata, and tensors whose answers are the exported file's."""

import json

import numpy as np
import pytest

from stillroom import Predictor


def asked(images: np.ndarray, **changes) -> bytes:
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
    return json.dumps({"inputs": [tensor | changes]}).encode()


def test_health_and_metadata(server, model):
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"ready": True}
    assert server.get("/v2").json["name"] == "stillroom"
    told = server.get("/v2/models/first").json
    predictor = Predictor.load(model)
    assert told["versions"] == [predictor.digest[:12]]
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert [one["name"] for one in told["outputs"]] == ["logits", "probabilities", "distance"]
    assert server.get(f"/v2/models/first/versions/{told['versions'][0]}/ready").json["ready"] is True
    for path in ("/v2/models/second", "/v2/models/second/ready", "/v2/models/first/versions/7"):
        reply = server.get(path)
        assert reply.status == 404
        assert set(reply.json) == {"error"}


def test_tensors_are_those_of_the_file(server, model):
    images = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    expected = Predictor.load(model).ask(images, "logits", "probabilities", "distance")
    reply = server.post("/v2/models/first/infer", asked(images), "application/json").json
    told = server.get("/v2/models/first").json["outputs"]
    assert [one["name"] for one in reply["outputs"]] == [one["name"] for one in told]
    wanted = json.loads(asked(images)) | {"id": "7", "outputs": [{"name": "distance"}, {"name": "logits"}]}
    named = server.post("/v2/models/first/infer", json.dumps(wanted).encode(), "application/json").json
    assert named["id"] == "7"
    assert [one["name"] for one in named["outputs"]] == ["distance", "logits"]
    for one in (*reply["outputs"], *named["outputs"]):
        values = np.array(one["data"], np.float32).reshape(one["shape"])
        np.testing.assert_allclose(values, expected[one["name"]], atol=1e-6)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"no json", "not as the protocol"),
        (b"[]", "not as the protocol"),
        (b'{"inputs": []}', "not as the protocol"),
        (b'{"inputs": [{"name": "images"}]}', "not as the protocol"),
        (b"[" * 100_000, "not as the protocol"),
        (asked(np.zeros((1, 1, 8, 8)), name="pictures"), "one tensor `images`"),
        (asked(np.zeros((1, 1, 8, 8)), datatype="INT8"), "FP32"),
        (asked(np.zeros((1, 1, 4, 4))), "shape [N, 1, 8, 8]"),
        (asked(np.zeros((300, 1, 8, 8))), "N from 1 to 256"),
        (asked(np.zeros((1, 1, 8, 8)), shape=[2, 1, 8, 8]), "numbers of its shape"),
        (asked(np.zeros((1, 1, 8, 8)), data=["a"] * 64), "numbers of its shape"),
        (asked(np.zeros((1, 1, 8, 8)), name={"a": 1}), "not as the protocol"),
        (asked(np.zeros((1, 1, 8, 8)), datatype=[1]), "not as the protocol"),
        (asked(np.zeros((1, 1, 8, 8))).replace(b'"inputs"', b'"outputs": [{"name": {}}], "inputs"'), "not as the protocol"),
        (asked(np.zeros((1, 1, 8, 8)), data=[1e308] * 64), "between 0, black, and 1, white"),
        (asked(np.zeros((1, 1, 8, 8)), data=[1e999] * 64), "between 0, black, and 1, white"),
        (asked(np.full((1, 1, 8, 8), 255.0)), "between 0, black, and 1, white"),
        (asked(np.zeros((1, 1, 8, 8))).replace(b'"inputs"', b'"outputs": [{"name": "map"}], "inputs"'), "has these outputs"),
        (asked(np.zeros((1, 1, 8, 8))).replace(b'"inputs"', b'"outputs": [7], "inputs"'), "not as the protocol"),
    ],
)  # fmt: skip
def test_what_is_no_tensor_of_the_model_is_refused_in_words(server, body, words):
    reply = server.post("/v2/models/first/infer", body, "application/json")
    assert reply.status == 400
    assert words in reply.json["error"]
