"""The heat maps of a run: which images, layers and networks, and what is said where there are none."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import stillroom
import stillroom.run.stages.explanation
from stillroom import DataSettings, EvaluationSettings, Settings, StudentSettings, TrainingSettings, UsageError
from stillroom.data.load import load_data
from stillroom.distillation.teachers import Panel
from stillroom.explanation.claims import VERDICTS
from stillroom.explanation.heat_maps import heat_maps
from stillroom.models.zoo import create
from stillroom.recipes.base import Recipe
from stillroom.recipes.explainable_kd import ExplainableKD
from stillroom.run.folder import Run
from stillroom.run.stages.explanation import check_layer, exported_note, make, student_layer
from stillroom.run.workbench import Workbench


@pytest.fixture
def bench(picture_folder, tmp_path):
    """``bench(size=28, explain=3)``: a workbench on the pictures, with nothing trained."""

    def make_bench(source=picture_folder, size=32, name="run", epochs=30, **evaluation):
        chosen = EvaluationSettings(**{"resamples": 100, "explain": 3} | evaluation)
        training = TrainingSettings(epochs=epochs)
        settings = Settings(
            str(source), data=DataSettings(size=size), training=training, evaluation=chosen, device="cpu"
        )
        dataset = load_data(settings.source, settings.data, seed=0, show_progress=False)
        return Workbench(Run.create(tmp_path / name, settings), dataset, show_progress=False)

    return make_bench


def made(bench, student, probabilities=None, **others):
    networks = {"student": student} | others
    if probabilities is None:
        count, classes = len(bench.dataset.table), len(bench.task.classes)
        probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), count)
    return make(bench, networks, probabilities, dict.fromkeys(networks, 1.0))


def network(name="resnet10t_050", side=32, classes=2, **settings):
    return create(name, classes=classes, size=side, **settings).eval()


def test_a_sample_of_test_images_is_explained_and_kept(bench, monkeypatch):
    place = bench()
    student, teacher = network(), network("test_vit")
    chances = np.random.default_rng(1).dirichlet([1, 1], len(place.dataset.table))
    found = made(place, student, chances, control=network(seed=1), teacher=teacher, warm_up=network(seed=2))
    figures = json.loads((place.run.path / "explanations" / "explanation.json").read_text("utf-8"))
    assert figures == found.figures
    assert figures["images"] == 3
    assert figures["method"] == dict.fromkeys(("student", "control", "teacher"), "rise")
    assert set(figures["faithfulness"]) == {"student", "control", "teacher"}
    assert figures["layer"] == {"student": "layer2", "control": "layer2", "teacher": "last"}
    assert found.layer.name == "layer2"

    kept = np.load(place.run.path / "explanations" / "maps.npz")
    rows, classes = kept["index"], kept["classes"]
    assert set(place.dataset.table.splits[rows]) == {"test"}
    np.testing.assert_array_equal(classes, chances[rows].argmax(axis=1))
    images = place.data.images.batch(rows)
    np.testing.assert_array_equal(kept["images"], np.round(images.numpy() * 255))
    expected = heat_maps(student, images, classes.tolist(), method="rise")
    np.testing.assert_allclose(kept["map_student"], expected, atol=1e-3)
    theirs = heat_maps(teacher, images, classes.tolist(), method="rise")
    np.testing.assert_allclose(kept["map_teacher"], theirs, atol=1e-3)

    def again(*arguments, **settings):
        raise AssertionError("explained twice")

    monkeypatch.setattr("stillroom.run.stages.explanation.gather", again)
    second = made(place, student, chances, teacher=teacher)
    assert second.figures == found.figures
    assert second.layer.name == "layer2"


def test_the_student_is_right_where_its_decision_is_the_truth(bench, monkeypatch):
    place = bench(explain=24)
    seen = []
    monkeypatch.setattr("stillroom.run.stages.explanation.gather", lambda *asked, **how: seen.append(asked) or 1 / 0)
    chances = np.random.default_rng(1).dirichlet([1, 1], len(place.dataset.table))
    with pytest.raises(ZeroDivisionError):
        made(place, network(), chances)
    explained = seen[0][1]
    truth = place.dataset.table.targets[explained.rows]
    assert len(explained.rows) == len(place.dataset.table.indices("test"))
    np.testing.assert_array_equal(explained.right, (chances[explained.rows, 1] > 0.5) == truth)


def efforts_of(monkeypatch, place, **others):
    """Roles drawn, those judged, and images: what is asked of `gather`, and nothing is drawn. Every answer is a finding."""
    seen = []
    monkeypatch.setattr(
        "stillroom.run.stages.explanation.gather", lambda *asked, **how: seen.append((asked, how)) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        made(place, network(), np.tile([0.1, 0.9], (len(place.dataset.table), 1)), **others)
    (networks, explained), how = seen[0]
    return tuple(networks), tuple(how["judged"]), len(explained.images)


def test_explaining_costs_less_than_training(bench, monkeypatch):
    """Maps and measures of 24 images come to some 11,000 passes a network."""
    others = {"control": network(seed=1), "teacher": network("test_vit")}
    every = ("student", "control", "teacher")
    long = bench(name="long", epochs=1000, explain=None)
    assert efforts_of(monkeypatch, long, **others) == (every, every, 24)
    short = bench(name="short", epochs=1, explain=None)
    assert efforts_of(monkeypatch, short, **others) == (("student",), ("student",), 16)
    asked_for = bench(name="asked", epochs=1, explain=24)
    assert efforts_of(monkeypatch, asked_for, **others) == (every, every, 24)
    twins = {"control": network(seed=1)}
    between = [bench(name=f"run{epochs}", epochs=epochs, explain=None) for epochs in (10, 80, 130)]
    assert [efforts_of(monkeypatch, place, **twins) for place in between] == [
        (("student",), ("student",), 16),
        (("student", "control"), ("student",), 24),
        (("student", "control"), ("student", "control"), 24),
    ]


def test_what_was_spared_is_said(bench):
    place = bench(epochs=80, explain=None)
    found = made(place, network(), control=network(seed=1)).figures
    assert set(found["faithfulness"]) == set(found["statement"]) == set(found["curves"]) == {"student"}
    assert set(found["method"]) == {"student", "control"}
    assert set(found["agreement"]) == {"student_vs_control"}
    said = (
        "So that explaining takes no longer than training: maps of the control are drawn and compared, but not judged. "
        "--explain 24 does all."
    )
    assert said in found["notes"]
    kept = np.load(place.run.path / "explanations" / "maps.npz")
    assert {"map_student", "map_control"} <= set(kept)


def test_none_are_made_where_none_are_wanted(bench):
    place = bench(explain=0)
    found = made(place, network())
    assert found.figures is None
    assert found.layer.name == "layer2"  # the exported file makes them all the same
    assert not (place.run.path / "explanations").exists()


ONE_PLACE = [("mobilenetv3_small_050", 28, "last"), ("test_vit", 16, "auto")]


@pytest.mark.parametrize(("name", "side", "wanted"), ONE_PLACE)
def test_a_student_of_one_place_makes_none_of_a_layer_and_says_why(bench, name, side, wanted):
    found = made(bench(size=side, explain_layer=wanted, explain_method="score_cam"), network(name, side))
    assert found.layer is None
    assert found.figures["images"] == 0
    assert "no feature map of more than one place" in found.figures["reason"]
    assert exported_note(found.figures) is exported_note(None) is None


@pytest.mark.parametrize(("name", "side", "wanted"), ONE_PLACE)
def test_a_student_of_one_place_is_explained_by_what_asks_for_no_layer(bench, name, side, wanted):
    found = made(bench(size=side, explain_layer=wanted, explain_method="rise"), network(name, side))
    assert found.layer is None
    assert found.figures["images"] > 0
    assert (found.figures["method"]["student"], found.figures["layer"]["student"]) == ("rise", None)
    assert exported_note(found.figures)["verdict"] in VERDICTS


def test_images_of_28_pixels_are_explained(bench):
    place = bench(size=28, explain=2)
    found = made(place, network("mobilenetv3_small_050", 28))
    assert found.layer.name == "blocks.1"  # 4 x 4 places
    assert found.figures["images"] == 2
    assert np.load(place.run.path / "explanations" / "maps.npz")["map_student"].shape == (2, 28, 28)


def test_labels_are_explained_one_by_one(bench, picture_folder, tmp_path, monkeypatch):
    """Of several labels the most probable one; right is whether that one is decided rightly."""
    names = sorted(str(path) for path in picture_folder.rglob("*.png"))
    labels = ["a", "b", "a;b", ""] * (len(names) // 4)
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True)))
    place = bench(table)
    assert place.task.kind == "multilabel"
    chances, truths = np.random.default_rng(1).random((len(names), 2)), []
    gather = stillroom.run.stages.explanation.gather

    def spied(networks, explained, **how):
        truths.extend(explained.right)
        return gather(networks, explained, **how)

    monkeypatch.setattr("stillroom.run.stages.explanation.gather", spied)
    found = made(place, network(), chances)
    kept = np.load(place.run.path / "explanations" / "maps.npz")
    np.testing.assert_array_equal(kept["classes"], chances[kept["index"]].argmax(axis=1))
    own = np.arange(3), kept["classes"]
    right = (chances[kept["index"]] > 0.5)[own] == place.dataset.table.targets[kept["index"]][own]
    assert found.figures["faithfulness"]["student"]["faithful"] is False  # of three images nothing is claimed
    assert right.tolist() == truths
    assert found.figures["images"] == 3
    note = exported_note(found.figures)
    assert (note["faithful"], note["method"]) == (False, "rise")
    reason = found.figures["faithfulness"]["student"]["reasons"][0]
    assert note["statement"] == f"{found.figures['statement']['student']} {reason}"


@pytest.mark.parametrize("method", ["rise", "score_cam", "grad_cam", "eigen_cam"])
def test_several_teachers_are_explained_by_the_mean_of_their_maps(bench, method):
    place = bench(size=64, explain=2, explain_method=method)
    panel = Panel([network("test_vit", 64), network("resnet10t_050", 64, seed=3)]).eval()
    found = made(place, network(side=64), teacher=panel)
    kept = np.load(place.run.path / "explanations" / "maps.npz")
    images, classes = place.data.images.batch(kept["index"]), kept["classes"].tolist()
    used = "score_cam_fast" if method == "score_cam" else method
    members = [heat_maps(member, images, classes, method=used, layer="auto") for member in panel.networks]
    np.testing.assert_allclose(kept["map_teacher"], torch.stack(members).mean(dim=0), atol=2e-3)
    assert found.figures["layer"]["teacher"] == "auto"
    assert found.figures["notes"] == [note for note in found.figures["notes"] if "no heat maps" not in note]


@pytest.mark.parametrize(("wanted", "drawn"), [("auto", "score_cam_fast"), ("score_cam", "score_cam")])
def test_wide_layers_are_explained_fast_unless_asked_otherwise(bench, monkeypatch, wanted, drawn):
    """Of the recipe whose paper has Score-CAM."""
    seen = {}
    monkeypatch.setattr(Recipe, "default_map", ExplainableKD.default_map)
    monkeypatch.setattr("stillroom.run.stages.explanation.gather", lambda *asked, **how: seen.update(how) or 1 / 0)
    place = bench(explain_method=wanted)
    with pytest.raises(ZeroDivisionError):
        made(place, network("resnet10t"), control=network("resnet10t", seed=1), teacher=network("test_vit"))
    assert seen["layers"]["student"] == "layer2"  # of 128 channels
    assert seen["methods"] == dict.fromkeys(("student", "control"), "score_cam") | {"teacher": "score_cam_fast"}
    place = bench(size=64, explain_method=wanted, name="larger")
    with pytest.raises(ZeroDivisionError):
        made(place, network("resnet18", 128), control=network("resnet18", 128, seed=1))
    assert seen["layers"]["student"] == "last"  # of 512
    assert seen["methods"] == dict.fromkeys(("student", "control"), drawn)


def test_a_teacher_without_a_map_is_explained_by_rise_which_needs_none(bench):
    found = made(bench(), network(), teacher=network("test_vit", 16))
    assert set(found.figures["faithfulness"]) == {"student", "teacher"}


def test_a_teacher_without_a_map_is_left_out_with_a_note(bench):
    found = made(bench(explain_method="score_cam"), network(), teacher=network("test_vit", 16))
    assert set(found.figures["faithfulness"]) == {"student"}
    assert any(note.startswith("The teacher has no heat maps: ") for note in found.figures["notes"])


def test_a_student_whose_layer_no_gradient_reaches_makes_none(bench):
    place = bench(size=64, explain_method="grad_cam", explain_layer="norm")
    found = made(place, network("test_vit", 64), control=network("test_vit", 64, seed=1))
    assert found.figures["images"] == 0
    assert found.figures["reason"].startswith("The student has no heat maps: No gradient")


def test_the_layer_is_the_one_that_was_asked_for():
    student, images = network(side=64), torch.rand(2, 1, 64, 64)
    assert student_layer(student, "auto", images).name == "layer3"
    assert student_layer(student, "last", images).name == "last"
    assert student_layer(student, "layer1.0", images).path == "backbone.layer1.0"
    with pytest.raises(UsageError, match=r"no layer 'layer9'\. Did you mean layer"):
        student_layer(student, "layer9", images)
    with pytest.raises(UsageError, match=r"fc gives no feature map"):
        student_layer(student, "fc", images)


@pytest.mark.parametrize(
    ("name", "method", "layer", "words"),
    [
        ("resnet10t_050", "score_cam", "layer9", "no layer 'layer9'"),
        ("resnet10t_050", "score_cam", "layer4", "layer layer4 has one place for images of 32 x 32"),
        ("test_vit", "grad_cam", "norm", "No gradient .* reaches the map of the layer norm"),
        ("test_vit", "grad_cam_pp", "blocks.5.mlp", "No gradient"),
    ],
)
def test_a_wrong_layer_is_refused_before_anything_is_trained(picture_folder, tmp_path, name, method, layer, words):
    settings = Settings(
        str(picture_folder),
        data=DataSettings(size=32),
        student=StudentSettings(name),
        teacher=stillroom.TeacherSettings("test_vit", pretrained=False, teacher_size=32),
        evaluation=EvaluationSettings(explain_method=method, explain_layer=layer),
        device="cpu",
    )
    with pytest.raises(UsageError, match=words):
        stillroom.distill(settings, tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def test_a_head_that_is_all_zero_before_training_is_no_reason_to_refuse():
    student = network("test_vit", 32)
    torch.nn.init.zeros_(student.classifier().weight)
    chosen = EvaluationSettings(explain_method="grad_cam", explain_layer="blocks.5.norm1")
    settings = replace(Settings("phantoms"), data=DataSettings(size=32), evaluation=chosen)
    state = torch.get_rng_state()
    check_layer(student, settings)
    assert torch.equal(torch.get_rng_state(), state)
