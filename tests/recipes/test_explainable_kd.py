"""Explainable KD end to end, whose labels' loss is weighed, and that student and control share it."""

import dataclasses

import pytest

from stillroom import Settings, UsageError
from stillroom.distillation.objectives.imbalance import FocalKD, FocalLoss
from stillroom.models.zoo import native_size
from stillroom.recipes import ExplainableKD


def test_a_whole_run(distilled):
    run = distilled(ExplainableKD())
    assert set(run.metrics["test"]) == {"student", "control", "teacher"}
    losses = {line["role"]: set(line["losses"]) for line in run.history()}
    assert losses == {"teacher": {"label"}, "student": {"label", "teacher"}, "control": {"label"}}


@pytest.mark.parametrize(
    ("recipe", "gamma", "weights"),
    [
        (ExplainableKD(), 0.0, True),
        (ExplainableKD(balanced=False), 0.0, None),
        (ExplainableKD(hard="focal"), 2.0, None),
        (ExplainableKD(hard="focal", gamma=1.0, balanced=False), 1.0, None),
    ],
)
def test_student_and_control_have_the_same_labels_loss(quick, workbench, recipe, gamma, weights):
    bench, asked = workbench(quick(recipe)), {}

    def fit(role, network, objective, *, teachers=(), epochs=None, class_weights=None):
        asked[role] = objective, len(teachers), class_weights
        return network

    bench.fit, bench.teacher = fit, lambda **_: None
    recipe.run(bench)
    recipe.control(bench)
    student, control = asked["student"], asked["control"]
    assert type(student[0]) is FocalKD
    assert type(control[0]) is FocalLoss
    assert student[0].gamma == control[0].gamma == gamma
    assert student[2] is control[2] is weights
    assert (student[1], control[1]) == (1, 0)


def test_settings_reach_the_objective(quick, workbench):
    recipe = ExplainableKD(alpha=0.3, temperature=3.0, kd="mse")
    bench, asked = workbench(quick(recipe)), []
    bench.fit, bench.teacher = lambda role, network, objective, **_: asked.append(objective), lambda **_: None
    recipe.run(bench)
    assert (asked[0].teacher_weight, asked[0].temperature, asked[0].kd) == (0.7, 3.0, "mse")


def test_the_papers_networks_are_the_defaults():
    settings = Settings("phantoms", ExplainableKD())
    assert (settings.teacher.teacher, settings.teacher.teacher_mode) == ("densenet201", "finetune")
    assert settings.student.student == "ofa595"
    for name in ("densenet201", "vgg19", "vgg19_bn", "visformer_small", "autoformerv2_tiny", "ofa595"):
        assert native_size(name)


@pytest.mark.parametrize("wrong", [{"alpha": 1.1}, {"temperature": 0.0}, {"gamma": -1.0}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        dataclasses.replace(ExplainableKD(), **wrong)
