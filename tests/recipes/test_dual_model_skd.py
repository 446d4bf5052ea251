"""Dual-model weight selection and self-knowledge distillation: where the two start, what is trained on what, refusals."""

import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import stillroom
from stillroom.data.load import load_data
from stillroom.errors import UsageError
from stillroom.models.saving import load_network
from stillroom.models.weight_selection import Elements, Layers, select_weights
from stillroom.models.zoo import create
from stillroom.recipes import RECIPES
from stillroom.recipes.dual_model_skd import DualModelSKD
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.settings.sections import (
    DataSettings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
)
from stillroom.settings.whole import Settings
from stillroom.task import MultiClass, MultiLabel

LARGE, SMALL = "resnet10t", "resnet10t_050"
QUICK = {"skd_epochs": 1, "projector_width": 16, "projection": 8}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the large network, in a file like a pretrained one's."""
    file = tmp_path_factory.mktemp("weights") / f"{LARGE}.safetensors"
    save_file(create(LARGE, classes=1000, seed=7).backbone.state_dict(), file)
    return file


@pytest.fixture
def settings(picture_folder, weights):
    def make(recipe=DualModelSKD(**QUICK), **more):  # noqa: B008
        given = {
            "data": DataSettings(size=32),
            "views": ViewSettings(views=2),
            "teacher": TeacherSettings(LARGE, weights=weights, teacher_epochs=1),
            "student": StudentSettings(SMALL),
            "training": TrainingSettings(epochs=1, batch_size=16),
            "evaluation": EvaluationSettings(resamples=100, latency=False, explain=0, rivals=False),
            "device": "cpu",
        }
        return Settings(str(picture_folder), recipe=recipe, **(given | more))

    return make


@pytest.fixture
def bench(settings, tmp_path):
    def make(*given, **more):
        chosen = settings(*given, **more)
        dataset = load_data(chosen.source, chosen.data, seed=chosen.seed, show_progress=False)
        return Workbench(Run.create(tmp_path / "run", chosen), dataset, show_progress=False)

    return make


def without_classifier(network):
    return {key: value for key, value in network.backbone.state_dict().items() if not key.startswith("fc.")}


def alike(first, second):
    first, second = without_classifier(first), without_classifier(second)
    return all(torch.equal(first[key], second[key]) for key in first)


def cut(weights, elements):
    large = create(LARGE, classes=2, size=32, pretrained=True, weights=weights)
    small = create(SMALL, classes=2, size=32)
    select_weights(large, small, elements=elements)
    return small


# -- where the two networks start -----------------------------------------------------------------------------------


def test_dual_cuts_two_networks_out_of_the_large_one(bench, weights):
    made = bench()
    main, auxiliary = made.settings.recipe.networks(made)
    assert alike(main, cut(weights, "uniform"))
    assert alike(auxiliary, cut(weights, "consecutive"))
    assert not alike(main, auxiliary)
    note = made.run.manifest["weight_selection"]
    assert note["main"] == note["auxiliary"]
    assert note["main"]["large"] == LARGE
    assert note["main"]["initial"] == ["fc.weight", "fc.bias"]
    assert note["main"]["copied"] == len(without_classifier(main))


def test_single_starts_the_auxiliary_network_as_a_copy(bench, weights):
    made = bench(DualModelSKD(initial="single", elements="consecutive", **QUICK))
    main, auxiliary = made.settings.recipe.networks(made)
    assert alike(main, cut(weights, "consecutive"))
    assert alike(main, auxiliary)
    assert not {id(value) for value in main.parameters()} & {id(value) for value in auxiliary.parameters()}


def test_scratch_starts_both_from_random_weights_of_their_own(bench, weights):
    made = bench(DualModelSKD(initial="scratch", **QUICK))
    main, auxiliary = made.settings.recipe.networks(made)
    assert alike(main, create(SMALL, classes=2, size=32, seed=0))
    assert alike(auxiliary, create(SMALL, classes=2, size=32, seed=1000))
    assert "weight_selection" not in made.run.manifest


def test_random_choices_of_both_networks_differ(bench):
    made = bench(DualModelSKD(elements="random", auxiliary_elements="random", **QUICK))
    main, auxiliary = made.settings.recipe.networks(made)
    assert not alike(main, auxiliary)


def test_the_choices_are_those_of_weight_selection():
    hints = get_type_hints(DualModelSKD)
    assert get_args(hints["layers"]) == get_args(hints["auxiliary_layers"]) == get_args(Layers)
    assert get_args(hints["elements"]) == get_args(hints["auxiliary_elements"]) == get_args(Elements)


# -- what is trained on what ----------------------------------------------------------------------------------------


def fits(recipe, bench, monkeypatch):
    """The fits that a run and its control make, as (role, objective, epochs, rows, teachers); nothing is trained."""
    made, calls = bench(recipe), []

    def fit(role, network, objective, *, teachers=(), epochs=None, rows=None, lr=None):
        calls.append((role, type(objective).__name__, epochs, None if rows is None else len(rows), len(teachers)))
        seen = len(made.data.train if rows is None else rows) * (2 if objective.two_views else 1) * (epochs or 1)
        made.run.log({"role": role, "epoch": 1, "images": seen})
        with torch.no_grad():
            network.classifier().weight.fill_(9.0)
        return network

    monkeypatch.setattr(made, "fit", fit)
    monkeypatch.setattr(made, "teacher", lambda: "the teacher")
    made.training_rows = np.arange(50)
    recipe.run(made)
    recipe.control(made)
    return calls, made


FREE = (5, 50, 0)  # epochs, rows, teachers: every training image
LABELLED = (5, None, 0)  # the images whose labels may be used


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [("skd", "ByolLoss", *FREE), ("student", "LabelLoss", None, None, 0)]),
        ({"skd": "dino"}, [("skd", "DinoLoss", *FREE), ("student", "LabelLoss", None, None, 0)]),
        (
            {"skd": "kl_logit"},
            [("skd", "LogitSelfDistillation", *LABELLED), ("student", "LabelLoss", None, None, 0)],
        ),
        ({"skd": "bake"}, [("skd", "BatchEnsembling", *LABELLED), ("student", "LabelLoss", None, None, 0)]),
        ({"skd": "none", "initial": "single"}, [("student", "LabelLoss", None, None, 0)]),
        ({"skd": "none", "initial": "single", "teach": True}, [("student", "HybridLoss", None, None, 1)]),
        ({"skd": "none", "initial": "scratch", "teach": True}, [("student", "HybridLoss", None, None, 1)]),
        ({"teach": True}, [("skd", "ByolLoss", *FREE), ("student", "HybridLoss", None, None, 1)]),
    ],
    ids=str,
)
def test_stages_follow_the_settings_and_the_control_has_their_image_passes(chosen, expected, bench, monkeypatch):
    recipe = DualModelSKD(**QUICK | {"skd_epochs": 5} | chosen)
    calls, made = fits(recipe, bench, monkeypatch)
    skd, labelled = chosen.get("skd", "byol"), len(made.data.train)
    seen = 0 if skd == "none" else len(made.training_rows) if skd in ("byol", "dino") else labelled
    epochs = 1 + round(2 * 5 * seen / labelled)  # two views of every image in an epoch of self-distillation
    assert calls == [*expected, ("control", "LabelLoss", epochs, None, 0)]


def test_fine_tuning_starts_with_a_fresh_head(bench, monkeypatch):
    heads = []
    recipe = DualModelSKD(**QUICK)
    made = bench(recipe)

    def fit(role, network, objective, **_):
        heads.append(network.classifier().weight.detach().clone())
        with torch.no_grad():
            network.classifier().weight.fill_(9.0)
        return network

    monkeypatch.setattr(made, "fit", fit)
    recipe.run(made)
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[1], made.student().classifier().weight)


def test_settings_reach_the_objective(bench):
    made = bench()
    _, auxiliary = made.settings.recipe.networks(made)
    given = {"momentum": 0.9, "momentum_schedule": "cosine", "projector_width": 12, "projection": 6}
    byol = DualModelSKD(**given)._objective(auxiliary, 3)
    assert (byol.momentum, byol.schedule) == (0.9, "cosine")
    assert byol.predictor[0].weight.shape == (12, 6)
    dino = DualModelSKD(
        skd="dino", dino_temperature=0.3, dino_auxiliary_temperature=0.2, dino_centre_momentum=0.5, **given
    )._objective(auxiliary, 3)
    assert (dino.temperature, dino.auxiliary_temperature, dino.centre_momentum) == (0.3, 0.2, 0.5)
    assert dino.projector[-1].weight.shape == (6, 12)
    bake = DualModelSKD(skd="bake", skd_temperature=2.0, skd_weight=0.1, bake_omega=0.7)._objective(auxiliary, 3)
    assert (bake.temperature, bake.weight, bake.omega, bake.momentum) == (2.0, 0.1, 0.7, 0.99)


# -- end to end -----------------------------------------------------------------------------------------------------


def check_run(run, roles, control_epochs):
    assert run.finished
    history = run.history()
    assert list(dict.fromkeys(line["role"] for line in history)) == roles
    assert [line["epochs"] for line in history if line["role"] == "control"] == [control_epochs] * control_epochs
    assert [line["val"] for line in history if line["role"] == "skd"] == [None]
    assert run.metrics["export"]["passed"]
    skd, student = (load_network(run.path / role) for role in ("skd", "student"))
    assert not alike(skd, student)
    assert not (run.path / "checkpoints").exists()


def test_a_run_from_end_to_end_and_again_from_its_stages(settings, weights, tmp_path):
    chosen = settings(training=TrainingSettings(epochs=1, batch_size=16, label_fraction=0.5))
    run = stillroom.distill(chosen, tmp_path / "run", show_progress=False)
    check_run(run, ["skd", "student", "control"], 1 + 2 * 2)  # two views of twice as many images as have labels
    assert not alike(load_network(run.path / "skd"), cut(weights, "uniform"))
    student = load_network(run.path / "student").state_dict()
    for name in ("student/model.json", "report.html"):
        (run.path / name).unlink()
    resumed = stillroom.resume(run.path, show_progress=False)
    again = load_network(resumed.path / "student").state_dict()
    trained = [json.loads(line)["role"] for line in (run.path / "history.jsonl").read_text().splitlines()]
    assert trained == ["skd", "student", *["control"] * 5, "student"]  # self-distillation is not done again
    assert all(torch.equal(student[key], again[key]) for key in student)


@pytest.mark.slow
def test_the_large_network_teaches_where_asked(settings, tmp_path):
    recipe = DualModelSKD(initial="single", teach=True, skd="kl_logit", **QUICK)
    run = stillroom.distill(settings(recipe), tmp_path / "run", show_progress=False)
    roles = {line["role"] for line in run.history()}
    assert roles == {"skd", "teacher", "student", "control"}
    assert set(run.metrics["test"]) == {"student", "control", "teacher"}


@pytest.mark.slow
def test_a_run_with_published_weights(settings, real_weights, tmp_path):
    teacher = TeacherSettings("mobilenetv2_100", weights=real_weights())
    chosen = settings(teacher=teacher, student=StudentSettings("mobilenetv2_050"))
    run = stillroom.distill(chosen, tmp_path / "run", show_progress=False)
    check_run(run, ["skd", "student", "control"], 1 + 2)
    main = run.manifest["weight_selection"]["main"]
    assert main["copied"] == 312
    assert main["layers"]["blocks.5"] == [0, 1, 2]


# -- refusals -------------------------------------------------------------------------------------------------------


def test_a_pair_that_does_not_match_is_one_line_that_names_the_tensor(settings, tmp_path):
    chosen = settings(student=StudentSettings("test_vit"))
    with pytest.raises(UsageError, match=r"^test_vit cannot be cut out of resnet10t: cls_token .*[.]$") as refused:
        stillroom.distill(chosen, tmp_path / "run", show_progress=False)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"skd": "none"}, "--skd none --initial single"),
        ({"skd": "none", "initial": "scratch"}, "--recipe baseline"),
        ({"auxiliary_elements": "uniform"}, "cut out alike"),
        ({"skd_epochs": 0}, "skd_epochs must be at least 1, got 0"),
        ({"projection": 0}, "projection must be at least 1"),
        ({"momentum": 1.5}, "momentum lies between 0 and 1, got 1.5"),
        ({"kd_alpha": -1}, "kd_alpha lies between 0 and 1"),
        ({"skd_temperature": 0}, "skd_temperature must be above 0"),
        ({"dino_temperature": float("nan")}, "dino_temperature must be above 0"),
        ({"skd_weight": -1}, "skd_weight must be at least 0 and finite"),
        ({"bake_omega": 1}, "bake_omega must be at least 0 and below 1"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused(chosen, message):
    with pytest.raises(UsageError, match=message):
        DualModelSKD(**chosen)


def test_settings_of_other_sections_that_do_not_go_with_it_are_refused(settings):
    def refuse(message, recipe=DualModelSKD(), **more):  # noqa: B008
        chosen = settings(recipe, **more)
        with pytest.raises(UsageError, match=message):
            recipe.check(chosen)

    pretrained = StudentSettings(SMALL, student_pretrained=True)
    refuse("leave out --student-pretrained", student=pretrained)
    refuse("leave out --no-pretrained", teacher=TeacherSettings(LARGE, pretrained=False))
    refuse("give --augment light", views=ViewSettings(augment="none"))
    unlabelled = TrainingSettings(unlabelled=Path("more"))
    refuse("leave out --unlabelled", DualModelSKD(skd="kl_logit"), training=unlabelled)
    DualModelSKD().check(settings(training=unlabelled))
    DualModelSKD(skd="kl_logit", teach=True).check(settings(training=unlabelled))
    plain = {"views": ViewSettings(augment="none"), "teacher": TeacherSettings(LARGE, pretrained=False)}
    DualModelSKD(initial="scratch", skd="none", teach=True).check(settings(**plain))


def test_ensembling_needs_one_class_per_image():
    several = MultiLabel(("a", "b"))
    with pytest.raises(UsageError, match="--skd bake needs one class per image"):
        DualModelSKD(skd="bake").adapt(several)
    assert DualModelSKD(skd="bake").adapt(MultiClass(("a", "b"))).kind == "binary"
    assert DualModelSKD(skd="kl_logit").adapt(several) is several


def test_the_large_networks_weights_are_wanted_only_where_it_is_used(settings):
    assert DualModelSKD().teacher_names(settings()) == (LARGE,)
    assert DualModelSKD(initial="scratch").teacher_names(settings()) == ()
    assert DualModelSKD(initial="scratch", teach=True).teacher_names(settings()) == (LARGE,)


def test_it_is_listed_and_has_defaults_of_its_own():
    assert DualModelSKD in RECIPES
    chosen = Settings("phantoms", recipe=DualModelSKD())
    assert (chosen.teacher.teacher, chosen.teacher.teacher_mode) == ("vit_small_patch16_224", "finetune")
    assert chosen.student.student == "vit_tiny_patch16_224"


# -- docs/recipes.md ------------------------------------------------------------------------------------------------


def section():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
    return page.split("\n## dual_model_skd\n")[1].split("\n## ")[0]


def test_the_pages_controls_are_settings_that_work():
    from stillroom.cli.app import make_app

    seen = 0
    for flags in re.findall(r"^\|[^|]+\| `(--(?:initial|skd|teach|elements)\b[^`]*)` \|", section(), re.MULTILINE):
        bound = make_app(DualModelSKD).parse_args(f"distill pictures {flags}", print_error=False, exit_on_error=False)[
            1
        ]
        assert isinstance(bound.arguments["own"], DualModelSKD), flags
        seen += 1
    assert seen >= 6
