"""`stillroom plan`, and what `stillroom distill` follows: the plan, the flags, a file, or none."""

import json

import pytest
import yaml

import stillroom.run.pipeline
from stillroom.cli.app import main
from stillroom.models import hub
from stillroom.planning import read_plan, timing
from stillroom.planning.sheet import Plan


@pytest.fixture(autouse=True)
def _offline_and_untimed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "answers", lambda seconds: False)
    monkeypatch.setattr(hub, "is_cached", lambda source, **more: False)
    monkeypatch.setattr(timing.Stopwatch, "_step", lambda self, name, side: 1e-3)
    monkeypatch.setattr(timing.Stopwatch, "_forward", lambda self, name, side: 3e-4)


@pytest.fixture
def started(monkeypatch, capsys):
    """``started("--size", "96")``: what `stillroom distill` would have run."""

    def run(*arguments):
        seen = []

        def start(todo, out):
            seen.append(todo)
            raise KeyboardInterrupt

        monkeypatch.setattr(stillroom.run.pipeline, "distill", start)
        with pytest.raises(SystemExit):
            main(["distill", *(str(argument) for argument in arguments)])
        assert seen, capsys.readouterr().err
        return seen[0]

    return run


@pytest.fixture
def refused(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert stop.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("error: ")
        return lines[-1]

    return run


def test_plan_prints_a_table_and_writes_a_file(picture_folder, tmp_path, capsys):
    main(["plan", str(picture_folder), "--minutes", "1", "--device", "cpu", "--val-fraction", "0.3"])
    shown = capsys.readouterr().out
    made = read_plan(tmp_path / "plan.yaml")
    assert (made.budget.minutes, made.budget.max_mb) == (1, 10)
    for name, choice in made.choices.items():
        assert name in shown
        assert choice.why in shown
    assert made.choices["data.val_fraction"].why == "given"
    assert "Teaching and training about" in shown


def test_json_stands_alone(picture_folder, tmp_path, capsys):
    main(["plan", str(picture_folder), "--json", "--out", "other.yaml", "--device", "cpu"])
    assert json.loads(capsys.readouterr().out) == yaml.safe_load((tmp_path / "other.yaml").read_text())


def test_distill_plans_unless_told_otherwise(picture_folder, started, tmp_path):
    todo = started(picture_folder, "--device", "cpu", "--minutes", "2", "--max-mb", "3")
    assert isinstance(todo, Plan)
    assert (todo.budget.minutes, todo.budget.max_mb) == (2, 3)
    assert todo.choices["evaluation.max_mb"].why == "given"
    assert not isinstance(started(picture_folder, "--no-plan"), Plan)
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"source": str(picture_folder), "data": {"size": 96}}))
    assert not isinstance(started("--settings", file), Plan)
    around = started("--settings", file, "--minutes", "2", "--device", "cpu")
    assert isinstance(around, Plan)
    assert around.choices["data.size"].why == "given"


@pytest.mark.parametrize("flag", [["--size", "64"], ["--size=64"]])
def test_a_flag_wins_even_at_its_default(picture_folder, started, flag):
    todo = started(picture_folder, *flag, "--no-class-weights", "--device", "cpu")
    given = {name for name, choice in todo.choices.items() if choice.why == "given"}
    assert given == {"data.size", "training.class_weights"}


def test_flags_of_the_recipe_name_it(picture_folder, started):
    todo = started(picture_folder, "--alpha", "0.9", "--device", "cpu")
    assert (todo.settings.recipe.name, todo.settings.recipe.alpha) == ("medalmighty", 0.9)
    assert started(picture_folder, "--recipe", "baseline", "--device", "cpu").settings.recipe.name == "baseline"


def test_an_edited_plan_is_followed_and_flags_beside_it_win(picture_folder, started, tmp_path):
    main(["plan", str(picture_folder), "--device", "cpu"])
    content = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    content["choices"]["data.size"]["value"] = 48
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content))
    todo = started("--plan", "plan.yaml", "--lr", "0.5")
    assert (todo.settings.data.size, todo.settings.training.lr, todo.settings.device) == (48, 0.5, "cpu")
    assert todo.choices["training.lr"].why == "given"
    assert started(picture_folder, "--plan=plan.yaml").settings.data.size == 48


def test_what_does_not_go_together(picture_folder, refused, tmp_path):
    main(["plan", str(picture_folder), "--device", "cpu"])
    assert "was made for" in refused("distill", "phantoms:40", "--plan", "plan.yaml")
    assert "leave it out beside --plan" in refused("distill", "--plan", "plan.yaml", "--minutes", "3")
    assert "leave it out beside --no-plan" in refused("distill", picture_folder, "--no-plan", "--max-ms", "3")
    assert "contradict each other" in refused("distill", "--plan", "plan.yaml", "--no-plan")
    (tmp_path / "settings.yaml").write_text("source: x")
    assert "give one" in refused("distill", "--plan", "plan.yaml", "--settings", "settings.yaml")
    assert "exists already" in refused("plan", picture_folder)
    assert "no folder" in refused("plan", picture_folder, "--out", "none/plan.yaml")
    assert "--minutes must be above 0" in refused("distill", picture_folder, "--minutes", "0")
    assert "--minutes must be above 0" in refused("plan", picture_folder, "--minutes", "-1", "--out", "b.yaml")
    assert "at most 0.01 MB" in refused("plan", picture_folder, "--max-mb", "0.01", "--out", "b.yaml")
    assert "There is no folder or file 'nowhere'" in refused("plan", "nowhere", "--out", "b.yaml")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert "exists already" in refused("distill", picture_folder, "--out", "taken")
    (tmp_path / "plan.yaml").write_text("source: [")
    assert "is not valid YAML" in refused("distill", "--plan", "plan.yaml")
