"""A setting that changes nothing in a run is named, and nothing else is."""

import pytest

from stillroom import (
    CAMKD,
    Baseline,
    DualModelSKD,
    ExplainableKD,
    LinearProbe,
    MedAlmighty,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
    WeCKD,
)
from stillroom.cli.app import main
from stillroom.recipes import RECIPES

TAUGHT = TeacherSettings("resnet18", teacher_epochs=3)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_defaults_are_never_named(recipe):
    settings = Settings("phantoms", recipe())
    assert settings.recipe.unused(settings) == []


@pytest.mark.parametrize(
    ("recipe", "parts", "expected"),
    [
        (MedAlmighty(alpha=0.5), {"teacher": TAUGHT}, []),
        (Baseline(), {"teacher": TAUGHT}, ["teacher", "teacher_epochs"]),
        (
            Baseline(),
            {"teacher": TeacherSettings(feature_layers=2, teacher_lora=4)},
            ["feature_layers", "teacher_lora"],
        ),
        (LinearProbe(), {"teacher": TeacherSettings(feature_layers=2)}, []),
        (
            Baseline(),
            {"student": StudentSettings(student_pretrained=True), "teacher": TeacherSettings(weights="w")},
            [],
        ),
        (WeCKD(), {"teacher": TeacherSettings(teacher_mode="finetune")}, ["teacher_mode"]),
        (WeCKD(annealing="exponential", decay=0.5, final_temperature=2.0), {}, []),
        (WeCKD(annealing="linear", decay=0.5), {}, ["decay"]),
        (WeCKD(annealing="constant", final_temperature=2.0), {}, ["final_temperature"]),
        (WeCKD(attention=False, attention_weight=0.7), {}, ["attention_weight"]),
        (WeCKD(length=1, one_step=True, kd_weight=0.2), {}, ["one_step", "kd_weight"]),
        (WeCKD(length=2, one_step=True), {}, ["one_step"]),
        (CAMKD(teachers=("resnet18", "vgg11"), copies=2), {}, ["copies"]),
        (CAMKD(teachers=("resnet18", "vgg11")), {"teacher": TeacherSettings("resnet34")}, ["teacher"]),
        (CAMKD(weighting="equal", learnt_weights=True), {}, ["learnt_weights"]),
        (ExplainableKD(gamma=5.0), {}, ["gamma"]),
        (ExplainableKD(gamma=5.0, hard="focal"), {}, []),
        (DualModelSKD(kd_alpha=0.3), {}, ["kd_alpha"]),
        (DualModelSKD(kd_alpha=0.3, teach=True), {"teacher": TeacherSettings(teacher_epochs=2)}, []),
        (DualModelSKD(initial="scratch", layers="last", dino_temperature=0.2), {}, ["layers", "dino_temperature"]),
        (DualModelSKD(), {"teacher": TAUGHT}, ["teacher_epochs"]),
        (
            LinearProbe(),
            {
                "teacher": TeacherSettings(features="mean", head_solver="adam", teacher_mode="finetune"),
                "training": TrainingSettings(lr=0.5, class_weights=True, label_fraction=0.5),
                "views": ViewSettings(augment="strong"),
            },
            ["teacher_mode", "lr", "class_weights", "augment"],
        ),
    ],
    ids=str,
)
def test_what_changes_nothing_is_named(recipe, parts, expected):
    settings = Settings("phantoms", recipe, **parts)
    assert settings.recipe.unused(settings) == expected


def test_the_command_line_says_so(capsys, tmp_path):
    flags = "--no-plan --recipe weckd --decay 0.5 --fraction 0.2 --teacher resnet50 --device cuda"  # refused soon
    with pytest.raises(SystemExit):
        main(["distill", "phantoms:60", *flags.split(), "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert "--decay changes nothing in this run of weckd" in said
    assert "--teacher changes nothing in this run of weckd" in said
    assert "--fraction" not in said


def test_a_search_without_a_second_stage_is_refused():
    with pytest.raises(UsageError, match="no second stage"):
        WeCKD(length=1, tune=3)
