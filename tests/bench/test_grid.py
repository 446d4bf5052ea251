"""From the file to cells: how many there are, what each is made of, and what is said of a file that cannot be used."""

import re
from pathlib import Path

import pytest
import yaml

from stillroom import UsageError
from stillroom.bench.grid import read_grid
from stillroom.settings.whole import from_dict, to_dict

GRID = {
    "data": ["phantoms:120", {"source": "phantoms:90", "label": "small", "size": 48, "training": {"epochs": 7}}],
    "recipes": ["baseline", "medalmighty", {"name": "medalmighty", "alpha": 0.5, "label": "half"}],
    "teachers": ["test_vit", {"name": "resnet18", "teacher_mode": "finetune", "pretrained": False}],
    "students": ["test_resnet", "resnet10t_050"],
    "seeds": [0, 1, 2],
    "settings": {
        "data": {"size": 32},
        "training": {"epochs": 2},
        "teacher": {"weights": "../weights"},
        "device": "cpu",
    },
}


@pytest.fixture
def grid(tmp_path):
    """``grid(seeds=[0])``: the cells of GRID with these keys changed; None takes a key out."""

    def make(**changes):
        (tmp_path / "grids").mkdir(exist_ok=True)
        file = tmp_path / "grids" / "grid.yaml"
        content = {key: value for key, value in (GRID | changes).items() if value is not None}
        file.write_text(yaml.safe_dump(content))
        return read_grid(file)

    return make


def test_every_combination_once_and_none_of_teachers_without_need(grid):
    cells = grid()
    # 2 sets x (baseline: 2 students, two settings of medalmighty: 2 teachers x 2 students) x 3 seeds
    assert len(cells) == 2 * (2 + 2 * 2 * 2) * 3
    assert len({cell.id for cell in cells}) == len(cells)
    baselines = [cell for cell in cells if cell.is_baseline]
    assert len(baselines) == 2 * 2 * 3
    assert {cell.teacher for cell in baselines} == {""}
    assert {cell.teacher for cell in cells if cell.recipe == "half"} == {"test_vit", "resnet18"}


def test_layers_of_settings(grid, tmp_path):
    cells = grid()
    half = next(c for c in cells if (c.data, c.recipe, c.teacher, c.seed) == ("small", "half", "resnet18", 2))
    settings = half.settings
    assert (settings.source, settings.data.size, settings.training.epochs) == ("phantoms:90", 48, 7)
    assert (settings.recipe.alpha, settings.recipe.temperature) == (0.5, 2.0)
    assert (settings.teacher.teacher, settings.teacher.teacher_mode, settings.teacher.pretrained) == (
        "resnet18",
        "finetune",
        False,
    )
    assert settings.teacher.weights == tmp_path / "weights"
    assert (settings.seed, settings.device) == (2, "cpu")
    assert not settings.evaluation.control
    assert settings.evaluation.explain == 0
    assert grid(settings=GRID["settings"] | {"evaluation": {"explain": 5}})[0].settings.evaluation.explain == 5
    other = next(c for c in cells if c.data == "phantoms:120")
    assert (other.settings.data.size, other.settings.training.epochs) == (32, 2)
    assert from_dict(to_dict(settings)) == settings


def test_paths_are_relative_to_the_file(grid, tmp_path, monkeypatch, picture_folder):
    (tmp_path / "pictures").symlink_to(picture_folder)
    monkeypatch.chdir("/")
    cells = grid(data=["../pictures"], seeds=[0])
    assert {cell.settings.source for cell in cells} == {str(tmp_path / "pictures")}
    assert {cell.data for cell in cells} == {"pictures"}


def test_a_recipe_with_a_teacher_of_its_own_is_not_repeated(grid):
    own = {"name": "medalmighty", "teacher": {"teacher": "test_resnet"}, "student": {"student": "test_resnet"}}
    cells = grid(recipes=["baseline", own])
    taught = [cell for cell in cells if not cell.is_baseline]
    assert len(taught) == 2 * 3
    assert {(cell.teacher, cell.student) for cell in taught} == {("test_resnet", "test_resnet")}


def test_a_recipe_with_a_list_of_teachers_runs_once_with_them(grid):
    several = {"name": "ca_mkd", "teachers": ["resnet18", "test_vit"]}
    cells = grid(recipes=[several, {"name": "ca_mkd", "label": "copies"}], seeds=[0], students=["test_resnet"])
    assert [cell.teacher for cell in cells if cell.recipe == "ca_mkd"] == ["resnet18 + test_vit"] * 2  # on two sets
    assert [cell.teacher for cell in cells if cell.recipe == "copies"] == ["test_vit", "resnet18"] * 2


def test_without_lists_the_recipes_choose(grid):
    cells = grid(teachers=None, students=None, seeds=None, data=["phantoms:120"])
    assert [cell.seed for cell in cells] == [0, 0, 0]
    assert cells[1].teacher == cells[1].settings.recipe.default_teacher
    assert cells[1].student == cells[1].settings.recipe.default_student


def test_the_id_names_what_runs_and_changes_with_any_setting(grid):
    first = {cell.title: cell.id for cell in grid()}
    assert next(iter(first.values())).startswith("phantoms-120-baseline-test_resnet-s0-")
    again = {cell.title: cell.id for cell in grid()}
    assert first == again
    longer = {cell.title: cell.id for cell in grid(settings=GRID["settings"] | {"training": {"epochs": 3}})}
    # The set with epochs of its own is not touched by the change.
    assert {title for title in first if first[title] == longer[title]} == {t for t in first if t.startswith("small")}


def test_a_label_is_only_for_people(grid):
    renamed = [*GRID["recipes"][:2], GRID["recipes"][2] | {"label": "another"}]
    assert [cell.id for cell in grid()] == [cell.id for cell in grid(recipes=renamed)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": ["baseline"]}, "there is no key 'recipe'. Did you mean recipes?"),
        ({"recipes": None}, "`recipes` is missing or empty"),
        ({"data": []}, "`data` is missing or empty"),
        (
            {"recipes": ["medalmigthy"]},
            "recipes, entry 1 (medalmigthy): there is no recipe 'medalmigthy'. Did you mean medalmighty",
        ),
        (
            {"recipes": [{"name": "medalmighty", "alpa": 1}]},
            "entry 1 (medalmighty): there is no setting 'alpa'. Did you",
        ),
        (
            {"recipes": [{"name": "medalmighty", "alpha": 2}]},
            "entry 1 (medalmighty): alpha lies between 0 and 1, got 2",
        ),
        (
            {"recipes": [{"name": "baseline", "training": {"epoch": 2}}]},
            "training: there is no setting 'epoch'. Did you",
        ),
        ({"recipes": [{"alpha": 2}]}, "recipes, entry 1: expected a name, or settings with a `name`"),
        ({"recipes": "baseline"}, "recipes must be a list with at least one entry, got 'baseline'"),
        ({"recipes": ["baseline", "baseline"]}, "recipes holds 'baseline' twice: give each a `label`"),
        ({"recipes": ["baseline", {"name": "baseline", "label": "b"}]}, "two entries ask for the same run"),
        ({"teachers": ["resnet81"]}, "teachers, entry 1 (resnet81): No network is called resnet81."),
        ({"teachers": [{"name": "test_vit", "teacher_mode": "melt"}]}, "entry 1 (test_vit): teacher_mode: "),
        ({"students": [{"name": "test_resnet", "label": ""}]}, "label must be a text"),
        ({"data": ["brestmnist"]}, "and no data set called 'brestmnist'. Did you mean breastmnist"),
        ({"data": [{"source": "phantoms:90", "size": "big"}]}, "data, entry 1 (phantoms:90): size: "),
        ({"seeds": 3}, "seeds must be a list of whole numbers from 0, such as [0, 1, 2]; got 3"),
        ({"seeds": [0, True]}, "seeds must be a list"),
        ({"seeds": [1, 1]}, "seeds lists a seed twice"),
        ({"settings": {"trainin": {}}}, "settings: there is no part 'trainin'. Did you mean training?"),
        ({"settings": {"training": 3}}, "settings: training must hold settings by name, got 3"),
        ({"settings": {"teacher": {"teacher": "test_vit"}}}, "list the teacher under `teachers`"),
        ({"settings": {"device": "gpu"}}, "device: "),
    ],
)
def test_what_cannot_be_used_is_named(grid, changes, words):
    with pytest.raises(UsageError) as caught:
        grid(**changes)
    assert "grid.yaml: " in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"data: [", "is not valid YAML"), (b"\xff\xfe\xff", "not text in UTF-8"), (b"- 1", "is not a grid file")],
)
def test_what_is_no_grid_file(tmp_path, content, words):
    file = tmp_path / "grid.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_grid(file)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_grid(Path(tmp_path / "none.yaml"))


def test_the_grid_of_the_how_to(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "how-to.md").read_text("utf-8")
    (code,) = re.findall(r"<!-- tested: grid -->\n```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "otoscopy").mkdir()
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "grid.yaml").write_text(code)
    cells = read_grid(tmp_path / "grids" / "grid.yaml")
    assert len(cells) == 2 * 3 * 3
    assert {(cell.data, cell.settings.data.size, cell.settings.training.epochs) for cell in cells} == {
        ("breastmnist", 64, 12),
        ("otoscopy", 96, 25),
    }
    assert {cell.settings.teacher.weights for cell in cells} == {tmp_path / "weights"}


def test_a_recipe_may_name_its_control_and_still_be_the_same_run(grid):
    plain = grid(
        recipes=["baseline", {"name": "weckd", "label": "chain"}, {"name": "weckd", "length": 1, "label": "one"}]
    )
    named = grid(
        recipes=[
            "baseline",
            {"name": "weckd", "label": "chain", "against": "one"},
            {"name": "weckd", "length": 1, "label": "one"},
        ]
    )
    assert [cell.id for cell in plain] == [cell.id for cell in named]
    assert {cell.against for cell in named if cell.recipe == "chain"} == {"one"}
    assert {cell.against for cell in named if cell.recipe != "chain"} == {""}
    for wrong in ("on", "chain", "medalmighty"):
        with pytest.raises(UsageError, match=r"recipes \(chain\): against must be the label of another recipe"):
            grid(recipes=["baseline", {"name": "weckd", "label": "chain", "against": wrong}, "ca_mkd"])


def test_variables_stand_in_paths(grid, tmp_path, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    cells = grid(data=["$SOMEWHERE/pictures"], seeds=[0], settings={"teacher": {"weights": "${SOMEWHERE}/w"}})
    assert {cell.settings.source for cell in cells} == {str(tmp_path / "pictures")}
    assert {str(cell.settings.teacher.weights) for cell in cells} == {str(tmp_path / "w")}


# -- plans --------------------------------------------------------------------------------------------------------
def test_a_plan_is_asked_for_by_the_file_or_an_entry_and_the_later_wins(grid):
    assert all(cell.plan is None for cell in grid())
    short = {"source": "phantoms:90", "label": "small", "plan": {"minutes": 1}}
    cells = grid(
        data=["phantoms:120", short], plan={"minutes": 2, "max_mb": 3}, teachers=None, students=None, seeds=[0]
    )
    limits = {cell.data: (cell.plan.minutes, cell.plan.max_mb) for cell in cells}
    assert limits == {"phantoms:120": (2, 3), "small": (1, 3)}
    assert {cell.student for cell in cells} == {"planned"}
    assert {cell.teacher for cell in cells if cell.recipe == "half"} == {"planned"}
    assert {cell.teacher for cell in cells if cell.is_baseline} == {""}
    assert "student" not in cells[0].given
    only = grid(recipes=["baseline", {"name": "medalmighty", "plan": {}}], seeds=[0])
    assert {cell.recipe for cell in only if cell.plan} == {"medalmighty"}


def test_the_id_of_a_planned_cell_hangs_on_what_was_asked_for(grid):
    def ids(**changes):
        return {cell.id for cell in grid(data=["phantoms:120"], seeds=[0], teachers=None, **changes)}

    plain, planned = ids(), ids(plan={"minutes": 2})
    assert not plain & planned
    assert planned == ids(plan={"minutes": 2})
    assert not planned & ids(plan={"minutes": 3})
    other = GRID["settings"] | {"training": {"epochs": 30}}  # the default, but given
    less = GRID["settings"] | {"training": {}}
    assert not ids(plan={"minutes": 2}, settings=other) & ids(plan={"minutes": 2}, settings=less)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (5, "plan must hold limits by name"),
        ({"minutes": 0}, "plan: --minutes must be above 0"),
        ({"minuets": 2}, "plan: there is no setting 'minuets'. Did you mean minutes"),
        ({"max_mb": None}, "plan must hold limits by name"),
        ({"minutes": "long"}, "plan: minutes: Input should be a valid number"),
    ],
)
def test_plans_that_cannot_be_asked_for(grid, plan, words):
    for changes in ({"plan": plan}, {"data": [{"source": "phantoms:90", "plan": plan}]}):
        with pytest.raises(UsageError) as caught:
            grid(**changes)
        assert words in str(caught.value)
        assert "grid.yaml" in str(caught.value)
