"""From every model's logits to every figure: calibration on validation, scores on test, paired comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.data.table import Table
from stillroom.evaluation.calibration import expected_calibration_error, fit_temperature, reliability
from stillroom.evaluation.comparison import compare
from stillroom.evaluation.metrics import score
from stillroom.settings import EvaluationSettings
from stillroom.task import Task

if TYPE_CHECKING:
    import pandas as pd

STUDENT = "student"


@dataclass(frozen=True)
class Assessment:
    """What the logits say.

    Attributes:
        probabilities: role to ``[N, K]`` calibrated probabilities of every row.
        temperatures: role to the temperature fitted on validation.
        figures: the parts ``test``, ``calibration`` and ``comparison`` of metrics.json.
    """

    probabilities: dict[str, np.ndarray]
    temperatures: dict[str, float]
    figures: dict[str, Any]


def assess(
    task: Task, table: Table, logits: dict[str, np.ndarray], settings: EvaluationSettings, seed: int
) -> Assessment:
    """Calibrate every model on validation, then score it on test and compare the student with each of the others.

    Args:
        task: what the logits mean.
        table: targets, splits and patients, row for row.
        logits: role (``student``, ``control``, ``teacher``) to ``[N, K]`` logits of every row.
        settings: margin and number of resamples.
        seed: of the bootstrap.
    """
    val, test = table.indices("val"), table.indices("test")
    temperatures = {role: fit_temperature(task, raw[val], table.targets[val]) for role, raw in logits.items()}
    probabilities = {role: task.probabilities(raw, temperatures[role]) for role, raw in logits.items()}
    targets = table.targets[test]
    patients = None if table.patients is None else table.patients[test]
    scores = {
        role: score(task, p[test], targets, patients=patients, resamples=settings.resamples, seed=seed)
        for role, p in probabilities.items()
    }
    calibration = {}
    for role, raw in logits.items():
        before = task.probabilities(raw[test])
        calibration[role] = {
            "temperature": temperatures[role],
            "ece_before": expected_calibration_error(task, before, targets),
            "ece_after": expected_calibration_error(task, probabilities[role][test], targets),
            "bins_before": reliability(task, before, targets),
            "bins": reliability(task, probabilities[role][test], targets),
        }
    comparison = {
        f"{STUDENT}_vs_{other}": compare(
            task,
            probabilities[STUDENT][test],
            probabilities[other][test],
            targets,
            patients=patients,
            margin=settings.margin,
            resamples=settings.resamples,
            seed=seed,
            names=(STUDENT, other),
        )
        for other in probabilities
        if other != STUDENT
    }
    return Assessment(
        probabilities,
        temperatures,
        {"test": scores, "calibration": calibration, "comparison": comparison},
    )


def predictions_frame(
    task: Task, table: Table, digests: np.ndarray, probabilities: dict[str, np.ndarray]
) -> pd.DataFrame:
    """One row per image: ``id, patient, split, target, digest`` and a column ``<role>:<class>`` per model and class.

    Args:
        task: what the labels mean.
        table: the ``N`` rows.
        digests: ``[N]`` str, the store's: by them an image is known again wherever it turns up.
        probabilities: role to ``[N, K]``.
    """
    import pandas as pd

    columns: dict[str, Any] = {
        "id": table.ids,
        "patient": table.patients if table.patients is not None else np.full(len(table), ""),
        "split": table.splits,
        "target": task.names(table.targets),
        "digest": digests,
    }
    for role, values in probabilities.items():
        for k, name in enumerate(task.classes):
            columns[f"{role}:{name}"] = values[:, k]
    return pd.DataFrame(columns)


def worst_mistakes(
    task: Task, probabilities: np.ndarray, targets: np.ndarray, rows: np.ndarray, most: int
) -> np.ndarray:
    """The rows that the model got wrong with the greatest confidence, worst first, at most ``most`` of them.

    Args:
        probabilities: ``[N, K]``.
        targets: of all ``N`` rows.
        rows: ``[n]`` the rows to look at.
    """
    losses = task.log_loss(probabilities[rows], targets[rows])
    wrong = task.correct(probabilities[rows], targets[rows]) < 1
    order = rows[wrong][np.argsort(-losses[wrong], kind="stable")]
    return order[:most]
