"""Who was tested on whom: figures by patient, by subgroups that the user named, and by the quality of the images."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.data.bands import Grouping, grouped
from stillroom.data.load import Dataset
from stillroom.data.quality import by_quality, edges_of, learnt_rows, quality_of
from stillroom.evaluation.by_patient import by_patient
from stillroom.evaluation.main_figures import Answers
from stillroom.evaluation.roles import CONTROL, STUDENT, TEACHER
from stillroom.evaluation.subgroups import judge_parts
from stillroom.files.atomic import write_atomically
from stillroom.run.stage import Evidence, Stage

FILE = "subgroups.parquet"


def work(evidence: Evidence) -> dict[str, Any]:
    """Writes subgroups.parquet: of the test images, which subgroup each is in, and its quality."""
    bench, dataset, found = evidence.bench, evidence.bench.dataset, evidence.assessment
    assert found is not None
    task, table, role = bench.task, dataset.table, evidence.exported
    test = table.indices("test")
    patients = None if table.patients is None else table.patients[test]
    roles = [one for one in dict.fromkeys((STUDENT, CONTROL, TEACHER, role)) if one in found.probabilities]
    said = {one: found.probabilities[one][test] for one in roles}
    answers = Answers.of(task, said[role], table.targets[test], patients)

    learnt = learnt_rows(table.indices("train"))
    quality = quality_of(dataset.store, test)
    thirds = by_quality(quality, edges_of(quality_of(dataset.store, learnt)))
    columns = _columns(dataset, test)
    parts: dict[str, Any] = judge_parts(answers, {"quality": thirds} | ({"groups": columns} if columns else {}), role)
    of_patients = by_patient(task, said, table.targets[test], patients)
    if of_patients is not None:
        parts["by_patient"] = of_patients
    _write(evidence, table.ids[test], columns, quality)
    return parts


def _columns(dataset: Dataset, test: np.ndarray) -> list[Grouping]:
    table = dataset.table
    return [grouped(column, table.splits == "train").take(test) for column in table.groups]


def _write(evidence: Evidence, ids: np.ndarray, columns: list[Grouping], quality: dict[str, np.ndarray]) -> None:
    import pandas as pd

    named = {f"group:{one.name}": np.array(one.groups)[one.members] for one in columns}
    frame = pd.DataFrame({"id": ids} | named | {f"quality:{name}": values for name, values in quality.items()})
    write_atomically(evidence.run.path / FILE, lambda target: frame.to_parquet(target, index=False))


STAGE = Stage("evaluate", work)
