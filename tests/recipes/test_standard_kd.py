"""Each standard loss trains a student, whatever the task and the kind of teacher, with its authors' weights."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import stillroom
from stillroom import UsageError
from stillroom.recipes import StandardKD

LOSSES = {
    "kd": {"label", "teacher"},
    "dkd": {"label", "target class", "other classes"},
    "dist": {"label", "between classes", "within classes"},
    "attention": {"label", "attention"},
    "hints": {"label", "teacher", "hint"},
    "rkd": {"label", "distances", "angles"},
}
WIDE = {"student": {"student_size": 64}, "teacher": {"teacher_size": 64}}  # a last map of more than one place


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_every_loss_trains_a_student(quick, workbench, loss, precision):
    recipe = StandardKD(loss)
    bench = workbench(quick(recipe, training={"precision": precision}, **WIDE))
    recipe.run(bench)
    lines = [line for line in bench.run.history() if line["role"] == "student"]
    assert set(lines[0]["losses"]) == LOSSES[loss]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_a_whole_run_on_several_labels_with_a_frozen_transformer(quick, picture_folder, tmp_path):
    names = sorted(str(path) for path in picture_folder.rglob("*.png"))
    labels = ["left;round" if "left" in name else "" if number % 3 else "right" for number, name in enumerate(names)]
    pd.DataFrame({"path": names, "label": labels}).to_csv(tmp_path / "labels.csv", index=False)
    recipe = StandardKD("hints", temperature=2.0)
    teacher = {"teacher": "test_vit", "teacher_mode": "frozen", "teacher_size": 32}
    settings = dataclasses.replace(quick(recipe, teacher=teacher), source=str(tmp_path / "labels.csv"))
    run = stillroom.distill(settings, tmp_path / "run", show_progress=False)
    assert run.task.kind == "multilabel"
    assert set(run.metrics["test"]) == {"student", "control", "teacher"}


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (StandardKD("kd"), {"teacher_weight": 0.9, "temperature": 4.0}),
        (StandardKD("kd", 2.0), {"teacher_weight": 0.9, "temperature": 2.0}),
        (StandardKD("dkd"), {"teacher_weight": 1.0, "beta": 8.0, "temperature": 4.0, "warm_up": 20 / 240}),
        (StandardKD("dist"), {"beta": 2.0, "gamma": 2.0, "temperature": 4.0}),
        (StandardKD("attention"), {"weight": 1000.0}),
        (StandardKD("hints"), {"weight": 100.0, "teacher_weight": 1.0, "temperature": 3.0}),
        (StandardKD("rkd"), {"distance_weight": 25.0, "angle_weight": 50.0}),
    ],
    ids=lambda value: value.loss if isinstance(value, StandardKD) else "",
)
def test_weights_are_those_of_the_page(quick, workbench, recipe, expected):
    bench, asked = workbench(quick(recipe, **WIDE)), []

    class Made:
        network = bench.student()

    bench.teacher = lambda *, needs: Made
    bench.fit = lambda role, network, objective, **_: asked.append(objective)
    recipe.run(bench)
    assert {name: getattr(asked[0], name) for name in expected} == pytest.approx(expected)


def test_attention_on_a_map_of_one_place_is_refused(quick, workbench):
    recipe = StandardKD("attention")
    with pytest.raises(UsageError, match=r"the student test_efficientnet has one place at 32 pixels.*--student-size"):
        recipe.run(workbench(quick(recipe)))


@pytest.mark.parametrize("loss", ["attention", "rkd"])
def test_a_temperature_that_softens_nothing_is_refused(loss):
    with pytest.raises(UsageError, match=f"{loss} softens nothing"):
        StandardKD(loss, temperature=2.0)
    with pytest.raises(UsageError, match="temperature"):
        StandardKD("kd", temperature=0.0)
