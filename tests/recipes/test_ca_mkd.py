"""CA-MKD end to end: seeds of one network, networks of several kinds, and what is refused."""

import dataclasses
import json

import pytest
from safetensors.numpy import load_file

import stillroom
from stillroom import Settings, UsageError
from stillroom.models.saving import load_network, save_network
from stillroom.models.zoo import create
from stillroom.recipes import CAMKD
from stillroom.settings.whole import from_dict, to_dict


def test_a_whole_run_with_copies(distilled):
    run = distilled(CAMKD(copies=2))
    lines = {(line["role"], line["epoch"]): line["losses"] for line in run.history()}
    assert {role for role, _ in lines} == {"teacher", "teacher-2", "student", "control"}
    assert lines["student", 1]["features"] == 0
    assert lines["student", 2]["features"] > 0
    first, second = (load_file(run.path / role / "model.safetensors") for role in ("teacher", "teacher-2"))
    assert any((first[name] != second[name]).any() for name in first if first[name].ndim > 1)
    saved = load_file(run.path / "student" / "model.safetensors")
    assert not [name for name in saved if "regressor" in name]
    assert "student" in run.metrics["test"]


def test_teachers_of_several_kinds(quick, workbench):
    recipe = CAMKD(teachers=("test_resnet", "test_vit"), weighting="equal")
    bench = workbench(quick(recipe))
    student = recipe.run(bench)
    assert [teacher.network.name for teacher in bench.teachers] == ["test_resnet", "test_vit"]
    names = [
        json.loads((bench.run.path / role / "model.json").read_text())["name"] for role in ("teacher", "teacher-2")
    ]
    assert names == ["test_resnet", "test_vit"]
    assert student.name == "test_efficientnet"


def test_images_without_labels_in_bfloat16(distilled, strangers):
    run = distilled(CAMKD(copies=2), training={"unlabelled": strangers, "precision": "bf16"})
    lines = [line for line in run.history() if line["role"] == "student"]
    assert all(set(line["losses"]) == {"label", "teacher", "features", "unlabelled"} for line in lines)
    assert all(line["losses"]["unlabelled"] > 0 for line in lines)


def test_settings_reach_the_objective(quick, workbench):
    recipe = CAMKD(
        copies=2, temperature=3.0, feature_weight=7.0, weighting="equal", extra_division=True, learnt_weights=True
    )
    bench, asked, seeds = workbench(quick(recipe, training={"epochs": 5})), [], []

    class Made:
        def __init__(self, seed):
            self.network = bench.student(seed=seed)
            seeds.append(seed)

    bench.teacher = lambda *, needs, name, seed: Made(seed)
    bench.fit = lambda role, network, objective, **_: asked.append(objective)
    recipe.run(bench)
    (objective,) = asked
    assert (objective.temperature, objective.feature_weight, objective.weighting) == (3.0, 7.0, "equal")
    assert (objective.epochs, objective.teacher_weight, objective.learnt_weights) == (5, 0.5, True)
    assert seeds == [0, 1000]  # runs of neighbouring seeds share no teacher


def test_settings_of_an_older_run_keep_their_number():
    old = to_dict(Settings("phantoms", CAMKD(extra_division=False)))
    assert old["recipe"]["extra_division"] is False
    assert from_dict(old).recipe == CAMKD(extra_division=False) != CAMKD()


def test_three_seeds_of_one_fine_tuned_network_are_the_default():
    settings = Settings("phantoms", CAMKD())
    assert settings.teacher.teacher_mode == "finetune"
    assert settings.recipe.teacher_names(settings) == (settings.teacher.teacher,) * 3
    assert CAMKD(teachers=("vgg19", "resnet50")).teacher_names(settings) == ("vgg19", "resnet50")


def test_copies_that_would_say_the_same_are_refused(quick):
    frozen = {"teacher_mode": "frozen", "pretrained": True}
    for recipe in (CAMKD(), CAMKD(teachers=("test_resnet", "test_vit", "test_resnet"))):
        with pytest.raises(UsageError, match="Frozen copies of test_resnet would all say the same"):
            recipe.check(quick(recipe, teacher=frozen))
        recipe.check(quick(recipe))
    CAMKD(copies=1).check(quick(CAMKD(copies=1), teacher=frozen))
    CAMKD(teachers=("test_resnet", "test_vit")).check(
        quick(CAMKD(teachers=("test_resnet", "test_vit")), teacher=frozen)
    )


def test_features_need_a_second_epoch(quick):
    with pytest.raises(UsageError, match="second epoch"):
        CAMKD().check(quick(CAMKD(), training={"epochs": 1}))
    CAMKD(feature_weight=0).check(quick(CAMKD(feature_weight=0), training={"epochs": 1}))


@pytest.mark.parametrize("wrong", [{"copies": 0}, {"temperature": float("inf")}, {"feature_weight": -1.0}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        dataclasses.replace(CAMKD(), **wrong)


def test_several_teachers_count_as_one_in_the_report_and_each_is_shown(distilled):
    run = distilled(CAMKD(copies=2, feature_weight=0.0))
    test = run.metrics["test"]
    assert set(test) == {"student", "control", "teacher", "teacher_1", "teacher_2"}
    assert run.manifest["teachers"] == ["test_resnet", "test_resnet"]
    one = sum(p.numel() for p in load_network(run.path / "teacher").parameters())
    assert run.metrics["efficiency"]["teacher"]["parameters"] == 2 * one
    page = " ".join(run.report.read_text(encoding="utf-8").split())
    assert "Teacher is the mean of the 2 teachers&#39; logits" in page or "the mean of the 2 teachers' logits" in page


def test_one_file_of_weights_for_two_networks_is_refused_before_any_is_trained(quick, tmp_path):
    file = tmp_path / "resnet18.safetensors"
    save_network(create("resnet18", classes=1000), tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").rename(file)
    recipe = CAMKD(teachers=("resnet18", "resnet34"))
    settings = quick(recipe, teacher={"pretrained": True, "weights": file})
    with pytest.raises(UsageError, match="is one file, but resnet18, resnet34 need weights"):
        stillroom.distill(settings, tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()
