"""How alike two exported files are, and what follows from it: what is refused, and what is not promised."""

import copy

import numpy as np
import pytest

from stillroom.deployment.likeness import (
    LEVELS,
    LIMITS,
    Answers,
    accuracy_apart,
    decisions_alike,
    distance_error,
    downgrades_of,
    levels_alike,
    maps_alike,
    refusals_of,
    refused,
    timed,
)
from stillroom.deployment.predictor import Predictor

GOOD = {
    "images": 1000,
    "comparison": {"metric": "auc", "difference": {"value": -0.001, "low": -0.01, "high": 0.008}},
    "agreement": 0.99,
    "distance": 0.02,
    "refused_share": [0.05, 0.055],
    "levels": {"agreement": 1.0, "probability": 0.001, "images": 100},
    "maps": {"images": 8, "method": "rise", "mean": 0.95, "least": 0.9},
}


def changed(**parts):
    return copy.deepcopy(GOOD) | parts


@pytest.fixture(scope="module")
def file(tiny_run):
    return Predictor.load(tiny_run.path, threads=1)


@pytest.fixture(scope="module")
def images(file):
    rng = np.random.default_rng(0)
    return rng.random((6, file.channels, file.size, file.size), dtype=np.float32)


def test_a_file_is_like_itself(file, images):
    answers = Answers.of(file, iter([images[:4], images[4:]]))
    assert answers.logits.shape == (6, 2)
    assert decisions_alike(file, file, answers, answers).all()
    assert distance_error(answers, answers) == 0
    assert maps_alike(file, file, images[:2], [0, 1], "rise") == pytest.approx([1.0, 1.0])


def test_a_difference_of_distances_is_a_share_and_its_median():
    one, other = np.array([1.0, 2.0, 4.0]), np.array([1.1, 1.9, 8.0])
    logits = np.zeros((3, 2))
    assert distance_error(Answers(logits, one), Answers(logits, other)) == pytest.approx(0.1)
    assert distance_error(Answers(logits, None), Answers(logits, other)) is None


def test_refusals_are_the_files_own_rule(file, images):
    answers = Answers.of(file, iter([images]))
    said = [one.foreign for one in file.answers(images, [None] * len(images))]
    assert refused(file, answers).tolist() == said


def test_every_level_of_optimisation_is_asked(tiny_run, images):
    found = levels_alike({level: Predictor.load(tiny_run.path, threads=1, level=level) for level in LEVELS}, images)
    assert found["agreement"] == 1
    assert 0 <= found["probability"] < 1e-5


def test_each_file_is_timed(file, images):
    found = timed({"one": file, "other": file}, images, 16)
    assert set(found) == {"one", "other"}
    assert all(value > 0 for value in found.values())


def test_what_is_within_all_limits_is_handed_over_without_a_word():
    assert refusals_of(GOOD) == []
    assert downgrades_of(GOOD) == []


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        (
            {"comparison": {"metric": "auc", "difference": {"value": -0.006, "low": None, "high": None}}},
            "loses 0.006 in AUC",
        ),
        ({"agreement": 0.96}, "96.0%"),
        ({"refused_share": [0.05, 0.0611]}, "refuses 6.1%"),
        ({"levels": {"agreement": 0.9, "probability": 0.001, "images": 100}}, "90.0%"),
        ({"levels": {"agreement": 1.0, "probability": 0.02, "images": 100}}, "0.020"),
    ],
)
def test_each_limit_refuses_alone(parts, word):
    (reason,) = refusals_of(changed(**parts))
    assert word in reason


def test_of_few_images_one_may_differ_or_be_refused_more():
    assert refusals_of(changed(images=24, agreement=23 / 24)) == []
    assert refusals_of(changed(images=24, agreement=22 / 24)) != []
    lost = {"metric": "auc", "difference": {"value": -0.03, "low": -0.2, "high": 0.1}}
    assert refusals_of(changed(images=24, comparison=lost)) == []
    assert refusals_of(changed(images=50, comparison=lost)) != []
    assert refusals_of(changed(images=50, refused_share=[0.04, 0.06])) == []
    assert refusals_of(changed(images=50, refused_share=[0.04, 0.08])) != []


def test_a_file_that_refuses_nothing_is_not_held_to_refusals():
    assert refusals_of(changed(refused_share=[None, None], distance=None)) == []
    assert downgrades_of(changed(distance=None)) == []


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_could_not_be_compared_is_said(value):
    unknown = {"metric": "auc", "difference": {"value": value, "low": None, "high": None}}
    assert refusals_of(changed(comparison=unknown)) == []
    (metric,) = downgrades_of(changed(comparison=unknown))
    assert metric.startswith("AUC could not be compared")
    (decided,) = refusals_of(changed(agreement=value))
    assert "could not be compared" in decided
    (levels,) = refusals_of(changed(levels={"agreement": 1.0, "probability": value, "images": 100}))
    assert "could not be compared" in levels


def test_a_distance_or_map_that_is_no_number_is_not_passed_over():
    (distance,) = downgrades_of(changed(distance=float("nan")))
    assert distance.startswith("Its distances from the training images could not be compared")
    (maps,) = downgrades_of(changed(maps=GOOD["maps"] | {"mean": float("nan")}))
    assert maps.startswith("Its maps could not be compared")


def test_accuracies_differ_by_no_more_than_what_is_decided_otherwise():
    wide = {"value": 0.0, "low": -0.86, "high": 0.86}
    bounded = accuracy_apart(wide, {"value": 1.0, "low": 0.75, "high": 1.0})
    assert bounded == {"value": 0.0, "low": -0.25, "high": 0.25}
    assert accuracy_apart(wide, {"value": 0.9, "low": 0.75, "high": 1.0}) == wide


def test_what_is_not_promised_is_said():
    (distance,) = downgrades_of(changed(distance=LIMITS.distance + 0.01))
    assert "4.0%" in distance
    (untested,) = downgrades_of(changed(maps=None))
    assert untested == "Its maps were not tested."
    (unlike,) = downgrades_of(changed(maps=GOOD["maps"] | {"mean": 0.7}))
    assert "0.70" in unlike
