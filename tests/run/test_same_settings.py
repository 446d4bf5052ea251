"""An unfinished run's settings cannot be changed under it: what was edited is named, with both values."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import yaml

import stillroom
from stillroom import DataSettings, Settings, StandardKD, TrainingSettings, UsageError
from stillroom.planning.plan_file import read_plan, write_plan
from stillroom.planning.sheet import Choice, Limits, Plan
from stillroom.run.folder import Run
from stillroom.run.same_settings import require_same_settings

SETTINGS = Settings("phantoms:50", data=DataSettings(classes=("a b", "ü")), training=TrainingSettings(lr=1e-5), seed=3)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", SETTINGS)


def edit(run, section, name, value):
    file = run.path / "settings.yaml"
    content = yaml.safe_load(file.read_text("utf-8"))
    (content[section] if section else content)[name] = value
    file.write_text(yaml.safe_dump(content), "utf-8")


@pytest.mark.parametrize(
    ("section", "name", "value", "said"),
    [
        ("training", "lr", 2e-5, "training.lr was 1e-05 when the run began, and is 2e-05 now"),
        ("", "seed", 4, "seed was 3 when the run began, and is 4 now"),
        ("", "source", "phantoms:60", "source was 'phantoms:50' when the run began, and is 'phantoms:60' now"),
        ("data", "classes", ["ü", "a b"], "data.classes was ['a b', 'ü'] when the run began, and is ['ü', 'a b'] now"),
        ("training", "unlabelled", "more", "training.unlabelled was nothing when the run began, and is 'more' now"),
    ],
)
def test_a_changed_setting_is_named_with_both_values(run, section, name, value, said):
    edit(run, section, name, value)
    with pytest.raises(UsageError, match=re.escape(f"{run.path / 'settings.yaml'}: {said}")) as told:
        stillroom.resume(run.path)
    assert "Put it back, or start a new run" in str(told.value)
    assert "\n" not in str(told.value)


def test_several_are_all_named_and_another_recipe_too(run):
    edit(run, "training", "epochs", 7)
    edit(run, "", "recipe", {"name": StandardKD.name})
    with pytest.raises(UsageError, match=r"recipe\.name was 'medalmighty' .* So were .*training\.epochs") as told:
        require_same_settings(Run.open(run.path))
    assert "recipe.alpha" in str(told.value)


def test_where_it_is_computed_may_change_and_so_may_the_spelling(run):
    edit(run, "", "device", "cpu")
    edit(run, "data", "data_dir", "elsewhere")
    edit(run, "training", "lr", 0.00001)
    require_same_settings(Run.open(run.path))


def test_a_run_of_before_says_nothing_of_its_beginning(run):
    manifest = run.manifest
    del manifest["settings"]
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    (run.path / "digests.jsonl").unlink()
    edit(run, "training", "lr", 2e-5)
    require_same_settings(Run.open(run.path))


def test_the_plan_is_held_to_as_far_as_it_decides_anything(tmp_path):
    chosen = replace(SETTINGS, training=TrainingSettings(epochs=5), data=DataSettings())
    plan = Plan(chosen, {"training.epochs": Choice(5, "a guess")}, {}, Limits(), {"student": 10.0})
    run = Run.create(tmp_path / "run", chosen, plan)
    file = run.path / "plan.yaml"
    assert read_plan(file).settings == chosen
    require_same_settings(run)
    write_plan(replace(plan, expected_s={"student": 99.0}), file)  # tells progress how long it may take
    require_same_settings(run)
    file.write_text(file.read_text().replace("value: 5", "value: 6"))
    with pytest.raises(UsageError, match=r"plan\.yaml: training\.epochs was 5 when the run began, and is 6 now"):
        stillroom.resume(run.path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00\x01", b"source: [", b"5", b"", b"a: b: c", b"training: {epochs: many}"]
)
def test_settings_that_cannot_be_read_are_one_line(run, content):
    (run.path / "settings.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"settings\.yaml") as told:
        stillroom.resume(run.path)
    assert "\n" not in str(told.value)
