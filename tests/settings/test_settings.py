"""Settings survive a round trip, and wrong ones are named."""

from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

from stillroom.errors import UsageError
from stillroom.recipes import RECIPES, Baseline, ExplainableKD, MedAlmighty
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.settings.sections import (
    DataSettings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
)
from stillroom.settings.whole import SECTIONS, Settings, from_dict, read_section, to_dict
from stillroom.settings.wishes import wanted_shares


@pytest.mark.parametrize(
    "settings",
    [
        Settings("phantoms"),
        Settings(
            "x.csv",
            recipe=MedAlmighty(alpha=0.5, paper_softmax=True),
            data=DataSettings(size=96, classes=("b", "a"), data_dir=Path("here"), resolution=28),
            views=ViewSettings("strong", views=3, flips=True),
            teacher=TeacherSettings("resnet50", weights=Path("w"), teacher_epochs=3),
            student=StudentSettings("resnet18", student_pretrained=True),
            training=TrainingSettings(epochs=2, lr=0.1, precision="bf16"),
            seed=7,
            device="cpu",
        ),
        Settings("folder", recipe=Baseline()),
    ],
)
def test_round_trip_through_yaml(settings):
    text = yaml.safe_dump(to_dict(settings))
    assert from_dict(yaml.safe_load(text)) == settings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"source": "x", "dat": {}}, "no setting 'dat'.*data"),
        ({"source": "x", "data": {"sizes": 3}}, "no setting 'sizes'.*size"),
        ({"source": "x", "data": {"fit": "crop"}}, "data: fit: .*'crop'"),
        ({"source": "x", "recipe": {"name": "medalmigty"}}, "no recipe 'medalmigty'.*medalmighty"),
        ({"source": "x", "recipe": {"name": "baseline", "alpha": 1}}, "no setting 'alpha'"),
        ({"source": "x", "training": {"epochs": 0}}, "epochs must be at least 1"),
        ({"source": "x", "training": {"lr": -1}}, "lr must be above 0"),
        ({"source": "x", "seed": "many"}, "seed: .*'many'"),
        ({"seed": 1}, "`source` is missing"),
        ([1], "expected settings by name"),
        ({"source": "x", "evaluation": {"sensitivity": ["1.5"]}}, "sensitivity takes a share between 0 and 1.*'1.5'"),
        ({"source": "x", "evaluation": {"sensitivity": ["ill="]}}, "class=share such as ill=0.95, got 'ill='"),
        ({"source": "x", "evaluation": {"sensitivity": ["=0.9"]}}, "got '=0.9'"),
        ({"source": "x", "evaluation": {"specificity": ["nan"]}}, "specificity takes a share"),
        ({"source": "x", "evaluation": {"sensitivity": ["a=0.9", "a=0.8"]}}, "two shares for a: leave one out"),
        ({"source": "x", "evaluation": {"sensitivity": ["0.9", "none"]}}, "auto and none stand alone"),
        ({"source": "x", "data": {"val_fraction": 1.5}}, "val_fraction must lie between 0 and 0.9"),
    ],
)
def test_wrong_settings_are_named(content, message):
    with pytest.raises(UsageError, match=message):
        from_dict(content, "here.yaml")


def test_a_share_may_be_given_as_a_number_or_by_class():
    settings = Settings("x", evaluation=EvaluationSettings(sensitivity=(0.9, "a=b=0.99")))  # type: ignore[arg-type]
    assert settings.evaluation.sensitivity == ("0.9", "a=b=0.99")
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(settings)))) == settings
    assert wanted_shares("sensitivity", ("0.9", "a=b=0.99")) == {"": 0.9, "a=b": 0.99}
    assert wanted_shares("sensitivity", ("none",)) == wanted_shares("sensitivity", ()) == {}


def test_images_are_read_at_the_students_side():
    settings = Settings("phantoms", data=DataSettings(size=64, fit="resize"))
    assert settings.student_data == settings.data
    smaller = replace(settings, student=StudentSettings(student_size=48))
    assert smaller.student_data == DataSettings(size=48, fit="resize")


def test_adapters_and_half_precision_say_the_teachers_mode():
    for changed, mode in (({"teacher_lora": 8}, "finetune"), ({"teacher_precision": "bf16"}, "frozen"), ({}, None)):
        for recipe in (MedAlmighty(), ExplainableKD()):
            found = Settings("phantoms", recipe, teacher=TeacherSettings(**changed)).teacher.teacher_mode
            assert found == (mode or recipe.default_teacher_mode)
    for changed, message in (
        ({"teacher_lora": 8, "teacher_mode": "frozen"}, "--teacher-lora is for --teacher-mode finetune"),
        (
            {"teacher_precision": "bf16", "teacher_mode": "finetune"},
            "--teacher-precision bf16 is for --teacher-mode frozen",
        ),
        ({"teacher_precision": "bf16", "teacher_lora": 8}, "--teacher-lora fine-tunes in float32"),
        ({"teacher_lora": 0}, "teacher_lora"),
        ({"feature_layers": 0}, "feature_layers"),
    ):
        with pytest.raises(UsageError, match=message):
            TeacherSettings(**changed)


def test_every_number_is_of_its_kind_in_python_and_in_yaml():
    tried = 0
    for cls in (*SECTIONS.values(), *RECIPES):
        for name, kind in get_type_hints(cls).items():
            kinds = (kind, *get_args(kind))
            wrong = (1.5, 2.0, True, "3", 16**9999) if int in kinds else (True,) if float in kinds else ()
            for value in wrong:
                tried += 1
                with pytest.raises(UsageError, match=name):
                    cls(**{name: value})
                with pytest.raises(UsageError, match=name):
                    read_section(cls, {name: value}, "here.yaml")
    assert tried > 100
    assert read_section(TrainingSettings, {"lr": "1e-3", "epochs": 3}, "here.yaml").lr == 1e-3  # so YAML reads 1e-3


def test_an_ensemble_in_integers_is_refused_before_anything_is_trained():
    with pytest.raises(UsageError, match="--int8 makes a file of one network"):
        EvaluationSettings(repeats=2, keep="ensemble", int8=True)
