"""What acting on the student's probabilities is worth: thresholds chosen on validation, and decision curves, on test."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.evaluation.net_benefit import curves_report
from stillroom.evaluation.operating_points import OperatingPoint, fit_points, missing_points, points_report, wishes
from stillroom.evaluation.roles import CONTROL, STUDENT, TEACHER
from stillroom.run.stage import Evidence, Stage
from stillroom.run.workbench import Workbench


def points_of(bench: Workbench, probabilities: np.ndarray) -> tuple[OperatingPoint, ...]:
    """The thresholds that the settings ask for.

    Args:
        bench: its settings say what is wanted.
        probabilities: ``[n, K]`` calibrated ones of the validation images.
    """
    table, asked = bench.dataset.table, bench.settings.evaluation
    val = table.indices("val")
    patients = None if table.patients is None else table.patients[val]
    wanted = wishes(bench.task, asked.sensitivity, asked.specificity)
    return fit_points(bench.task, probabilities, table.targets[val], patients, wanted)


def work(evidence: Evidence) -> dict[str, Any]:
    bench, role, found = evidence.bench, evidence.exported, evidence.assessment
    assert found is not None
    task, table, asked = bench.task, bench.dataset.table, bench.settings.evaluation
    val, test = table.indices("val"), table.indices("test")
    points = points_of(bench, found.probabilities[role][val])
    targets, patients = table.targets[test], None if table.patients is None else table.patients[test]
    parts: dict[str, Any] = {}
    if wanted := wishes(task, asked.sensitivity, asked.specificity):
        parts["operating_points"] = points_report(task, points, found.probabilities[role][test], targets, patients)
        parts["operating_points"]["notes"] += missing_points(task, points, wanted)
    roles = dict.fromkeys((role, STUDENT, CONTROL, TEACHER))
    drawn = {name: found.probabilities[name][test] for name in roles if name in found.probabilities}
    return parts | {"decision_curves": curves_report(task, drawn, targets, patients, role=role)}


STAGE = Stage("evaluate", work)
