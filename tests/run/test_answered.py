"""A table of answers as teacher: its bank, what is refused before it takes long, and a whole run taught by it."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from stillroom import (
    CAMKD,
    AttentionGuidedKD,
    Baseline,
    Best,
    DataSettings,
    DualModelSKD,
    EvaluationSettings,
    MedAlmighty,
    RunError,
    Settings,
    StandardKD,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
    distill,
    resume,
)
from stillroom.cli.app import main
from stillroom.data.load import load_data
from stillroom.distillation.linear_head import HeadData, fit_by_lbfgs
from stillroom.planning import plan, read_plan, write_plan
from stillroom.report.record import load
from stillroom.report.rivals import rivals
from stillroom.run.folder import Run
from stillroom.run.preparing import check_settings
from stillroom.run.workbench import Workbench


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return load_data(picture_folder, DataSettings(size=32), show_progress=False)


@pytest.fixture
def votes(picture_folder, tmp_path):
    """``votes(without=...)`` writes three readers' votes on every image but some, and gives the file."""

    def make(without=(), name="votes.csv"):
        rng, lines = np.random.default_rng(0), ["path,reader,vote"]
        for path in sorted(picture_folder.rglob("*.png")):
            truth, name_of = path.parent.name, path.relative_to(picture_folder).as_posix()
            for reader, skill in (("Ann", 0.95), ("Bob", 0.8), ("Cleo", 0.6)):
                vote = truth if rng.random() < skill else {"left": "right", "right": "left"}[truth]
                lines += [f"{name_of},{reader},{vote}"] * (name_of not in without)
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return tmp_path / name

    return make


@pytest.fixture
def quick(picture_folder):
    """``quick(recipe, answers, ...)``: settings of a small run that a table teaches."""

    def make(recipe, answers, **changed):
        settings = Settings(
            str(picture_folder),
            recipe,
            data=DataSettings(size=32),
            views=ViewSettings(views=2),
            teacher=TeacherSettings(teacher_answers=answers),
            student=StudentSettings("test_resnet"),
            training=TrainingSettings(epochs=2, batch_size=16, lr=3e-3),
            evaluation=EvaluationSettings(resamples=100, latency=False, explain=0),
            device="cpu",
        )
        sections = {name: dataclasses.replace(getattr(settings, name), **values) for name, values in changed.items()}
        return dataclasses.replace(settings, **sections)

    return make


@pytest.fixture
def bench(dataset, tmp_path):
    """``bench(settings)``: the workbench of a new run."""

    def make(settings):
        run = Run.create(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", settings)
        return Workbench(run, dataset, show_progress=False)

    return make


# -- the bank -----------------------------------------------------------------------------------------------------
def test_the_share_of_votes_answers_to_every_view(quick, bench, votes, dataset):
    file = votes()
    frame = pd.read_csv(file)
    share = (frame["vote"] == "right").groupby(frame["path"]).mean()
    made = bench(quick(Best(), file, views={"views": 0}))
    teacher = made.teacher()
    rows = np.arange(len(dataset.table))
    for view in (None, 0, 7, 123):
        said = dataset.table.task.probabilities(teacher.logits(rows, view).numpy())
        np.testing.assert_allclose(said[:, 1], share[dataset.table.ids].to_numpy(), atol=1e-6)
    facts = made.run.manifest["answers"]
    assert (facts["kind"], facts["images"], facts["per_image"]) == ("votes", 120, [3, 3])
    assert facts["readers"] == {"Ann": 1, "Bob": 1, "Cleo": 1}
    assert not made.labels_read
    assert made.teacher_network() is None


def test_readers_are_weighed_by_training_labels_alone(quick, bench, votes, dataset):
    file = votes()
    made = bench(quick(Best(), file, teacher={"reader_weights": "confidence"}, training={"label_fraction": 0.5}))
    teacher = made.teacher()
    weights = made.run.manifest["answers"]["readers"]
    assert weights["Ann"] > weights["Bob"] > weights["Cleo"]
    assert made.labels_read == set(made.data.train.tolist())
    assert len(made.data.train) < len(dataset.table.indices("train"))
    assert teacher.answers(np.arange(len(dataset.table)))


def test_logits_of_a_network_come_back_as_they_are(quick, bench, dataset, tmp_path):
    logits = np.random.default_rng(0).normal(0, 3, (120, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", id=dataset.table.ids, logits=logits[:, ::-1], classes=["right", "left"])
    said = bench(quick(MedAlmighty(), tmp_path / "a.npz")).teacher().logits(np.arange(120), 1)
    np.testing.assert_array_equal(said.numpy(), logits)


def test_an_embedding_gets_the_head_that_a_frozen_backbone_gets(quick, bench, dataset, tmp_path):
    table, rng = dataset.table, np.random.default_rng(0)
    features = rng.normal(size=(120, 6)).astype(np.float32)
    features[:, 0] += 2 * table.targets
    order = rng.permutation(120)
    frame = pd.DataFrame(features[order], columns=[f"e{place}" for place in range(6)]).assign(id=table.ids[order])
    frame.to_parquet(tmp_path / "e.parquet")
    made = bench(quick(Best(feature_weight=1.0), tmp_path / "e.parquet"))
    check_settings(made.settings, table)
    teacher = made.teacher()
    train, val = table.indices("train"), table.indices("val")
    known = HeadData(features[train], table.targets[train], features[val], table.targets[val])
    expected = fit_by_lbfgs(table.task, known).linear.weight.detach().numpy()
    np.testing.assert_allclose(teacher.head.weight.detach().numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(teacher.output("pooled", np.array([7, 3]), 1).numpy(), features[[7, 3]])
    assert made.run.manifest["teacher_head"]["chosen"].startswith("L2 penalty")


# -- what is refused ----------------------------------------------------------------------------------------------
def test_training_images_without_an_answer_are_refused_and_others_are_not(quick, bench, votes, dataset):
    ids = dataset.table.ids
    train, test = ids[dataset.table.indices("train")], ids[dataset.table.indices("test")]
    with pytest.raises(UsageError, match=rf"no answer to 5 of the {len(train)} training .*: {train[0]}, .* and 2 more"):
        bench(quick(Best(), votes(without=train[:5]))).teacher()
    made = bench(quick(Best(), votes(without=test[:3])))
    assert not made.teacher().answers(np.arange(120))
    assert made.run.manifest["answers"]["splits"]["test"] == [len(test) - 3, len(test)]


@pytest.mark.parametrize(
    ("recipe", "changed", "words"),
    [
        (StandardKD(loss="hints"), {}, "last feature map"),
        (StandardKD(loss="attention"), {}, "last feature map"),
        (StandardKD(loss="rkd"), {}, "pooled features"),
        (Best(feature_weight=1.0), {}, "pooled features"),
        (Best(frozen_teachers=("resnet18",)), {}, "teaches alone"),
        (Best(teacher_seeds=2), {}, "teaches alone"),
        (AttentionGuidedKD(), {}, "last feature map"),
        (CAMKD(), {}, "--reader-weights confidence"),
        (DualModelSKD(teach=True), {}, "large network"),
        (MedAlmighty(paper_softmax=True), {}, "(softmax|paper_softmax)"),
        (Best(), {"views": {"mix": "mixup"}}, "--mix none"),
        (Best(), {"training": {"unlabelled": "x"}}, "--unlabelled"),
    ],
)
def test_what_a_table_cannot_give_is_refused_before_anything_is_decoded(quick, votes, dataset, recipe, changed, words):
    with pytest.raises(UsageError, match=words):
        check_settings(quick(recipe, votes(), **changed), dataset.table)


def test_a_teacher_beside_a_table_is_refused_and_its_settings_are_unused(quick, votes):
    with pytest.raises(UsageError, match="--teacher and --teacher-answers"):
        TeacherSettings("resnet18", teacher_answers=votes())
    settings = quick(Best(answers="mean"), votes(), teacher={"teacher_mode": "finetune", "teacher_lr": 1.0})
    assert set(settings.recipe.unused(settings)) == {"teacher_mode", "teacher_lr", "answers"}
    plain = dataclasses.replace(settings, recipe=Baseline())
    assert "teacher_answers" in plain.recipe.unused(plain)
    none = dataclasses.replace(settings, recipe=Best(), teacher=TeacherSettings(reader_weights="confidence"))
    assert none.recipe.unused(none) == ["reader_weights"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,left,right\n", "no rows"),
        ("path,left,right\nleft/000.png,0.5,x\n", "row 2, column 'right'"),
        ("path,left,rigth\nleft/000.png,0.5,0.5\n", "Did you mean rigth?"),
        ("path,left,right\nother.png,0.5,0.5\n", "is about none of the 120 images"),
        ("path,left,right\n000.png,0.5,0.5\n", "may be any of 2 images"),
    ],
)
def test_the_command_line_says_what_is_wrong_with_a_file_in_a_line(picture_folder, tmp_path, capsys, text, words):
    file = tmp_path / "bad.csv"
    file.write_text(text, encoding="utf-8")
    arguments = ["distill", str(picture_folder), "--no-plan", "--teacher-answers", str(file), "--out"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in " ".join(said.split())
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


# -- a plan, and whole runs ---------------------------------------------------------------------------------------
def test_a_plan_around_a_table_spends_no_time_on_a_teacher(picture_folder, votes, tmp_path):
    given = Settings(
        str(picture_folder), teacher=TeacherSettings(teacher_answers=votes(), pretrained=False), device="cpu"
    )
    fixed = ["teacher.teacher_answers", "teacher.pretrained", "student.student_pretrained"]
    made = plan(str(picture_folder), minutes=0.2, given=given, fixed=fixed)
    assert "teach" not in made.expected_s
    assert not {"teacher.teacher", "teacher.teacher_mode"} & set(made.choices)
    write_plan(made, tmp_path / "plan.yaml")
    again = read_plan(tmp_path / "plan.yaml").settings
    assert again == made.settings
    assert again.teacher.teacher_answers == tmp_path / "votes.csv"
    with pytest.raises(UsageError, match="does not exist"):
        plan(str(picture_folder), given=dataclasses.replace(given, teacher=TeacherSettings(teacher_answers="none.csv")))


@pytest.mark.slow
def test_a_run_taught_by_readers_reports_them_and_is_resumed_with_their_file_alone(quick, votes, tmp_path):
    file = votes()
    wanted = {"explain": 2, "corruptions": True, "keep": "best"}
    settings = quick(Best(), file, teacher={"reader_weights": "confidence"}, evaluation=wanted)
    run = distill(settings, tmp_path / "run", show_progress=False)
    assert {"student", "control", "teacher", "majority"} <= set(run.metrics["test"])
    assert set(run.metrics["efficiency"]) == {"student", "onnx"} | ({run.exported_role} - {"student"})
    assert set(run.metrics["robustness"]["clean"]) == {"student", "control"}
    assert run.manifest["teacher"] == "the answers in votes.csv"
    card = (run.path / "MODEL_CARD.md").read_text("utf-8")
    for words in ("votes of 3 readers", "one answer", "no heat map", "count by confidence", "Ann 1."):
        assert words in card
    assert "table of answers" in run.report.read_text("utf-8")
    assert "teacher" not in rivals(load(run.path))
    frame = run.predictions()
    assert {"teacher:left", "teacher:right"} <= set(frame.columns)

    run.report.unlink()
    (run.path / "metrics.json").unlink()
    again = resume(run.path, show_progress=False)
    assert again.metrics["test"]["student"]["auc"] == json.loads(json.dumps(run.metrics["test"]["student"]["auc"]))
    run.report.unlink()
    file.write_text(file.read_text("utf-8").replace("Cleo,left", "Cleo,right"), encoding="utf-8")
    with pytest.raises(RunError, match=r"answers in .*votes\.csv are not those"):
        resume(run.path, show_progress=False)


@pytest.mark.slow
def test_the_predictions_of_a_run_teach_another_as_its_teacher(quick, tiny_run, tmp_path):
    answers = tiny_run.path / "predictions.parquet"
    settings = quick(Best(), answers, teacher={"answers_of": "teacher"})
    run = distill(settings, tmp_path / "run", show_progress=False)
    facts = run.manifest["answers"]
    assert (facts["kind"], facts["images"], list(facts["readers"])) == ("probabilities", 120, ["1"])
    first, second = tiny_run.metrics["test"]["teacher"], run.metrics["test"]["teacher"]
    assert second["auc"]["value"] == pytest.approx(first["auc"]["value"])
    assert "1 readers" not in (run.path / "MODEL_CARD.md").read_text("utf-8")


@pytest.mark.slow
def test_a_teacher_that_does_not_answer_the_test_has_no_figures_and_the_card_says_so(quick, votes, dataset, tmp_path):
    ids = dataset.table.ids[dataset.table.indices("test")]
    run = distill(quick(Best(), votes(without=ids[2:])), tmp_path / "run", show_progress=False)
    assert "teacher" not in run.metrics["test"]
    card = (run.path / "MODEL_CARD.md").read_text("utf-8")
    assert f"answers 2 of {len(ids)} test images" in card
