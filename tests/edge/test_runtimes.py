"""Exported files answer alike in every ONNX Runtime: `make edge` asks the oldest that is allowed, and the newest."""

import json

import numpy as np
import pytest

from stillroom.deployment.predictor import Predictor

FILES = ("student.onnx", "student.int8.onnx")


@pytest.fixture(scope="session")
def answers(device):
    with np.load(device / "answers.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", FILES)
def test_its_graph_answers_as_where_it_was_made(device, answers, name):
    known = {key.split("|")[1]: values for key, values in answers.items() if key.startswith(f"{name}|")}
    assert set(known) == {"logits", "probabilities", "distance", "map"}
    assert np.std(known["logits"][:, 0]) > 0.1
    found = Predictor.load(device / name).outputs(answers["images"], list(known))
    for part, values in known.items():
        np.testing.assert_allclose(found[part], values, rtol=1e-4, atol=1e-5, err_msg=part)


@pytest.mark.parametrize("name", FILES)
def test_its_rules_answer_as_where_it_was_made(device, name):
    known = json.loads((device / "predictions.json").read_text(encoding="utf-8"))[name]
    found = [one.to_dict() for one in Predictor.load(device / name).predict(device / "images")]
    assert len({one["answer"] for one in known}) > 1
    for one, other in zip(found, known, strict=True):
        for part in ("answer", "decision", "possible", "foreign", "flagged"):
            assert one[part] == other[part], part
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
        assert one["foreign_score"] == pytest.approx(other["foreign_score"], rel=1e-4)
