"""Several trainings of one run: what differs between them, what they share, what is kept, and that stopping loses nothing."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from safetensors.torch import save_file

import stillroom
from stillroom import (
    Baseline,
    DataSettings,
    EvaluationSettings,
    MedAlmighty,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
)
from stillroom.models.saving import load_network
from stillroom.models.zoo import create
from stillroom.run import repeats as several
from stillroom.run import selection


def settings(source, recipe=None, student=None, **evaluation):
    return Settings(
        str(source),
        recipe or MedAlmighty(),
        data=DataSettings(size=32),
        views=ViewSettings(views=2),
        teacher=TeacherSettings("test_vit", pretrained=False, teacher_size=32),
        student=student or StudentSettings("test_resnet"),
        training=TrainingSettings(epochs=2, batch_size=16, lr=3e-3),
        evaluation=EvaluationSettings(**{"resamples": 100, "latency": False, "explain": 0} | evaluation),
        device="cpu",
    )


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def equal(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def repeated(picture_folder, tmp_path_factory):
    wanted = settings(picture_folder, repeats=3)
    return stillroom.distill(wanted, tmp_path_factory.mktemp("repeated") / "run", show_progress=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of stand-ins for pretrained weights."""
    folder = tmp_path_factory.mktemp("weights")
    save_file(create("test_resnet", classes=1000, seed=7).backbone.state_dict(), folder / "test_resnet.safetensors")
    return folder


@pytest.mark.slow
def test_repeats_differ_in_luck_alone(repeated, picture_folder, tmp_path):
    path = repeated.path
    assert {part.name for part in (path / "repeats").iterdir()} == {"1", "2", "3"}
    students = [weights_of(path / part / "student") for part in (".", "repeats/2", "repeats/3")]
    assert not equal(students[0], students[1])
    assert not equal(students[1], students[2])
    assert not (path / "repeats" / "2" / "teacher").exists()
    assert {line["role"] for line in repeated.history()} == {"student", "control"}  # of the run's own training
    alone = stillroom.distill(settings(picture_folder), tmp_path / "alone", show_progress=False)
    assert equal(students[0], weights_of(alone.path / "student"))
    assert "luck" not in alone.metrics


@pytest.mark.slow
def test_luck_is_judged_by_what_stands_in_the_folders(repeated):
    luck = repeated.metrics["luck"]
    assert (luck["kind"], luck["count"]) == ("repeats", 3)
    task = repeated.task
    for number, found in enumerate(luck["runs"], start=1):
        frame = pd.read_parquet(repeated.path / "repeats" / str(number) / "predictions.parquet")
        test = frame[frame["split"] == "test"]
        for role in ("student", "control", "teacher"):
            said = test[[f"{role}:{name}" for name in task.classes]].to_numpy()
            assert found[role] == pytest.approx(task.select(said, task.parse(test["target"].tolist())))
    teachers = {found["teacher"] for found in luck["runs"]}
    assert len(teachers) == 1


@pytest.mark.slow
def test_the_student_of_the_report_is_the_one_that_is_handed_over(repeated, picture_folder):
    number = repeated.metrics["luck"]["exported"]
    part = pd.read_parquet(repeated.path / "repeats" / str(number) / "predictions.parquet")
    frame = repeated.predictions()
    assert np.allclose(frame["student:right"], part["student:right"])
    answers = repeated.predictor().predict([picture_folder / name for name in frame["id"][:10]])
    assert [one.probabilities["right"] for one in answers] == pytest.approx(list(frame["student:right"][:10]), abs=1e-3)
    assert len(repeated.metrics["kept"]["candidates"]) == 3


@pytest.mark.prove
def test_a_stop_in_a_repeat_goes_on_to_the_same_weights(repeated, picture_folder, tmp_path, monkeypatch):
    log, lines = stillroom.Run.log, []

    def stop_in_the_second(run, line):
        log(run, line)
        lines.append(line)
        if run.path.name == "2" and line["role"] == "control":
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(stillroom.Run, "log", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt) as stopped:
            stillroom.distill(settings(picture_folder, repeats=3), tmp_path / "run", show_progress=False)
    assert stopped.value.__notes__ == [f"Go on with `stillroom distill --resume {tmp_path / 'run'}`."]
    assert stillroom.Run.open(tmp_path / "run").predictor()
    run = stillroom.resume(tmp_path / "run", show_progress=False)
    for part in ("student", "control", "repeats/2/student", "repeats/2/control", "repeats/3/student"):
        assert equal(weights_of(run.path / part), weights_of(repeated.path / part)), part
    assert not list(run.path.rglob("checkpoints"))
    assert run.metrics["luck"] == repeated.metrics["luck"]
    assert run.metrics["test"] == repeated.metrics["test"]


@pytest.mark.slow
def test_an_ensemble_is_one_file_that_answers_as_its_members_do(picture_folder, tmp_path):
    wanted = settings(picture_folder, recipe=Baseline(), repeats=2, keep="ensemble", explain=2)
    run = stillroom.distill(wanted, tmp_path / "run", show_progress=False)
    members = [load_network(run.path / part / "student") for part in (".", "repeats/2")]
    import torch

    batch = np.random.default_rng(0).random((3, 1, 32, 32), dtype=np.float32)
    with torch.no_grad():
        mean = torch.stack([member(torch.from_numpy(batch)) for member in members]).mean(dim=0).numpy()
        assert run.student()(torch.from_numpy(batch)).numpy() == pytest.approx(mean, abs=1e-5)
    assert run.predictor().logits(batch) == pytest.approx(mean, abs=1e-3)
    assert run.metrics["export"]["passed"]
    assert run.predictor().metadata.layer is None
    assert "members" in run.metrics["explanation"]["reason"]
    assert run.metrics["luck"]["exported"] is None
    with pytest.raises(UsageError, match="an ensemble, whose members have maps of their own"):
        stillroom.explain(run.path, [picture_folder / "left"], method="grad_cam", show_progress=False)
    with pytest.raises(UsageError, match="an ensemble, whose members have maps of their own"):
        stillroom.explain(run.path, [picture_folder / "left"], method="score_cam", show_progress=False)
    path, parity = stillroom.export_student(run, tmp_path / "again.onnx")
    assert parity["passed"]
    assert path.read_bytes() == (run.path / "student.onnx").read_bytes()


@pytest.mark.slow
def test_averaged_weights_are_the_mean_of_the_trainings(picture_folder, weights, tmp_path):
    student = StudentSettings("test_resnet", student_pretrained=True, student_weights=weights)
    wanted = settings(picture_folder, recipe=Baseline(), student=student, repeats=2, keep="average")
    run = stillroom.distill(wanted, tmp_path / "run", show_progress=False)
    first, second, averaged = (weights_of(run.path / part) for part in ("student", "repeats/2/student", "exported"))
    for name in averaged:
        mean = (first[name] + second[name]) / 2
        if name.endswith("running_mean"):  # these fit the averaged weights; they are not the mean of statistics
            assert not np.allclose(averaged[name], mean, atol=1e-6)
        elif not name.endswith(("running_var", "num_batches_tracked")):
            assert averaged[name] == pytest.approx(mean, abs=1e-6)
    assert {one["role"] for one in run.metrics["kept"]["candidates"]} == {"average", "student_1", "student_2"}
    assert run.metrics["export"]["passed"]


def test_what_cannot_be_kept_is_refused_before_anything_is_decoded(picture_folder, monkeypatch):
    monkeypatch.setattr("stillroom.run.preparing.prepare", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(UsageError, match="different random ones: give --student-pretrained, or --keep ensemble"):
        stillroom.distill(settings(picture_folder, repeats=2, keep="average"), show_progress=False)
    with pytest.raises(UsageError, match=r"test_resnet has .* MB, more than --max-mb 0.001"):
        stillroom.distill(settings(picture_folder, keep="best", max_mb=0.001), show_progress=False)


@pytest.mark.slow
def test_folds_test_every_image_once_and_go_on_after_a_stop(picture_folder, tmp_path, monkeypatch):
    wanted = settings(picture_folder, folds=3)
    train = several.train

    def stop_in_the_third(bench, *more):
        if bench.run.path.name == "3":
            raise KeyboardInterrupt
        return train(bench, *more)

    with monkeypatch.context() as stopping:
        stopping.setattr(several, "train", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            stillroom.distill(wanted, tmp_path / "run", show_progress=False)
    before = (tmp_path / "run" / "folds" / "2" / "predictions.parquet").stat().st_mtime_ns
    run = stillroom.resume(tmp_path / "run", show_progress=False)
    assert (run.path / "folds" / "2" / "predictions.parquet").stat().st_mtime_ns == before
    parts = [run.predictions(), *(pd.read_parquet(run.path / f"folds/{k}/predictions.parquet") for k in (2, 3))]
    tested = pd.concat([part[part["split"] == "test"] for part in parts])
    assert sorted(tested["id"]) == sorted(parts[0]["id"])
    for part in parts:
        assert set(part["split"]) == {"train", "val", "test"}
        assert [name for name in part.columns if name.startswith("control:")]
    luck = run.metrics["luck"]
    assert (luck["kind"], luck["count"], luck["exported"]) == ("folds", 3, None)
    assert "fold 1 of 3" in run.manifest["data"]
    assert (run.path / "folds" / "2" / "teacher" / "head.safetensors").exists()


@pytest.mark.slow
def test_another_network_is_handed_over_with_its_own_rules(picture_folder, weights, tmp_path, monkeypatch):
    """Which one is chosen is tested in test_selection.py; here it is the linear probe on the student's start."""
    monkeypatch.setattr(selection, "pick", lambda losses, order, groups: "probe_of_student")
    student = StudentSettings("test_resnet", student_pretrained=True, student_weights=weights)
    wanted = settings(picture_folder, recipe=Baseline(), student=student, keep="best", explain=2)
    run = stillroom.distill(wanted, tmp_path / "run", show_progress=False)
    kept = run.metrics["kept"]
    assert kept["role"] == run.exported_role == "probe_of_student"
    assert {one["role"] for one in kept["candidates"]} == {"student", "probe_of_student"}
    assert equal(weights_of(run.path / "exported"), weights_of(run.path / "probe_of_student"))
    frame, predictor = run.predictions(), run.predictor()
    answers = predictor.predict([picture_folder / name for name in frame["id"][:10]])
    expected = list(frame["probe_of_student:right"][:10])
    assert [one.probabilities["right"] for one in answers] == pytest.approx(expected, abs=2e-2)  # float16 features
    assert predictor.metadata.details["role"] == "probe_of_student"
    assert predictor.metadata.conformal == run.metrics["conformal"]["rule"]
    explained = run.metrics["explanation"]
    assert set(explained["faithfulness"]) == {"student", "probe_of_student"}
    assert explained["of"] == "probe_of_student"
    assert predictor.metadata.explanation["statement"].startswith(explained["statement"]["probe_of_student"])
