"""The simple rivals: what they answer, that they read no label beyond the budget, and where there is none."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import stillroom
from stillroom import (
    Baseline,
    Best,
    DataSettings,
    DualModelSKD,
    EvaluationSettings,
    LinearProbe,
    MedAlmighty,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
)
from stillroom.data.inference import run_over
from stillroom.data.load import load_data
from stillroom.models.zoo import create
from stillroom.run import probes
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench
from stillroom.task import MultiClass, MultiLabel


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of stand-ins for pretrained weights."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("test_resnet", "test_vit"):
        save_file(create(name, classes=1000, seed=7).backbone.state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def bench(picture_folder, tmp_path, weights):
    made = []

    def make(recipe=None, dataset=None, **changes):
        values = {
            "recipe": recipe or Baseline(),
            "data": DataSettings(size=32),
            "views": ViewSettings(views=2),
            "teacher": TeacherSettings("test_vit", teacher_mode="finetune", teacher_size=32, weights=weights),
            "student": StudentSettings("test_resnet", student_pretrained=True),
            "training": TrainingSettings(epochs=1, batch_size=16),
            "device": "cpu",
        }
        settings = Settings(str(picture_folder), **values | changes)
        dataset = dataset or load_data(picture_folder, settings.data, show_progress=False)
        made.append(Run.create(tmp_path / f"run-{len(made)}", settings))
        return Workbench(made[-1], dataset, show_progress=False)

    return make


def test_the_majority_answers_the_shares_of_the_training_labels():
    task = MultiClass(("a", "b", "c"))
    logits = probes.majority_logits(task, np.array([0, 0, 0, 1, 2, 2]))
    assert task.probabilities(logits[None])[0] == pytest.approx([3 / 6, 1 / 6, 2 / 6], abs=1e-6)
    task = MultiLabel(("a", "b"))
    logits = probes.majority_logits(task, np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=np.uint8))
    assert task.probabilities(logits[None])[0] == pytest.approx([3 / 4, 1 / 4], abs=1e-6)
    never = probes.majority_logits(task, np.zeros((4, 2), dtype=np.uint8))
    assert np.isfinite(never).all()


def test_no_probe_stands_there_twice_where_the_students_start_teaches(bench):
    teacher = {"teacher_mode": "finetune", "teacher_size": 32}

    def made(recipe, weights):
        return probes.make(bench(recipe, teacher=TeacherSettings("test_resnet", weights=weights, **teacher)))

    folder = bench().settings.teacher.weights
    assert set(made(MedAlmighty(), folder)) == {"probe_of_student", "majority"}
    panel = made(Best(frozen_teachers=("test_vit",), frozen_size=32), folder)
    assert panel["probe_of_teacher"].network.name == "test_vit"
    assert panel["probe_of_student"].network.name == "test_resnet"


def test_the_probes_answer_as_their_networks_do_and_are_not_made_twice(bench, monkeypatch):
    made = bench(MedAlmighty())
    found = probes.make(made)
    assert set(found) == {"probe_of_teacher", "probe_of_student", "majority"}
    rows = np.arange(len(made.data.images))
    for role in ("probe_of_teacher", "probe_of_student"):
        said = run_over(found[role].network, made.data.images, rows)
        assert found[role].logits == pytest.approx(said, abs=0.1)  # stored features are rounded to float16
        right = (said.argmax(axis=1) == made.data.targets).mean()
        assert right > 0.5, role  # the square shows in random features too: more than the commoner half
    monkeypatch.setattr(probes, "fit_by_lbfgs", lambda *_: pytest.fail("fitted again"))
    again = probes.make(made)
    assert all(np.array_equal(found[role].logits, again[role].logits) for role in found)


def test_the_start_is_left_as_it_was(bench):
    made = bench()
    network = probes.make(made)["probe_of_student"].network
    start = made.student().backbone.state_dict()
    differing = {name for name, value in network.backbone.state_dict().items() if not torch.equal(value, start[name])}
    assert differing == {"fc.weight", "fc.bias"}


def test_labels_beyond_the_budget_are_not_read(bench, picture_folder):
    few = {"training": TrainingSettings(epochs=1, batch_size=16, label_fraction=0.25)}
    honest = bench(**few)
    table = honest.dataset.table
    hidden = np.setdiff1d(honest.training_rows, honest.data.train)
    expected = {role: rival.logits for role, rival in probes.make(honest).items()}
    honest.data.targets[hidden] = 1 - table.targets[hidden]
    (honest.run.path / "probe_of_student" / "model.json").unlink()
    found = probes.make(honest)
    assert all(np.array_equal(found[role].logits, expected[role]) for role in expected)
    assert honest.labels_read == set(honest.data.train.tolist())


@pytest.mark.parametrize(
    ("recipe", "changes", "expected"),
    [
        (Baseline(), {"student": StudentSettings("test_resnet")}, set()),
        (MedAlmighty(), {"student": StudentSettings("test_resnet")}, {"probe_of_teacher"}),
        (LinearProbe(), {}, set()),  # the student is that probe
        (DualModelSKD(initial="scratch"), {"student": StudentSettings("test_vit")}, set()),
        (
            MedAlmighty(),
            {"teacher": TeacherSettings("test_vit", teacher_mode="finetune", teacher_size=32, pretrained=False)},
            set(),
        ),
    ],
)
def test_where_there_is_nothing_to_probe(bench, recipe, changes, expected):
    if "student" not in changes:
        changes = changes | {
            "student": StudentSettings("test_resnet", student_pretrained=recipe.name == "linear_probe")
        }
    assert set(probes.make(bench(recipe, **changes))) == expected | {"majority"}


def test_a_frozen_teacher_is_that_probe_already(bench, weights):
    made = bench(MedAlmighty(), teacher=TeacherSettings("test_vit", teacher_size=32, weights=weights))
    made.teacher()
    assert set(probes.make(made)) == {"probe_of_student", "majority"}


def test_a_network_without_a_linear_end_is_left_out_with_the_reason(bench, monkeypatch):
    from stillroom.errors import UsageError
    from stillroom.models.network import Network

    def refuse(network):
        raise UsageError(f"{network.name} does not end in one linear layer")

    monkeypatch.setattr(Network, "classifier", refuse)
    made = bench()
    assert set(probes.make(made)) == {"majority"}
    assert "one linear layer" in made.run.manifest["rivals_left_out"]["probe_of_student"]


@pytest.mark.slow
def test_rivals_stand_beside_the_student_and_can_be_left_out(picture_folder, weights, tmp_path):
    settings = Settings(
        str(picture_folder),
        recipe=Baseline(),
        data=DataSettings(size=32),
        views=ViewSettings(views=2),
        teacher=TeacherSettings(weights=weights),
        student=StudentSettings("test_resnet", student_pretrained=True),
        training=TrainingSettings(epochs=1, batch_size=16),
        evaluation=EvaluationSettings(resamples=100, latency=False, explain=0),
        device="cpu",
    )
    run = stillroom.distill(settings, tmp_path / "with", show_progress=False)
    roles = {"student", "probe_of_student", "majority"}
    assert set(run.metrics["test"]) == roles
    assert {column.split(":")[0] for column in run.predictions().columns[5:]} == roles
    assert set(run.metrics["comparison"]) == {"student_vs_probe_of_student", "student_vs_majority"}
    without = dataclasses.replace(settings, evaluation=dataclasses.replace(settings.evaluation, rivals=False))
    assert set(stillroom.distill(without, tmp_path / "without", show_progress=False).metrics["test"]) == {"student"}
