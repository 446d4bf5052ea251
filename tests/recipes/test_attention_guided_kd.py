"""The recipe end to end: the student looks where the teacher looks, the control has the same teacher and was not asked."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import stillroom
from stillroom import Settings, UsageError
from stillroom.data.inference import run_over
from stillroom.distillation.objectives.attention_guided import AttentionGuidedLoss
from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.models.saving import load_network
from stillroom.recipes import AttentionGuidedKD, Recipe

WIDE = {"student": {"student_size": 64}, "teacher": {"teacher_size": 96}}  # last maps of 2 x 2 and 3 x 3 places


def look(quick, workbench, recipe, **changed):
    """What student and teacher look at by the manifest, and the objective, with nothing trained."""
    bench, asked = workbench(quick(recipe, **changed)), []

    class Made:
        network = bench.untaught()

    bench.teacher = lambda *, needs: Made
    bench.fit = lambda role, network, objective, **_: asked.append((network, objective))
    recipe.run(bench)
    return bench.run.manifest["look"], *asked[0], Made.network


def test_a_whole_run(distilled):
    run = distilled(AttentionGuidedKD(beta=2.0), **WIDE)
    lines = {role: [line for line in run.history() if line["role"] == role] for role in ("student", "control")}
    assert all(set(line["losses"]) == {"label", "teacher", "look"} for line in lines["student"])
    assert all(set(line["losses"]) == {"label", "teacher"} for line in lines["control"])
    assert all(0 < line["losses"]["look"] <= 4 for line in lines["student"])
    assert len(lines["student"]) == len(lines["control"]) == 2
    assert run.manifest["look"] == {"student": "cam", "teacher": "cam"}
    assert set(run.metrics["test"]) == {"student", "control", "teacher"}
    page = " ".join(run.report.read_text(encoding="utf-8").split())
    assert "without being asked to look where it looks" in page


def test_only_the_look_tells_student_and_control_apart(quick, workbench):
    """With a weight of almost nothing the same network comes out."""
    recipe = AttentionGuidedKD(beta=1e-12)
    bench = workbench(quick(recipe, **WIDE))
    student, control = recipe.run(bench), recipe.control(bench)
    images = bench.data.images
    same, other = (run_over(network, images, bench.data.val) for network in (student, control))
    np.testing.assert_allclose(same, other, atol=1e-3)
    recipe = AttentionGuidedKD(beta=10.0)
    bench = workbench(quick(recipe, **WIDE))
    assert np.abs(run_over(recipe.run(bench), images, bench.data.val) - other).max() > 1e-2


def test_the_control_has_the_students_teacher_and_weights(quick, workbench):
    recipe = AttentionGuidedKD(alpha=0.3, temperature=3.0, beta=0.7)
    bench, asked = workbench(quick(recipe, **WIDE)), {}

    class Made:
        network = bench.untaught()

    def teacher(*, needs):
        assert needs == {"teacher_logits", "map"}
        bench.teachers.append(Made)
        return Made

    def fit(role, network, objective, *, teachers):
        asked[role] = network, objective, teachers

    bench.teacher, bench.fit = teacher, fit
    recipe.run(bench)
    recipe.control(bench)
    (student, ours, teachers), (control, plain, same) = asked["student"], asked["control"]
    assert (type(ours), type(plain)) == (AttentionGuidedLoss, HybridLoss)
    assert ours.beta == 0.7
    for objective in (ours, plain):
        assert (objective.teacher_weight, objective.temperature) == (0.7, 3.0)
    assert teachers == same == [Made]
    weights = control.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize(
    ("asked", "student", "teacher", "expected"),
    [
        ("auto", "test_efficientnet", "test_resnet", ("cam", "cam")),
        ("auto", "test_efficientnet", "test_convnext", ("energy", "energy")),
        ("auto", "mobilenetv3_small_050", "test_resnet", ("energy", "energy")),
        ("energy", "test_efficientnet", "test_resnet", ("energy", "energy")),
        ("cam", "test_efficientnet", "test_convnext", ("cam", "energy")),
        ("cam", "mobilenetv3_small_050", "test_resnet", ("energy", "cam")),
    ],
)
def test_what_each_network_looks_at(quick, workbench, asked, student, teacher, expected):
    changed = {"student": {"student": student, "student_size": 64}, "teacher": {"teacher": teacher, "teacher_size": 64}}
    noted, network, objective, taught = look(quick, workbench, AttentionGuidedKD(look=asked), **changed)
    assert (noted["student"], noted["teacher"]) == expected
    read = [objective._student[0], objective._teachers[0]]
    for classifier, kind, net in zip(read, expected, (network, taught), strict=True):
        assert classifier is (net.classifier() if kind == "cam" else None)


def test_maps_of_the_mean_of_patches(quick, workbench):
    """A transformer whose head reads the mean of its patches gives class activation maps; one with its class token none."""
    for features, kind in (("mean", "cam"), ("cls", "energy")):
        teacher = {"teacher": "test_vit", "teacher_mode": "frozen", "features": features, "teacher_size": 64}
        noted, *_ = look(quick, workbench, AttentionGuidedKD(), student={"student_size": 64}, teacher=teacher)
        assert noted == {"student": kind, "teacher": kind}


def test_networks_that_can_give_no_cam_are_named(quick, workbench):
    recipe = AttentionGuidedKD(look="cam")
    changed = {"student": {"student": "test_convnext", "student_size": 64}, "teacher": {"teacher": "test_vit"}}
    with pytest.raises(UsageError, match=r"Neither the student test_convnext nor the teacher test_vit .*--look energy"):
        recipe.run(workbench(quick(recipe, **changed)))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_one_place_is_refused_before_anything_is_trained(quick, workbench, role):
    recipe = AttentionGuidedKD()
    small = {"student": {"student_size": 64}, "teacher": {"teacher_size": 64}}
    small[role] = {f"{role}_size": 32}
    bench = workbench(quick(recipe, **small))
    with pytest.raises(UsageError, match=rf"{role} test_\w+ has one place at 32 pixels.*--{role}-size.*another recipe"):
        recipe.run(bench)
    assert not bench.run.history()


def test_several_labels_of_a_frozen_transformer_in_bfloat16(quick, picture_folder, tmp_path, strangers):
    names = sorted(str(path) for path in picture_folder.rglob("*.png"))
    labels = ["left;round" if "left" in name else "" if number % 3 else "right" for number, name in enumerate(names)]
    pd.DataFrame({"path": names, "label": labels}).to_csv(tmp_path / "labels.csv", index=False)
    recipe = AttentionGuidedKD()
    teacher = {"teacher": "test_vit", "teacher_mode": "frozen", "features": "mean", "teacher_size": 32}
    training = {"precision": "bf16", "unlabelled": strangers}
    settings = quick(recipe, teacher=teacher, student={"student_size": 64}, training=training)
    settings = dataclasses.replace(settings, source=str(tmp_path / "labels.csv"))
    run = stillroom.distill(settings, tmp_path / "run", show_progress=False)
    assert run.task.kind == "multilabel"
    assert run.manifest["look"] == {"student": "cam", "teacher": "cam"}
    losses = {line["role"]: line["losses"] for line in run.history()}
    assert set(losses["student"]) == {"label", "teacher", "look", "unlabelled", "unlabelled look"}
    assert set(losses["control"]) == {"label", "teacher", "unlabelled"}
    assert not [name for name in load_network(run.path / "student").state_dict() if "objective" in name]


def test_defaults_and_claim():
    settings = Settings("phantoms", AttentionGuidedKD())
    assert (settings.teacher.teacher, settings.teacher.teacher_mode) == ("resnet50", "finetune")
    claim = settings.recipe.claim(settings)
    assert (claim.adds, claim.origin) == ("the teacher's attention", "Distilled from resnet50")
    assert settings.recipe.controls_by_itself(settings)
    assert AttentionGuidedKD.control is not Recipe.control


@pytest.mark.parametrize("wrong", [{"alpha": 1.1}, {"temperature": 0.0}, {"beta": 0.0}, {"beta": float("inf")}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        dataclasses.replace(AttentionGuidedKD(), **wrong)
