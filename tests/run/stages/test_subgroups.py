"""Who was tested on whom, from a table's columns to metrics.json, the pages, and a test on another set."""

import re

import numpy as np
import pandas as pd
import pytest

import stillroom
from stillroom.after.external_validation import evaluate
from stillroom.evaluation.main_figures import Answers, main_figures, to_dict
from stillroom.evaluation.metrics import score
from stillroom.settings.sections import DataSettings


def table_of(folder):
    """A table of the folder's pictures in which every class has the same sites, ages and patients of two."""
    rows = []
    for name in ("left", "right"):
        for number, path in enumerate(sorted((folder / name).glob("*.png"))):
            patient, site = f"{name}{number // 2}", "NS"[number % 2]
            rows.append((path, name, patient, ["train", "val", "test", "test"][number // 2 % 4], site, 30 + number))
    return pd.DataFrame(rows, columns=["path", "label", "patient", "split", "site", "age"])


@pytest.fixture(scope="module")
def run(picture_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("subgroups")
    table_of(picture_folder).to_csv(folder / "labels.csv", index=False)
    settings = stillroom.Settings(
        str(folder / "labels.csv"),
        recipe=stillroom.recipes.Baseline(),
        data=stillroom.DataSettings(size=32, groups=("site,age=50",)),
        student=stillroom.StudentSettings("resnet10t_050"),
        training=stillroom.TrainingSettings(epochs=2, batch_size=16, lr=3e-3),
        evaluation=stillroom.EvaluationSettings(resamples=100, latency=False, explain=0, rivals=False),
        device="cpu",
    )
    return stillroom.distill(settings, folder / "run", show_progress=False)


def test_every_figure_can_be_computed_again_from_what_the_run_leaves(run):
    said, parts = run.predictions(), pd.read_parquet(run.path / "subgroups.parquet")
    test = said[said["split"] == "test"]
    assert parts["id"].tolist() == test["id"].tolist()
    assert set(parts["group:age"]) == {"under 50", "50 and over"}
    assert parts.columns.tolist() == [
        "id", "group:site", "group:age", "quality:sharpness", "quality:contrast", "quality:brightness", "quality:size",
    ]  # fmt: skip
    task = stillroom.task.from_description(run.metrics["task"])
    chance = test[["student:left", "student:right"]].to_numpy()
    answers = Answers.of(task, chance, task.parse(test["target"].tolist()), test["patient"].to_numpy(dtype=str))
    for column in run.metrics["groups"]["columns"]:
        for group in column["groups"]:
            rows = np.flatnonzero(parts[f"group:{column['name']}"] == group["name"])
            again = to_dict(main_figures(answers.take(rows)))
            assert {name: group[name] for name in again} == {name: pytest.approx(of) for name, of in again.items()}
    means = test.groupby("patient")[["student:left", "student:right"]].mean()
    truth = np.array([patient.startswith("right") for patient in means.index]).astype(np.int64)
    oracle = score(task, means.to_numpy(), truth)
    found = run.metrics["by_patient"]
    assert found["patients"] == len(means)
    assert found["figures"]["student"]["auc"] == pytest.approx(oracle["auc"], abs=1e-6)
    assert {column["name"] for column in run.metrics["quality"]["columns"]} == {"sharpness", "contrast", "brightness"}


def test_the_pages_tell_it_in_the_same_words(run):
    page = (run.path / "report.html").read_text("utf-8")
    card = (run.path / "MODEL_CARD.md").read_text("utf-8")
    for key, title in (("by_patient", "By patient"), ("groups", "Subgroups"), ("quality", "Image quality")):
        assert f'<h2 id="{key}-title">{title}</h2>' in page
        assert f'<a href="#{key}">{title}</a>' in page
        assert f"### {title}" in card
    for part in ("groups", "quality"):
        for column in run.metrics[part]["columns"]:
            for text in column["statements"]:
                assert text in page
                assert text.replace(";", "").replace("(", "") in card.replace(";", "").replace("(", "").replace(
                    "\\", ""
                )
    reporting = (run.path / "REPORTING.md").read_text("utf-8")
    assert "(report.html#groups)" in reporting
    assert not re.search(r"\b(None|nan)\b", page)


def test_another_set_is_judged_by_the_same_bands(run, picture_folder, tmp_path):
    table = table_of(picture_folder).drop(columns=["patient", "split"]).rename(columns={"age": "AGE"})
    table.to_csv(tmp_path / "other.csv", index=False)
    found = evaluate(run, tmp_path / "other.csv", DataSettings(groups=("site", "age")), show_progress=False)
    site, age = found["groups"]["columns"]
    assert [group["images"] for group in site["groups"]] == [60, 60]
    assert age["edges"] == [50.0]
    assert {group["name"] for group in age["groups"]} == {"under 50", "50 and over"}
    assert found["by_patient"] is None
    assert [one["edges"] for one in found["quality"]["columns"]] == [
        one["edges"] for one in run.metrics["quality"]["columns"]
    ]
    without = evaluate(run, tmp_path / "other.csv", show_progress=False)
    assert without["groups"] is None
    assert any(
        note.startswith("The run was judged by site,age=50: --groups site,age=50 tells") for note in without["notes"]
    )
    assert len(list((run.path / "evaluations").iterdir())) == 1
