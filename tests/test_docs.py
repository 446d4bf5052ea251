"""The documentation against the code: the reference is current, links resolve, commands parse, examples run."""

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stillroom import (
    DataSettings,
    EvaluationSettings,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
    distill,
)
from stillroom.cli.app import make_app
from stillroom.distillation.step import Step, TeacherOutputs
from stillroom.evaluation import roles
from stillroom.models.taps import Outputs
from stillroom.recipes import RECIPES, MedAlmighty, recipe_named
from stillroom.settings.whole import SECTIONS
from stillroom.task import MultiClass, MultiLabel

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(
    r"^(?:<!-- tested: (?P<tag>[\w-]+) -->\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


def load(path: Path, name: str):
    """Import a file by its path. Dataclasses look their module up, so it must be known by its name."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


make_reference = load(DOCS / "make_reference.py", "make_reference")


def blocks(page: Path, *kinds: str) -> list[str]:
    return [match["code"] for match in FENCE.finditer(page.read_text("utf-8")) if match["kind"] in kinds]


def marked(page: Path, tag: str) -> str:
    """The one example that the page marks with this tag."""
    (code,) = [match["code"] for match in FENCE.finditer(page.read_text("utf-8")) if match["tag"] == tag]
    return code


def ids(items):
    return [str(item.relative_to(ROOT)) for item in items]


# -- the glossary ---------------------------------------------------------------------------------------------------
def test_the_glossary_points_at_what_is_there():
    text, reference = (DOCS / "glossary.md").read_text("utf-8"), (DOCS / "reference.md").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 25
    words = [row[0].removeprefix("| ") for row in rows]
    assert len(words) == len(set(words))
    for code in re.findall(r"`([^`]+)`", text):
        if code.startswith("--"):
            assert f"`{code.split()[0]}`" in reference, code
        elif "/" in code:
            assert (ROOT / "src/stillroom" / code).exists(), code
    for role in ("student", "teacher", "control", "probe_of_teacher", "probe_of_student"):
        assert f"`{role}`" in text
        assert getattr(roles, role.upper()) == role


# -- the reference --------------------------------------------------------------------------------------------------
def test_the_reference_is_current():
    written = make_reference.TARGET.read_text("utf-8")
    assert written == make_reference.reference(), "docs/reference.md is stale: run `make docs` and commit it"


def test_the_reference_names_every_setting_and_verb():
    """An oracle that does not go through the generator: field and verb names as they stand in the code."""
    page = (DOCS / "reference.md").read_text("utf-8")
    for cls in SECTIONS.values():
        for field in fields(cls):
            assert f"`--{field.name.replace('_', '-')}`" in page
    for verb in (
        "distill",
        "plan",
        "evaluate",
        "predict",
        "explain",
        "page",
        "export",
        "audit",
        "models",
        "recipes",
        "bench",
        "demo",
    ):
        assert f"### `stillroom {verb}`" in page


def test_entries_of_docstrings_are_read_whole():
    def documented():
        """Do it.

        Args:
            first: starts here
                and goes on. Default: none.
            second, third: share
                an entry about :func:`x.y`.

        Returns:
            ``[N]`` of it.
        """

    assert make_reference.sections(documented)["Args"] == {
        "first": "starts here and goes on. Default: none.",
        "second": "share an entry about `y`.",
        "third": "share an entry about `y`.",
    }


# -- links and commands ---------------------------------------------------------------------------------------------
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_relative_links_resolve(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]
    for link in links:
        place, _, anchor = link.partition("#")
        target = (page.parent / place) if place else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name} links to {link}: no such heading"


def commands() -> list[tuple[str, list[str]]]:
    """Every `stillroom ...` in the code blocks of the pages, as (page, arguments)."""
    found = []
    for page in PAGES:
        for code in blocks(page, "console", "bash", "sh", "shell"):
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                words = words[: next((place for place, word in enumerate(words) if word in ("|", ">", "&&")), None)]
                if words and Path(words[0]).name == "stillroom":  # also .venv/bin/stillroom
                    found.append((page.name, words[1:]))
    return found


def parse(arguments: list[str]):
    """(function, its bound arguments), without running anything."""
    named = arguments[arguments.index("--recipe") + 1] if "--recipe" in arguments else MedAlmighty.name
    app = make_app(recipe_named(named))
    function, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    return function, bound.arguments


def test_there_are_commands_to_check():
    assert len(commands()) > 15


@pytest.mark.parametrize(
    ("page", "arguments"), commands(), ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_commands_parse(page, arguments):
    function, _ = parse(arguments)
    if arguments and not arguments[0].startswith("-"):
        assert function.__name__ == arguments[0]


def test_a_command_with_an_unknown_flag_would_be_noticed():
    with pytest.raises(Exception, match="sise"):
        parse(["distill", "my_images", "--sise", "32"])


@pytest.mark.parametrize(
    "section", ["Accuracy, with a control", "The papers' systems and their controls", "Score-CAM", "Evidence"]
)
def test_figures_that_no_longer_hold_are_marked(section):
    """Until they are made again: with what students start from and which weights are kept, these changed."""
    text = (DOCS / "benchmarks.md").read_text("utf-8").split(f"\n## {section}\n")[1]
    assert text.startswith("\n> **No longer holds; do not quote.**")
    recipes = (ROOT / "README.md").read_text("utf-8").split("\n## Recipes\n")[1].split("\n## ")[0]
    assert not re.search(r"[0-9]\.[0-9]", recipes)


# -- recipes.md -----------------------------------------------------------------------------------------------------
def test_the_papers_command_sets_what_the_page_says_of_the_paper():
    (arguments,) = [words for page, words in commands() if page == "recipes.md" and "adam" in words]
    given = parse(arguments)[1]
    training, teacher = given["training"], given["teacher"]
    assert (training.optimizer, training.lr, training.schedule) == ("adam", 1e-3, "step")
    assert (training.epochs, training.batch_size, training.weight_decay) == (100, 32, 0)
    assert (teacher.teacher, teacher.head_solver) == ("vit_base_patch14_dinov2", "adam")
    assert given["student"].student == "resnet50"
    assert (given["data"].size, given["data"].resolution, given["views"].augment) == (224, 28, "none")


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if fields(recipe)], ids=lambda recipe: recipe.name)
def test_the_defaults_on_the_recipes_page_are_the_codes(recipe):
    section = (DOCS / "recipes.md").read_text("utf-8").split(f"\n## {recipe.name}\n")[1].split("\n## ")[0]
    table = [[cell.strip() for cell in line.split("|")] for line in section.splitlines() if line.startswith("| ")]
    column = next(cells.index("Our default") for cells in table if "Our default" in cells)
    rows = [(cells[1].strip("`-"), cells[column]) for cells in table if cells[1].startswith("`--")]
    rows = [
        (flag, cell) for flag, cell in rows if cell == "none" or cell.startswith("`")
    ]  # other tables have flags too
    actual = {f.name: f.default for cls in (*SECTIONS.values(), recipe) for f in fields(cls)}
    actual |= {
        "teacher": recipe.default_teacher,
        "teacher_mode": recipe.default_teacher_mode,
        "student": recipe.default_student,
    }
    shown = {"None": "", "()": "", "True": "yes", "False": "no"}
    found = {flag.replace("-", "_"): "" if said == "none" else said.split("`")[1] for flag, said in rows}
    assert {f.name for f in fields(recipe)} <= set(found), "a setting of the recipe is not explained"
    for name, said in found.items():
        assert said == shown.get(str(actual[name]), str(actual[name])), name


# -- architecture.md ------------------------------------------------------------------------------------------------
PACKAGE = ROOT / "src/stillroom"


def modules(path: Path) -> set[str]:
    """Modules that a file imports names from, wherever in it, type-checking imports counted."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
    return found[0] if module.split(".")[0] == "stillroom" and found else None


def imported_files(path: Path) -> set[Path]:
    """Files of ours that a file imports."""
    tree, found = ast.parse(path.read_text("utf-8")), set()
    for node in ast.walk(tree):
        names = [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            found.add(file_of(name) or file_of(name.rpartition(".")[0]))
    return {file for file in found - {None, path} if file.parent != PACKAGE or file.name != "__init__.py"}


def room_of(path: Path) -> str:
    """A file's room, as the page names it."""
    inside = path.relative_to(PACKAGE)
    if inside.as_posix() == "settings/whole.py" or len(inside.parts) == 1:
        return inside.as_posix()
    return f"{inside.parts[0]}/"


@pytest.fixture(scope="module")
def levels() -> dict[str, int]:
    """Every room's level, as architecture.md lists them."""
    page = (DOCS / "architecture.md").read_text("utf-8")
    section = page[page.index("## Which arrow points where") : page.index("## Five walks")]
    lines = re.findall(r"^(\d+)\. (.+)$", section, flags=re.MULTILINE)
    return {room: int(level) for level, rooms in lines for room in re.findall(r"`([^`]+)`", rooms)}


FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file.parent != PACKAGE or not file.name.startswith("__")]


def test_every_file_stands_in_a_room_of_the_list(levels):
    assert {room_of(file) for file in FILES} == set(levels)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_arrows_point_downwards(levels, file):
    room = room_of(file)
    for other in imported_files(file):
        assert room_of(other) == room or levels[room_of(other)] < levels[room], f"{file.name} imports {other}"


def test_no_chain_of_imports_is_a_circle():
    graph = {file: imported_files(file) for file in PACKAGE.rglob("*.py")}
    while leaves := {file for file, others in graph.items() if not others & set(graph)}:
        graph = {file: others for file, others in graph.items() if file not in leaves}
    assert not graph, sorted(str(file.relative_to(PACKAGE)) for file in graph)


def test_no_walk_comes_back_to_a_room():
    page = (DOCS / "architecture.md").read_text("utf-8")
    section = page.split("## Five walks\n")[1].split("\n## ")[0]
    walks = [re.findall(r"`([\w/]+\.py)`", walk) for walk in re.split(r"^- ", section, flags=re.MULTILINE)[1:]]
    assert len(walks) == 5
    for walk in walks:
        assert all((PACKAGE / name).exists() for name in walk), walk
        rooms = [name.split("/")[0] for name in walk]
        visits = [room for room, before in zip(rooms, [None, *rooms], strict=False) if room != before]
        assert len(visits) == len(set(visits)), walk


@pytest.mark.parametrize("part", ["deployment", "report"])
def test_only_the_numpy_part_of_explanation_is_used_where_torch_is_not(part):
    files = [file for file in (PACKAGE / part).rglob("*.py") if file.name != "onnx.py"]  # the exporter has torch
    used = {name for file in files for name in modules(file) if name.startswith("stillroom.explanation.")}
    assert used
    assert used <= {
        "stillroom.explanation.score_cam",
        "stillroom.explanation.rise",
        "stillroom.explanation.overlay",
        "stillroom.explanation.claims",
    }


def loaded_with(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """The imports that run when a module is loaded: in no function, and not for the type checker alone."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += loaded_with(node)
    return found


def others_loaded_with(module: str) -> dict[str, str]:
    """Packages of others that loading a module of ours loads, each with the file of ours that names it."""
    todo, seen, found = {file_of(module)}, set(), {}
    while todo:
        file = todo.pop()
        seen.add(file)
        for node in loaded_with(ast.parse(file.read_text("utf-8"))):
            for alias in node.names:
                name = alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
                ours = file_of(name) or file_of(name.rpartition(".")[0])
                if ours:
                    folder = ours.parent / "__init__.py"
                    todo |= {ours, folder} - seen
                elif name.split(".")[0] not in sys.stdlib_module_names:
                    found[name.split(".")[0]] = file.relative_to(PACKAGE).as_posix()
    return found


@pytest.mark.parametrize(
    "module",
    [
        *("cli.app", "cli.commands", "deployment.predictor", "deployment.edge_maps", "deployment.prediction_table"),
        *("data.load", "data.sources.folder", "data.sources.manifest", "data.sources.phantoms"),
        *("after.heat_map", "after.external_validation", "after.foreign_images", "after.doctor"),
        *(
            "deployment.dicom_out.writing",
            "cli.archiving",
            "cli.page",
            "deployment.page.writing",
            "deployment.page.bring",
        ),
    ],
)
def test_what_a_device_loads_is_in_the_plain_install(module):
    plain = {"numpy", "onnxruntime", "PIL", "pydicom", "cyclopts", "rich", "packaging"}
    found = others_loaded_with(f"stillroom.{module}")
    assert {name: file for name, file in found.items() if name not in plain} == {}


def test_a_device_would_be_noticed_to_load_torch():
    assert others_loaded_with("stillroom.run.pipeline")["torch"]


def test_files_that_the_pages_name_exist():
    package = ROOT / "src/stillroom"
    for page in (DOCS / "architecture.md", DOCS / "recipes.md", DOCS / "reliability.md", ROOT / "CONTRIBUTING.md"):
        for name in re.findall(r"`((?:src/|tests/|docs/)?[\w/]+(?:\.py|/))`", page.read_text("utf-8")):
            written_by_runs = name.strip("/") in {"student", "teacher", "control", "evaluations"}
            assert written_by_runs or (ROOT / name).exists() or (package / name).exists(), f"{page.name}: {name}"


# -- examples -------------------------------------------------------------------------------------------------------
PYTHON = [(page, code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{page.name}-{n}" for n, (page, _) in enumerate(PYTHON)])
def test_python_examples_compile_and_import_what_is_there(page, code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "stillroom":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.fixture(scope="module")
def labels_first(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "labels_first.py"
    file.write_text(marked(DOCS / "how-to.md", "recipe"))
    return load(file, "labels_first").LabelsFirst


@pytest.fixture(scope="module")
def run(labels_first, picture_folder, tmp_path_factory):
    """A run of the recipe that how-to.md shows."""
    settings = Settings(
        str(picture_folder),
        recipe=labels_first(warm_up=2),
        data=DataSettings(size=32),
        views=ViewSettings(views=1),
        teacher=TeacherSettings("test_vit", pretrained=False, teacher_size=32),
        student=StudentSettings("test_resnet"),
        training=TrainingSettings(epochs=3, batch_size=16, lr=3e-3),
        evaluation=EvaluationSettings(resamples=100, latency=False, explain=2),
        device="cpu",
    )
    return distill(settings, tmp_path_factory.mktemp("runs") / "labels-first", show_progress=False)


def test_the_recipe_of_the_how_to_runs(run):
    epochs = {role: sum(line["role"] == role for line in run.history()) for role in ("warm_up", "student", "control")}
    assert epochs == {"warm_up": 2, "student": 3, "control": 5}
    first = next(line for line in run.history() if line["role"] == "student")
    assert set(first["losses"]) == {"label", "teacher"}
    assert run.metrics["comparison"]["student_vs_control"]["statement"]


def test_the_stage_of_the_how_to_reaches_every_page(labels_first, picture_folder, tmp_path, monkeypatch):
    code = marked(DOCS / "how-to.md", "stage")
    assert len(code.splitlines()) < 60
    file = tmp_path / "brightness.py"
    file.write_text(code)
    stage = load(file, "brightness").STAGE
    pipeline = importlib.import_module("stillroom.run.pipeline")
    monkeypatch.setattr(pipeline, "STAGES", (*pipeline.STAGES, stage))
    settings = Settings(
        str(picture_folder),
        recipe=labels_first(warm_up=1),
        data=DataSettings(size=32),
        views=ViewSettings(views=1),
        teacher=TeacherSettings("test_vit", pretrained=False, teacher_size=32),
        student=StudentSettings("test_resnet"),
        training=TrainingSettings(epochs=1, batch_size=16),
        evaluation=EvaluationSettings(resamples=100, latency=False, explain=0, control=False),
        device="cpu",
    )
    done = distill(settings, tmp_path / "run", show_progress=False)
    halves = done.metrics["brightness"]
    assert halves["darker"]["images"] + halves["lighter"]["images"] == done.metrics["test"]["student"]["images"]
    right = sum(half["right"] for half in halves.values())
    accuracy = done.metrics["test"]["student"]["accuracy"]["value"]
    assert right / done.metrics["test"]["student"]["images"] == pytest.approx(accuracy)
    assert done.manifest["durations_s"]["brightness"] >= 0
    for page in (done.report, done.path / "MODEL_CARD.md"):
        text = page.read_text("utf-8")
        assert "Dark and light images" in text
        assert "lighter" in text


def test_the_recipes_settings_become_flags(labels_first):
    app = make_app(labels_first)
    arguments = ["distill", "my_images", "--warm-up", "7"]
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert bound.arguments["own"] == labels_first(warm_up=7)


def test_the_run_folder_is_as_the_reference_describes_it(run):
    described = {name.strip("/") for name in make_reference.FILES}
    left = {path.name for path in run.path.iterdir()}
    assert left - described == {"warm_up"}, "files that the reference does not name"
    several = {"plan.yaml", "repeats", "folds", "average", "exported", "probe_of_teacher", "probe_of_student"}
    several |= {"student.int8.onnx", "student.fp16.onnx"}
    assert described - left == {"evaluations", "checkpoints", "reader_study"} | several, (
        "files that the reference promises"
    )
    assert set(make_reference.METRICS) - set(run.metrics) == {
        *("robustness", "int8", "fp16", "luck", "kept", "sections", "by_patient", "groups")
    }, "they were not asked for"
    assert not set(run.metrics) - set(make_reference.METRICS)
    ends = [line for line in run.history() if "kept" in line]
    assert len(ends) == len({line["role"] for line in run.history()})
    assert set(ends[0]) == set(make_reference.HISTORY)
    page = (DOCS / "reference.md").read_text("utf-8")
    student = run.metrics["test"]["student"]
    parts = [student, run.metrics["comparison"]["student_vs_control"], run.metrics["efficiency"]["student"], run.audit]
    for name in ("conformal", "ood", "explanation"):
        parts += [run.metrics[name], run.metrics[name].get("rule", {})]
    parts += [run.metrics["ood"]["made_up"][0], run.metrics["explanation"]["faithfulness"]["student"]]
    missing = [key for part in parts for key in part if f"`{key}`" not in page]
    assert not missing
    for name in ("explanations/maps.npz", "density.npz", "foreign_scores.npz"):
        with np.load(run.path / name) as arrays:
            known = {"map_student", "map_control", "map_teacher"}  # written `map_<role>`
            assert not [key for key in set(arrays.files) - known if f"`{key}" not in page], name
    properties = run.predictor()._session.get_modelmeta().custom_metadata_map
    assert not [name for name in properties if f"`{name}`" not in page]


def test_the_module_of_the_how_to_teaches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = marked(DOCS / "how-to.md", "own-module")
    assert len([line for line in code.splitlines() if line]) <= 10
    bare = EvaluationSettings(latency=False, explain=0, resamples=100, rivals=False, control=False)
    short = TrainingSettings(epochs=1, batch_size=16)
    small = {"evaluation": bare, "training": short, "data": DataSettings(size=32), "views": ViewSettings(views=1)}
    program = {"bare": lambda settings: replace(settings, **small)}
    exec(compile(code.replace("distill(settings", "distill(bare(settings)"), "how-to.md", "exec"), program)
    (entry,) = program["run"].manifest["taught_by"]
    assert entry["name"] == str(program["teacher"])


@pytest.mark.parametrize("task", [MultiClass(("a", "b", "c")), MultiLabel(("a", "b", "c"))], ids=lambda t: t.kind)
def test_the_objective_of_the_how_to(task, tmp_path):
    file = tmp_path / "match_logits.py"
    file.write_text(marked(DOCS / "how-to.md", "objective"))
    objective = load(file, "match_logits").MatchLogits(weight=0.5)
    rng = np.random.default_rng(0)
    student, teachers = rng.normal(size=(5, 3)), rng.normal(size=(2, 5, 3))
    targets = rng.integers(0, 3, 5) if task.exclusive else rng.integers(0, 2, (5, 3))
    logits = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    outputs = Outputs(logits, torch.zeros(5, 1), torch.zeros(5, 1, 1, 1))
    answers = TeacherOutputs(torch.tensor(teachers, dtype=torch.float32))
    step = Step(torch.zeros(5, 1, 8, 8), torch.tensor(targets), outputs, answers, task, 0.0)

    losses = objective(step)
    distance = ((student - teachers.mean(axis=0)) ** 2).mean()
    assert losses["teacher"].item() == pytest.approx(0.5 * distance, rel=1e-5)
    assert losses["label"].item() == pytest.approx(task.nll(student, targets), rel=1e-5)
    sum(losses.values()).backward()
    assert logits.grad.abs().sum() > 0


# -- where figures come from ----------------------------------------------------------------------------------------
SCRIPTS = [path for folder in ("benchmarks", "proofs") for path in sorted((ROOT / folder).glob("*.py"))]
DECIDING = ("data", "distillation", "evaluation", "explanation", "planning", "training")


def numbers_of(path: Path) -> set[str]:
    """``NAME = number`` of a module's constants, tuples of numbers and their parts in a joint assignment included."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target, value = node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value
        joint = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        for name, part in zip(target.elts, value.elts, strict=True) if joint else [(target, value)]:
            allowed = (ast.Constant, ast.Tuple, ast.Load, ast.UnaryOp, ast.USub, ast.BinOp, ast.operator)
            inside = list(ast.walk(part))
            numeric = all(isinstance(one, allowed) for one in inside) and all(
                type(one.value) in (int, float) for one in inside if isinstance(one, ast.Constant)
            )
            if numeric and isinstance(name, ast.Name) and name.id.isupper() and part is not None:
                found.add(f"{name.id} = {ast.unparse(part)}")
    return {one for one in found if not one.endswith("()")}


@pytest.mark.parametrize("room", DECIDING)
def test_every_number_says_where_it_comes_from(room):
    page = (DOCS / "constants.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (.+) \| (\S.*) \|$", page, re.MULTILINE)
    said = {name: set() for name, _, _ in rows}
    for name, cells, origin in rows:
        said[name] |= set(re.findall(r"`([^`]+)`", cells))
        assert origin.split(":")[0].split(",")[0] in {
            "measured", "published", "chosen", "counted", "bookkeeping", "convention", "convention of cameras",
            "rounding of float32", "rounding of float64", "closed form of the normal distribution", "what the figures can be",
        }, origin  # fmt: skip
    files = {path.relative_to(PACKAGE).as_posix(): numbers_of(path) for path in (PACKAGE / room).rglob("*.py")}
    wanted = {name: numbers for name, numbers in files.items() if numbers}
    found = {name: numbers for name, numbers in said.items() if name.split("/")[0] == room}
    assert found == wanted, "docs/constants.md: say of each number what measured it, or that it was chosen"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_script_imports_of_ours_is_there(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stillroom"):
            home = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                there = hasattr(home, name) or importlib.util.find_spec(f"{node.module}.{name}")
                assert there, f"{path.name} imports {name}, which {node.module} lacks"


def test_every_script_is_explained_and_every_script_named_is_there():
    pages = "".join(path.read_text("utf-8") for path in (*PAGES, ROOT / "Makefile", *PACKAGE.rglob("*.py")))
    for name in set(re.findall(r"\b((?:benchmarks|proofs)/\w+\.(?:py|yaml))", pages)):
        assert (ROOT / name).exists(), name
    docs = "".join(path.read_text("utf-8") for path in DOCS.glob("*.md"))
    for path in SCRIPTS:
        name = f"{path.parent.name}/{path.name}"
        imported = any(
            re.search(rf"^from {path.stem} import", other.read_text("utf-8"), re.MULTILINE) for other in SCRIPTS
        )
        assert name in docs or imported, f"{name} is in no page: what it makes is quoted nowhere"
