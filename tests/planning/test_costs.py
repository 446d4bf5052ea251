"""What a run is foreseen to take: more work takes longer, by as much as there is more of it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from stillroom.explanation.effort import passes
from stillroom.planning.costs import EXPLAIN_PASSES, Teaching, afterwards_s, teaching_s, training_s, without_labels
from stillroom.recipes import Baseline
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.settings.whole import Settings


def facts_of(**changed):
    """As much of a data set as costs depend on."""
    known = {"images": 1000, "training": 640, "labelled": 640, "unlabelled": 0, "validation": 160, "test": 200}
    return SimpleNamespace(**(known | {"classes": {"a": 500, "b": 500}, "device": "cpu"} | changed))


class Times:
    """A step of 4 ms for each image at 64 px, a third of it to ask."""

    def __init__(self, step_ms=4.0):
        self.step_ms = step_ms

    def step(self, name, side):
        return self.step_ms / 1000 * (side / 64) ** 2

    def forward(self, name, side):
        return self.step(name, side) / 3

    def export(self, name):
        return 7.0


FACTS = facts_of()
STUDENT = ("mobilenetv2_100", 64)
TEACHING = Teaching(("mobilenetv2_100",), 64, views=8, epochs=10)


def after(facts=FACTS, recipe=None, teaching=TEACHING, seen=20_000, times=None, **evaluation):
    settings = Settings("x", evaluation=EvaluationSettings(**evaluation))
    settings = dataclasses.replace(settings, recipe=recipe) if recipe else settings
    return afterwards_s(facts, settings, STUDENT, seen, teaching, times or Times())


def test_scoring_grows_with_test_images_alone():
    few, many = after(resamples=1000)["evaluate"], after(resamples=3000)["evaluate"]
    assert many == few
    larger = after(facts_of(test=600))["evaluate"]
    assert larger - few == pytest.approx((600 - FACTS.test) * 5 * 6e-7 * len(FACTS.classes))


def test_timing_is_bounded_by_its_repeats_and_its_patience():
    quick, slow, alone = (after(times=Times(step_ms))["profile"] for step_ms in (0.03, 30.0, 3.0))
    assert quick == pytest.approx(3 * (0.3 + 52 * 32 * 0.00001))  # the student, its file, its teacher: every repeat
    assert slow == pytest.approx(3 * (0.3 + 12 * 32 * 0.01))  # the fewest repeats
    assert alone == pytest.approx(3 * (0.3 + min(52 * 0.032, 2 + 2 * 0.032)))
    assert after(recipe=Baseline(), teaching=None, times=Times(3.0))["profile"] == pytest.approx(alone * 2 / 3)
    assert after(latency=False)["profile"] == 1.0
    patient = after(times=Times(3 * 10_000 / 32))["profile"]  # ten seconds a call: two to warm up and three that count
    assert patient == pytest.approx(3 * (0.3 + 5 * 10))
    assert after(facts_of(device="cuda"))["profile"] == 14.0


def test_what_is_not_asked_for_is_not_foreseen():
    assert "explain" not in after(explain=0)
    assert "corrupt" not in after()
    assert after(corruptions=True)["corrupt"] > 0
    assert after()["export"] == Times().export("any")


def test_explaining_asks_as_often_as_it_is_counted():
    assert pytest.approx(passes(32, 64, "rise", 100, judged=True) / 32, rel=0.02) == EXPLAIN_PASSES


def test_explaining_is_bounded_by_training_unless_a_number_is_asked_for():
    assert after(seen=2_000)["explain"] < after(seen=20_000)["explain"] <= after(seen=10**9)["explain"]
    assert after(seen=2_000, explain=32)["explain"] == after(seen=10**9, explain=32)["explain"]


def test_every_member_of_a_panel_is_fine_tuned_and_asked():
    one = teaching_s(FACTS, TEACHING, 640, Times())
    two = teaching_s(FACTS, dataclasses.replace(TEACHING, names=TEACHING.names * 2), 640, Times())
    assert two == pytest.approx(2 * one)
    frozen = dataclasses.replace(TEACHING, frozen=("mobilenetv2_100",), frozen_side=128)
    asked = FACTS.images + 8 * 640
    assert teaching_s(FACTS, frozen, 640, Times()) - one == pytest.approx(3.0 + asked * Times().forward("", 128))


def test_a_training_pays_for_its_passes_and_for_looking_at_validation():
    once, twice = (training_s(FACTS, *STUDENT, 640, passes, Times()) for passes in (10, 20))
    a_pass = 640 * Times().step(*STUDENT) * 1.06
    looks = 10 * (FACTS.validation * Times().forward(*STUDENT) + 0.1)
    assert twice - once == pytest.approx(10 * a_pass + looks)


def test_only_images_outside_the_labelled_share_teach_without_labels():
    facts = facts_of(labelled=64, unlabelled=100)
    assert (without_labels(facts, True), without_labels(facts, False)) == (676, 100)
