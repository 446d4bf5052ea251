"""Who was tested on whom: from a table's columns to figures that can be computed again, and on another set."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from stillroom.after.external_validation import evaluate
from stillroom.data.load import load_data
from stillroom.evaluation.main_figures import Answers, main_figures, to_dict
from stillroom.evaluation.metrics import score
from stillroom.files.digests import record
from stillroom.run.stages.subgroups import FILE, work
from stillroom.settings.sections import DataSettings


def table_of(folder):
    """A table of the folder's pictures in which both classes have the same sites and ages, and patients of two images."""
    rows = []
    for name in ("left", "right"):
        for number, path in enumerate(sorted((folder / name).glob("*.png"))):
            patient, site = f"{name}{number // 2}", "NS"[number % 2]
            rows.append((path, name, patient, ["train", "val", "test", "test"][number // 2 % 4], site, 30 + number))
    return pd.DataFrame(rows, columns=["path", "label", "patient", "split", "site", "age"])


@pytest.fixture(scope="module")
def judged(picture_folder, tmp_path_factory):
    """What the stage makes of answers to a table of 120 pictures: data set, probabilities, parts, and the file it writes."""
    folder = tmp_path_factory.mktemp("subgroups")
    table_of(picture_folder).to_csv(folder / "labels.csv", index=False)
    settings = DataSettings(size=32, groups=("site,age=50",))
    dataset = load_data(folder / "labels.csv", settings, cache=folder / "cache", show_progress=False)
    task, generator = dataset.table.task, np.random.default_rng(0)
    logits = 2.0 * task.one_hot(dataset.table.targets) + generator.normal(size=(120, 2))
    said = {role: task.probabilities(scale * logits) for role, scale in (("student", 1.0), ("teacher", 0.5))}
    bench = SimpleNamespace(dataset=dataset, task=task)
    evidence = SimpleNamespace(
        bench=bench,
        run=SimpleNamespace(path=folder),
        exported="student",
        assessment=SimpleNamespace(probabilities=said),
    )
    return dataset, said, work(evidence), pd.read_parquet(folder / FILE)


def test_every_figure_can_be_computed_again_from_what_is_left(judged):
    dataset, said, parts, left = judged
    table, task = dataset.table, dataset.table.task
    test = table.indices("test")
    assert left["id"].tolist() == table.ids[test].tolist()
    assert left.columns.tolist() == [
        "id", "group:site", "group:age", "quality:sharpness", "quality:contrast", "quality:brightness", "quality:size",
    ]  # fmt: skip
    assert set(left["group:age"]) == {"under 50", "50 and over"}
    answers = Answers.of(task, said["student"][test], table.targets[test], table.patients[test])
    for column in parts["groups"]["columns"]:
        for group in column["groups"]:
            rows = np.flatnonzero(left[f"group:{column['name']}"] == group["name"])
            for name, figure in to_dict(main_figures(answers.take(rows))).items():
                assert group[name] == pytest.approx(figure)
    assert {column["name"] for column in parts["quality"]["columns"]} == {"sharpness", "contrast", "brightness"}


def test_patients_of_every_network_are_judged(judged):
    dataset, said, parts, _ = judged
    table = dataset.table
    test = table.indices("test")
    frame = pd.DataFrame({"patient": table.patients[test], "right": said["teacher"][test, 1]}).groupby("patient").mean()
    truth = np.array([patient.startswith("right") for patient in frame.index]).astype(np.int64)
    oracle = score(table.task, np.column_stack([1 - frame["right"], frame["right"]]), truth)
    assert list(parts["by_patient"]["figures"]) == ["student", "teacher"]
    assert parts["by_patient"]["patients"] == len(frame)
    for name, figure in parts["by_patient"]["figures"]["teacher"].items():
        assert figure == pytest.approx(oracle[name], abs=1e-6)


def test_another_set_is_judged_by_the_run_s_own_bands(judged, own_run, picture_folder, tmp_path):
    metrics = own_run.metrics
    path = own_run.path / "metrics.json"
    path.write_text(json.dumps(metrics | {"groups": judged[2]["groups"]}), encoding="utf-8")
    record(path)
    table = table_of(picture_folder).drop(columns=["patient", "split"]).rename(columns={"age": "AGE"})
    table.to_csv(tmp_path / "other.csv", index=False)
    found = evaluate(own_run, tmp_path / "other.csv", DataSettings(groups=("site", "age")), show_progress=False)
    site, age = found["groups"]["columns"]
    assert [group["images"] for group in site["groups"]] == [60, 60]
    assert (age["name"], age["edges"]) == ("AGE", [50.0])
    assert found["by_patient"] is None
    own = {column["name"]: column["edges"] for column in metrics["quality"]["columns"]}
    assert {column["name"]: column["edges"] for column in found["quality"]["columns"]} == own
    alone = evaluate(own_run.path / "student.onnx", tmp_path / "other.csv", show_progress=False)
    assert alone["groups"] is alone["quality"] is None
