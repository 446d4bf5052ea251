"""The main job end to end on small pictures: what stands in the run folder, and that a killed run ends alike."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, roc_auc_score

import stillroom
from stillroom import (
    CAMKD,
    Baseline,
    DataSettings,
    EvaluationSettings,
    MedAlmighty,
    RunError,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
)
from stillroom.cli.app import main
from stillroom.data.load import load_data
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench

QUICK = {
    "data": DataSettings(size=32),
    "views": ViewSettings(views=2),
    "student": StudentSettings("test_resnet"),
    "training": TrainingSettings(epochs=3, batch_size=16, lr=3e-3),
    "evaluation": EvaluationSettings(resamples=100, latency=False, explain=0),
    "device": "cpu",
}
MAPS = {"evaluation": EvaluationSettings(resamples=100, latency=False, explain=4)}
FROZEN = TeacherSettings("test_vit", pretrained=False, teacher_size=32)
TUNED = TeacherSettings("test_resnet", teacher_mode="finetune", pretrained=False, teacher_epochs=2)


@pytest.fixture(scope="module")
def run(picture_folder, tmp_path_factory):
    settings = Settings(str(picture_folder), teacher=FROZEN, **QUICK)
    return stillroom.distill(settings, tmp_path_factory.mktemp("runs") / "first", show_progress=False)


def test_the_run_folder_holds_the_evidence(run):
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "settings.yaml",
        "manifest.json",
        "audit.json",
        "history.jsonl",
        "student",
        "control",
        "teacher",
        "predictions.parquet",
        "metrics.json",
        "student.onnx",
        "report.html",
        "MODEL_CARD.md",
    }
    assert "checkpoints" not in names
    assert run.finished
    assert {line["role"] for line in run.history()} == {"student", "control"}
    assert set(run.metrics["test"]) == {"student", "control", "teacher", "majority"}
    assert run.metrics["export"]["passed"]
    assert run.metrics["efficiency"]["student"]["parameters"] > 0
    assert stillroom.Run.open(run.path).settings == run.settings
    assert "pickle" not in json.dumps(run.manifest)


def test_anyone_can_recompute_every_figure(run):
    frame = run.predictions()
    assert list(frame.columns[:5]) == ["id", "patient", "split", "target", "digest"]
    assert len(frame) == frame["id"].nunique() == 120
    test = frame[frame["split"] == "test"]
    truth = (test["target"] == "right").to_numpy()
    for role in ("student", "control", "teacher", "majority"):
        figures = run.metrics["test"][role]
        chance = test[f"{role}:right"].to_numpy()
        assert figures["auc"]["value"] == pytest.approx(roc_auc_score(truth, chance), abs=1e-9)
        assert figures["accuracy"]["value"] == pytest.approx(accuracy_score(truth, chance > 0.5), abs=1e-9)
        assert figures["auc"]["low"] <= figures["auc"]["value"] <= figures["auc"]["high"]
        assert np.allclose(test[[f"{role}:left", f"{role}:right"]].sum(axis=1), 1)


def test_the_predictor_answers_as_the_run_says(run, picture_folder):
    frame = run.predictions().iloc[:10]
    answers = run.predictor().predict([picture_folder / name for name in frame["id"]])
    for answer, expected in zip(answers, frame["student:right"], strict=True):
        assert answer.probabilities["right"] == pytest.approx(expected, abs=1e-3)


def test_the_stored_student_is_the_exported_one(run, picture_folder):
    import torch

    student, predictor = run.student(), run.predictor()
    batch = np.random.default_rng(0).random((3, 1, 32, 32), dtype=np.float32)
    with torch.no_grad():
        assert student(torch.from_numpy(batch)).numpy() == pytest.approx(predictor.logits(batch), abs=1e-4)


def test_it_is_repeatable_from_its_own_settings(run, tmp_path):
    again = stillroom.distill(run.settings, tmp_path / "again", show_progress=False)
    first, second = (load_file(r.path / "student" / "model.safetensors") for r in (run, again))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert again.metrics["test"] == run.metrics["test"]


def test_a_finished_run_is_not_run_again(run):
    before = (run.path / "report.html").stat().st_mtime_ns
    assert stillroom.resume(run.path).finished
    assert (run.path / "report.html").stat().st_mtime_ns == before


def test_an_existing_folder_is_left_alone(run):
    with pytest.raises(UsageError, match=r"exists already.*--resume"):
        stillroom.distill(run.settings, run.path, show_progress=False)


def test_testing_on_another_set(run, picture_folder, tmp_path):
    found = stillroom.evaluate(run, picture_folder, show_progress=False)
    frame = run.predictions()
    expected = roc_auc_score(frame["target"] == "right", frame["student:right"])
    assert found["split"] == "all"
    assert found["test"]["student"]["images"] == 120
    assert found["test"]["student"]["auc"]["value"] == pytest.approx(expected, abs=2e-3)
    assert list((run.path / "evaluations").iterdir())


def test_another_set_with_a_foreign_class_is_refused(run, tmp_path):
    from PIL import Image

    for name in ("left", "up"):
        (tmp_path / name).mkdir()
        Image.new("L", (32, 32)).save(tmp_path / name / "a.png")
    with pytest.raises(UsageError, match="class 'up', which is not among the model's classes"):
        stillroom.evaluate(run, tmp_path, show_progress=False)


def test_a_fine_tuned_teacher_is_trained_once_for_all_recipes(picture_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    alone = dataclasses.replace(QUICK["evaluation"], control=False, rivals=False)
    first = Settings(str(picture_folder), teacher=TUNED, **QUICK | {"evaluation": alone})
    second = dataclasses.replace(first, recipe=MedAlmighty(alpha=0.5))
    other = dataclasses.replace(first, training=dataclasses.replace(first.training, lr=1e-3))
    runs = [stillroom.distill(s, tmp_path / str(k), show_progress=False) for k, s in enumerate((first, second))]
    runs.append(Run.create(tmp_path / "other", other))
    Workbench(runs[-1], load_data(picture_folder, other.data, show_progress=False), show_progress=False).teacher()
    assert ["teacher_from_cache" in run.manifest for run in runs] == [False, True, False]
    weights = [(run.path / "teacher" / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1] != weights[2]
    curves = [[line for line in run.history() if line["role"] == "teacher"] for run in runs]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 2
    assert runs[0].metrics["test"]["teacher"] == runs[1].metrics["test"]["teacher"]


def test_an_online_teacher_teaches_what_its_bank_would(picture_folder, tmp_path):
    """With as many stored views as epochs, bank and online see the same views; they differ by float16 alone."""
    starts = []
    for views in (3, 0):
        settings = Settings(str(picture_folder), teacher=FROZEN, **QUICK | {"views": ViewSettings(views=views)})
        run = Run.create(tmp_path / str(views), settings)
        dataset = load_data(picture_folder, settings.data, show_progress=False)
        settings.recipe.run(Workbench(run, dataset, show_progress=False))
        starts.append(run.history()[0])
    assert starts[0]["role"] == "student"
    assert starts[0]["losses"]["teacher"] > 0
    for name in ("label", "teacher"):  # later epochs drift apart: training amplifies the rounding
        assert starts[0]["losses"][name] == pytest.approx(starts[1]["losses"][name], rel=5e-3)


def test_baseline_has_neither_teacher_nor_control(picture_folder, tmp_path):
    run = stillroom.distill(
        Settings(str(picture_folder), recipe=Baseline(), **QUICK), tmp_path / "a", show_progress=False
    )
    assert set(run.metrics["test"]) == {"student", "majority"}
    assert set(run.metrics["comparison"]) == {"student_vs_majority"}


def test_multilabel_from_a_table(picture_folder, tmp_path):
    names = sorted(str(path.relative_to(picture_folder)) for path in picture_folder.rglob("*.png"))
    rng = np.random.default_rng(0)
    labels = [";".join(filter(None, [name.split("/")[0], "third" if rng.random() < 0.4 else ""])) for name in names]
    table = pd.DataFrame({"path": [str(picture_folder / name) for name in names], "label": labels})
    table["patient"] = [f"p{number // 2}" for number in range(len(table))]
    table.to_csv(tmp_path / "labels.csv", index=False)
    settings = Settings(str(tmp_path / "labels.csv"), recipe=MedAlmighty(), teacher=FROZEN, **QUICK)
    run = stillroom.distill(settings, tmp_path / "run", show_progress=False)
    assert run.task.kind == "multilabel"
    assert run.metrics["conformal"]["rule"]["class_conditional"]  # without being asked: absent labels are most
    frame = run.predictions()
    assert frame.groupby("patient")["split"].nunique().max() == 1
    assert set(frame.columns[5:8]) == {"student:left", "student:right", "student:third"}
    assert run.metrics["test"]["student"]["patients"] == frame[frame["split"] == "test"]["patient"].nunique()


def test_a_failed_export_says_so_and_resuming_goes_on(picture_folder, tmp_path, monkeypatch):
    from stillroom.run.stages import explanation, export

    settings = Settings(str(picture_folder), recipe=Baseline(), **QUICK | MAPS)
    gather, explained = explanation.gather, []
    monkeypatch.setattr(explanation, "gather", lambda *asked, **how: explained.append(1) or gather(*asked, **how))
    with monkeypatch.context() as broken:
        broken.setattr(
            export,
            "check_parity",
            lambda *_, **__: {
                "passed": False,
                "images": 1,
                "tolerance": 1e-3,
                "max_logit_difference": 1.0,
                "max_probability_difference": 1.0,
                "max_map_difference": 1.0,
                "max_distance_difference": None,
                "decisions_equal": 0.0,
            },
        )
        with pytest.raises(RunError):
            stillroom.distill(settings, tmp_path / "run", show_progress=False)
    run = stillroom.Run.open(tmp_path / "run")
    assert not run.finished
    epochs = len(run.history())
    done = stillroom.resume(tmp_path / "run", show_progress=False)
    assert done.finished
    assert len(done.history()) == epochs
    assert len(explained) == 1  # heat maps that are done are not drawn again
    assert done.metrics["explanation"]["images"] == 4


@pytest.mark.slow
def test_several_teachers_are_explained_together(picture_folder, tmp_path):
    recipe = CAMKD(teachers=("test_vit", "test_resnet"))
    settings = Settings(str(picture_folder), recipe=recipe, teacher=FROZEN, **QUICK | MAPS)
    run = stillroom.distill(settings, tmp_path / "run", show_progress=False)
    assert set(run.metrics["explanation"]["faithfulness"]) == {"student", "control", "teacher"}
    assert run.metrics["explanation"]["layer"]["teacher"] == "auto"
    statement = run.metrics["explanation"]["statement"]["student"]
    assert run.predictor().metadata.explanation["statement"].startswith(statement)


def test_a_student_of_one_place_is_exported_without_a_map(picture_folder, tmp_path):
    settings = Settings(
        str(picture_folder),
        recipe=Baseline(),
        **QUICK | MAPS | {"data": DataSettings(size=16), "student": StudentSettings("test_vit")},
    )
    run = stillroom.distill(settings, tmp_path / "run", show_progress=False)
    assert run.metrics["explanation"]["layer"]["student"] is None  # by random masks, which need no feature map
    assert run.predictor().metadata.explanation["method"] == "rise"
    assert run.metrics["export"]["max_map_difference"] is None
    assert run.predictor().metadata.layer is None
    images = [next((picture_folder / "left").iterdir())]
    with pytest.raises(UsageError, match="has no feature map of more than one place"):
        stillroom.explain(run.path / "student.onnx", images, method="score_cam", show_progress=False)
    (drawn,) = stillroom.explain(run.path / "student.onnx", images, out=tmp_path / "maps", show_progress=False)
    assert drawn.array.is_file()


@pytest.mark.prove
def test_a_run_killed_in_every_training_goes_on_to_the_same_weights(picture_folder, tmp_path, monkeypatch):
    """Killed outright in its teacher, and then, each time by another process that went on, in its student and its control."""
    flags = "--size 32 --student test_resnet --teacher test_resnet --teacher-mode finetune --no-pretrained --epochs 8"
    flags += " --batch-size 8 --resamples 100 --no-latency --explain 0"
    begin = ["distill", str(picture_folder), *flags.split(), "--out"]
    whole, killed, roles = tmp_path / "whole", tmp_path / "killed", ("teacher", "student", "control")
    main([*begin, str(whole)])
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))  # or the teacher would come from there
    history, command = killed / "history.jsonl", [*begin, str(killed)]
    for role in roles:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([sys.executable, "-m", "stillroom", *command], **quiet)
        deadline = time.monotonic() + 600
        while sum(f'"{role}"' in line for line in _lines(history)) < 3:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (killed / role / "model.json").exists(), f"the {role} was done before the run could be killed"
        assert not (killed / "report.html").exists()
        command = ["distill", "--resume", str(killed)]

    main(command)
    for part in roles:
        first, second = (load_file(run / part / "model.safetensors") for run in (whole, killed))
        assert all(np.array_equal(first[name], second[name]) for name in first), part
    figures = [json.loads((run / "metrics.json").read_text())["test"] for run in (whole, killed)]
    assert figures[0] == figures[1]


def _lines(path):
    return path.read_text().splitlines() if path.exists() else []
