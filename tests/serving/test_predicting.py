"""Answers over HTTP are those of `predict` and `explain`, in every word, whoever else asks at the same time."""

import base64
import hashlib
import json
import re
import time
from io import BytesIO
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from answering import Answering, form, sent, together
from PIL import Image

from stillroom import Predictor, explain
from stillroom.serving.predicting import _PREDICT
from stillroom.serving.shelf import NOTICE


@pytest.fixture(scope="module")
def known(model, images):
    """What `predict` says of each image, by file name and frame."""
    predictor = Predictor.load(model)
    return {(one.path.name, one.frame): one.to_dict() for one in predictor.predict(images)}


def require_same(given, expected):
    """Every word, and every number to 1e-6; of the path the name."""
    assert set(given) == set(expected)
    for key, value in expected.items():
        if key == "probabilities":
            assert given[key] == pytest.approx(value, abs=1e-6)
        elif key == "foreign_score" and value is not None:
            assert given[key] == pytest.approx(value, abs=1e-4)
        elif key != "path":
            assert given[key] == value, key


def test_the_images_get_answers_of_every_kind(known):
    answers = {one["answer"] for one in known.values()}
    assert {"dark", "bright", "dark or bright", "not this kind of image", None} <= answers
    assert any(one["flagged"] for one in known.values())


def patiently(server, connection, *sent):
    """The reply, asked for again where a busy server has no room, as clients do."""
    for _ in range(100):
        if (reply := server.ask("POST", "/v1/predict", *sent, over=connection)).status != 503:
            break
        time.sleep(0.3)
    return reply


def test_32_clients_get_what_predict_says(server, images, known):
    def ask(number):
        rng, connection = np.random.default_rng(number), server.connect()
        found = []
        for _ in range(6):
            chosen = rng.permutation(len(images))[: rng.integers(1, 5)]
            if len(chosen) == 1:
                path = images[chosen[0]]
                reply = patiently(server, connection, path.read_bytes())
                found += [(path.name, one) for one in reply.json["predictions"]]
            else:
                body, kind = form(sent([images[place] for place in chosen]))
                reply = patiently(server, connection, body, {"Content-Type": kind})
                found += [(one["path"], one) for one in reply.json["predictions"]]
            errors = [one["error"] for one in reply.json["predictions"]]
            assert reply.status == (422 if all(errors) else 200)
            assert reply.json["notice"] == NOTICE
        return found

    replies = together(32, ask)
    assert not [reply for reply in replies if isinstance(reply, Exception)]
    assert sum(map(len, replies)) > 400
    seen = set()
    for name, one in (pair for reply in replies for pair in reply):
        require_same(one, known[name, one["frame"]])
        seen.add((name, one["frame"]))
    assert seen == set(known)
    assert max(entry.get("images", 0) for entry in server.log) > 1


def test_an_answer_names_the_model_by_its_digest(server, model, images):
    reply = server.post("/v1/predict", images[0].read_bytes(), "image/jpeg")
    assert reply.json["model"] == {"name": "first", "digest": Predictor.load(model).digest, "synthetic": False}
    assert reply.json["predictions"][0]["path"] is None
    listed = server.get("/v1/models").json["models"]
    assert [(one["name"], one["classes"]) for one in listed] == [("first", ["dark", "bright"])]


def test_a_name_comes_back_without_folders_and_whatever_its_letters(server, images):
    body, kind = form([("C:\\scans\\Ménière ütz.png", images[0].read_bytes())])
    assert server.post("/v1/predict", body, kind).json["predictions"][0]["path"] == "Ménière ütz.png"


@pytest.mark.parametrize("method", [None, "rise"])
def test_a_map_is_that_of_explain(server, model, images, tmp_path, method):
    path = next(one for one in images if one.name == "grey1.png")
    (expected,) = explain(model, path, method=method, of="bright", out=tmp_path, show_progress=False)
    asked = "of=bright" + (f"&method={method}" if method else "")
    content = path.read_bytes()
    alone = server.post(f"/v1/explain?{asked}&as=npy", content, "image/png")
    assert alone.headers["content-type"] == "application/x-npy"
    np.testing.assert_allclose(np.load(BytesIO(alone.body)), np.load(expected.array), atol=1e-5)
    over = server.post(f"/v1/explain?{asked}", content, "image/png")
    assert over.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(BytesIO(over.body))), np.asarray(Image.open(expected.picture)))
    said = json.loads(over.headers["stillroom-explanation"])
    whole = server.post(f"/v1/explain?{asked}&as=json", content, "image/png").json
    assert whole["explanation"] == said["explanation"]
    assert (whole["explanation"]["class"], whole["explanation"]["method"]) == ("bright", "rise")
    assert "was not tested" in whole["explanation"]["statement"]
    assert whole["notice"] == said["notice"] == NOTICE
    require_same(
        {key: whole["explanation"][key] for key in expected.prediction.to_dict()}, expected.prediction.to_dict()
    )


@pytest.mark.parametrize(
    ("query", "name", "words"),
    [
        ("?of=brigth", "grey1.png", "Did you mean bright?"),
        ("?method=score_cam", "grey1.png", "draw it by rise"),
        ("?method=grad_cam", "grey1.png", "The parameter method may be rise, score_cam or score_cam_fast."),
        ("?as=gif", "grey1.png", "The parameter as may be png, npy or json."),
        ("?class=dark", "grey1.png", "There is no parameter class here. Parameters: of, method, as."),
        ("?of=dark&methods=rise", "grey1.png", "Did you mean method?"),
        ("?of=dark&of=bright", "grey1.png", "The parameter of is given 2 times; give it once."),
        ("", "three", "One image is explained at a time"),
    ],
)
def test_a_map_that_cannot_be_drawn_is_refused_in_words(server, images, query, name, words):
    content = next(one for one in images if one.name == name).read_bytes()
    reply = server.post(f"/v1/explain{query}", content)
    assert reply.status == 422
    assert words in reply.json["error"]


@pytest.mark.parametrize(("method", "path", "status", "words"), [
    ("GET", "/v1/nothing", 404, "/openapi.json tells what there is"),
    ("POST", "/v1/predict/", 404, "There is nothing at this address"),  # no redirect, behind a proxy to http
    ("POST", "/v1/explain/", 404, "There is nothing at this address"),
    ("PUT", "/v1/predict", 405, "This address is not asked by that method"),
])  # fmt: skip
def test_what_is_not_there_is_told_in_words(server, method, path, status, words):
    reply = server.ask(method, path, b"image" if method != "GET" else None)
    assert reply.status == status
    assert words in reply.json["error"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v1/models", "/"])
def test_head_is_answered_as_get_without_a_body(server, path):
    reply = server.ask("HEAD", path)
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/models/first/explain", "/v2", "/v2/models/first", "/v2/models/first/infer", "/metrics", "/",
     "/v1/predict", "/v1/models/first/predict", "/dicomweb/studies"],
)  # fmt: skip
def test_a_parameter_that_nobody_reads_is_refused(server, images, path):
    post = path.endswith(("predict", "explain", "infer", "studies"))
    reply = (server.post if post else lambda path, body: server.get(path))(f"{path}?threshold=0.5", b"image")
    assert reply.status == 422
    assert "There is no parameter threshold here." in reply.json["error"]
    if "studies" in path:
        assert server.post(f"{path}?maps=perhaps", b"").json == {"error": "The parameter maps may be true or false."}


def test_what_is_no_image_is_not_explained(server, images, known):
    content = next(one for one in images if one.name == "none.png").read_bytes()
    reply = server.post("/v1/explain", content)
    assert reply.status == 422
    why = known["none.png", None]["error"]
    assert reply.json["explanation"]["error"] == why
    assert reply.json["error"] == f"The image cannot be used: {why}."


def test_where_no_image_can_be_read_the_answer_has_an_error_of_its_own(server, known):
    alone = server.post("/v1/predict", b"this is no image")
    assert (alone.status, alone.json["error"]) == (
        422,
        f"The image cannot be used: {known['none.png', None]['error']}.",
    )
    body, kind = form([("one.png", b"this is no image"), ("two.png", b"nor is this")])
    both = server.post("/v1/predict", body, kind)
    assert (both.status, len(both.json["predictions"])) == (422, 2)
    assert both.json["error"] == "None of the 2 images can be used: `predictions` says of each why."


def test_several_models_are_asked_by_name(model, images):
    content = images[0].read_bytes()
    with Answering(model, f"other={model}") as server:
        reply = server.post("/v1/predict", content)
        assert reply.status == 404
        assert "first, other" in reply.json["error"]
        for name in ("first", "other"):
            assert server.post(f"/v1/models/{name}/predict", content).json["model"]["name"] == name
            assert server.post(f"/v1/models/{name}/explain", content).status == 200
        assert server.post("/v1/models/third/predict", content).status == 404


def test_what_goes_past_the_framework_is_what_its_description_names(server):
    named = {path.format(name="first") for path in server.get("/openapi.json").json["paths"]}
    others = {f"{path}/" for path in named} | {"/v1/models/first/second/predict", "/v2/predict", "/v1/models/predict"}
    assert {path for path in named | others if _PREDICT.fullmatch(path)} == {"/v1/predict", "/v1/models/first/predict"}
    assert server.get("/v1/predict").status == 405


def test_openapi_tells_every_route_with_examples(server):
    told = server.get("/openapi.json").json
    assert {"/v1/predict", "/v1/models/{name}/explain", "/v2/models/{name}/infer", "/metrics"} <= set(told["paths"])
    for path in ("/v1/predict", "/v1/explain", "/v2/models/{name}/infer"):
        route = told["paths"][path]["post"]
        assert route["requestBody"]["content"]
        answers = route["responses"]
        assert answers["200"]["content"]["application/json"]["example"]
        assert {"400", "401", "408", "413", "422", "503"} <= set(answers)


def test_the_examples_of_openapi_are_answered(server):
    asked = 0
    for path, operations in server.get("/openapi.json").json["paths"].items():
        told = operations.get("post", {})
        if "requestBody" not in told:
            continue
        values = {one["name"]: one["example"] for one in told.get("parameters", ())}
        address = path.format(**values)
        query = urlencode({name: str(value).lower() for name, value in values.items() if name != "name"})
        for kind, body in told["requestBody"]["content"].items():
            if "example" in body:
                assert server.post(address, json.dumps(body["example"]).encode(), kind).status == 200
                asked += 1
            elif where := body["examples"]["file"].get("externalValue"):
                with urlopen(where) as example:
                    reply = server.post(f"{address}?{query}", example.read(), example.headers["content-type"])
                assert reply.status == 200, (path, kind, reply.body)
                asked += 1
            else:
                assert kind in ("application/dicom", "multipart/related")
    assert asked == 4 * 4 + 1


def test_the_page_of_several_models_leads_to_each(model):
    with Answering(model, f"other={model}") as server:
        first = server.get("/")
        listed, policy = first.body.decode(), first.headers["content-security-policy"]
        assert NOTICE in listed
        style = re.search(r"<style>(.+?)</style>", listed, re.DOTALL)[1].encode()
        assert f"style-src 'sha256-{base64.b64encode(hashlib.sha256(style).digest()).decode()}'" in policy
        assert "default-src 'none'" in policy
        assert re.findall(r'href="(models/[^"]+)"', listed) == ["models/first", "models/other"]
        assert server.get("/models/other").status == 200
        assert server.get("/models/third").status == 404
        assert {line["route"] for line in server.log} == {"/", "/models/{name}"}
