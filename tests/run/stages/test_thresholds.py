"""Thresholds of a finished run: chosen on validation, told of on test, carried by the exported file."""

import json

import numpy as np
import pytest

from stillroom import EvaluationSettings, Settings, UsageError
from stillroom.data.load import open_source
from stillroom.evaluation.net_benefit import THRESHOLDS
from stillroom.recipes import Baseline
from stillroom.run.preparing import check_settings


def test_the_file_carries_what_was_chosen_on_validation(tiny_run):
    (told,) = tiny_run.metrics["operating_points"]["points"]
    (carried,) = tiny_run.predictor().points
    assert carried.to_dict() == {name: told[name] for name in carried.to_dict()}
    frame = tiny_run.predictions()
    val = frame[(frame["split"] == "val") & (frame["target"] == "right")]
    assert carried.images == len(val)
    assert (val["student:right"] >= carried.threshold).all()  # with so few all of them
    assert carried.promised == pytest.approx(0.05 ** (1 / len(val)))


def test_figures_on_test_are_those_of_the_exported_files_flags(tiny_run, picture_folder):
    frame = tiny_run.predictions()
    frame = frame[frame["split"] == "test"]
    said = tiny_run.predictor().predict([picture_folder / name for name in frame["id"]])
    (told,) = tiny_run.metrics["operating_points"]["points"]
    raised = (frame["student:right"] >= told["threshold"]).to_numpy()
    assert told["figures"]["flagged"]["value"] == pytest.approx(raised.mean())
    assert told["figures"]["sensitivity"]["value"] == pytest.approx(raised[frame["target"] == "right"].mean())
    for answer, flag in zip(said, raised, strict=True):
        assert answer.flagged == ({} if answer.foreign else {"right at sensitivity 0.95": flag})


def test_decision_curves_are_of_every_network(tiny_run):
    found = tiny_run.metrics["decision_curves"]
    (curve,) = found["curves"].values()
    assert found["role"] == "student"
    assert set(curve["networks"]) == {"student", "control", "teacher"}
    assert {len(curve[name]) for name in ("all", "low", "high")} == {len(found["thresholds"])} == {len(THRESHOLDS)}
    frame = tiny_run.predictions()
    test = frame[frame["split"] == "test"]
    raised, ill = test["control:right"] >= 0.5, test["target"] == "right"
    assert curve["networks"]["control"][49] == pytest.approx(np.mean(raised & ill) - np.mean(raised & ~ill), abs=1e-6)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("wanted", "said"), [("righ=0.9", "right"), ("left=0.9", "negative one of two")])
def test_a_class_that_is_not_there_is_refused_before_anything_is_trained(picture_folder, wanted, said):
    settings = Settings(str(picture_folder), recipe=Baseline(), evaluation=EvaluationSettings(sensitivity=(wanted,)))
    with pytest.raises(UsageError, match=said):
        check_settings(settings, open_source(settings.source, settings.student_data, seed=0))
