"""plan.yaml: written, edited, read back; and every way in which it can be wrong."""

import dataclasses

import pytest
import yaml

from stillroom import (
    Choice,
    DataSettings,
    MedAlmighty,
    Plan,
    Settings,
    TrainingSettings,
    UsageError,
    read_plan,
    write_plan,
)
from stillroom.planning.sheet import GIVEN, Limits, fixed_names

CHOICES = {
    "recipe.name": Choice("medalmighty", "why not"),
    "recipe.alpha": Choice(0.5, GIVEN),
    "data.size": Choice(96, "large enough"),
    "data.classes": Choice(["a", "b"], GIVEN),
    "training.steps": Choice(40, "2 passes"),
}


@pytest.fixture
def planned():
    settings = Settings(
        "phantoms:50",
        MedAlmighty(alpha=0.5),
        DataSettings(size=96, classes=("a", "b")),
        training=TrainingSettings(steps=40),
        seed=3,
        device="cpu",
    )
    return Plan(settings, CHOICES, {"images": 50}, Limits(7, 3.5, 9), {"teach": 1.0, "student": 2.5})


def test_a_plan_comes_back_as_it_was_written(planned, tmp_path):
    write_plan(planned, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == planned


def test_a_plan_can_be_edited_in_three_ways(planned, tmp_path):
    file = tmp_path / "plan.yaml"
    write_plan(planned, file)
    content = yaml.safe_load(file.read_text())
    content["choices"]["data.size"]["value"] = 128
    content["choices"]["training.steps"] = 60
    content["choices"]["views.flips"] = True
    file.write_text(yaml.safe_dump(content))
    found = read_plan(file)
    assert (found.settings.data.size, found.settings.training.steps, found.settings.views.flips) == (128, 60, True)
    assert found.choices["training.steps"] == Choice(60, "edited")
    assert found.settings.recipe.alpha == 0.5


def test_flags_beside_a_plan_win_and_are_marked(planned):
    wanted = dataclasses.replace(planned.settings, data=dataclasses.replace(planned.settings.data, size=64))
    found = planned.with_flags(wanted, fixed_names(MedAlmighty, {"size", "out", "seed"}))
    assert found.choices["data.size"] == Choice(64, GIVEN)
    assert found.settings == wanted
    assert found.expected_s == {}  # nobody timed it
    assert planned.with_flags(planned.settings, {"data.size"}).expected_s == planned.expected_s


def test_flags_are_known_by_their_settings_names():
    assert fixed_names(MedAlmighty, {"size", "nonsense"}) == {"data.size"}
    assert fixed_names(MedAlmighty, {"alpha"}) == {"recipe.name", "recipe.alpha"}
    assert fixed_names(MedAlmighty, {"recipe"}) == {"recipe.name"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: [", "is not valid YAML"),
        ("- 1", "is not a plan: it must hold"),
        ("source: x", "is not a plan: it must hold"),
        ("choices: {data.size: 64}", "`source` is missing"),
        ("source: x\nchoices: {data.sise: 64}", "choices: there is no setting 'data.sise'. Did you mean data.size"),
        ("source: x\nchoices: {size: 64}", "choices: there is no setting 'size'"),
        ("source: x\nchoices: {data.size: {why: so}}", "data.size: a choice needs a `value`"),
        ("source: x\nchoices: {data.size: big}", "data: size: must be a whole number, got 'big'"),
        ("source: x\nchoices: {data.size: 3}", "size must be at least 16, got 3"),
        ("source: x\nchoices: {recipe.name: magic}", "There is no recipe 'magic'"),
        ("source: x\nchoices: {}\nbudget: {minutes: 0}", "must be above 0 and finite, got 0"),
        ("source: x\nchoices: {}\nbudget: 5", "budget must hold values by name"),
        ("source: x\nchoices: {}\nexpected_s: {teach: soon}", "expected_s must hold seconds by stage"),
        ("source: x\nchoices: {}\nchoises: {}", "no key 'choises'. Did you mean choices"),
    ],
)
def test_damaged_plans_are_refused_in_a_line(tmp_path, text, words):
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_plan(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_plan(tmp_path / "none.yaml")
    (tmp_path / "plan.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UsageError, match="is not a plan: it is not text"):
        read_plan(tmp_path / "plan.yaml")
