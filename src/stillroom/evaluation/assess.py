"""From every model's logits to every figure: calibration on validation, scores on test, paired comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.data.table import Table
from stillroom.evaluation.calibration import expected_calibration_error, fit_temperature, reliability
from stillroom.evaluation.calibration_error import calibration_error
from stillroom.evaluation.comparison import compare_measured
from stillroom.evaluation.intervals import draw
from stillroom.evaluation.metrics import measure, score_of
from stillroom.evaluation.roles import STUDENT, noun
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.task import Task

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Assessment:
    """What the logits say.

    Attributes:
        probabilities: role to ``[N, K]`` calibrated probabilities of every row.
        temperatures: role to the temperature fitted on validation.
        figures: the parts ``test``, ``validation``, ``calibration`` and ``comparison`` of metrics.json.
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
        logits: role (see :mod:`stillroom.evaluation.roles`; any other name will do) to ``[N, K]`` logits of every row.
        settings: the margin.
        seed: of the simulations behind the calibration errors.
    """
    val, test = table.indices("val"), table.indices("test")
    temperatures = {role: fit_temperature(task, raw[val], table.targets[val]) for role, raw in logits.items()}
    probabilities = {role: task.probabilities(raw, temperatures[role]) for role, raw in logits.items()}
    targets = table.targets[test]
    drawn = draw(len(test), 0, seed, _of(table.patients, test))
    measured = {role: measure(task, p[test], targets, drawn) for role, p in probabilities.items()}
    validation = {}
    if len(val):
        again = draw(len(val), 0, seed, _of(table.patients, val))
        validation = {
            role: score_of(task, measure(task, p[val], table.targets[val], again), table.targets[val], again)
            for role, p in probabilities.items()
        }
    calibration = {}
    patients = _of(table.patients, test)
    for role, raw in logits.items():
        stated = {"before": task.probabilities(raw[test]), "after": probabilities[role][test]}
        judged = {when: calibration_error(task, p, targets, patients, seed=seed) for when, p in stated.items()}
        before, after = (
            reliability(task, p, targets, design=judged[when]["design_effect"]) for when, p in stated.items()
        )
        calibration[role] = {
            "temperature": temperatures[role],
            "ece_before": expected_calibration_error(task, stated["before"], targets),
            "ece_after": expected_calibration_error(task, stated["after"], targets),
            **judged,
            "bins_before": before,
            "bins": after,
        }
    comparison = {
        f"{STUDENT}_vs_{other}": compare_measured(
            task, measured[STUDENT], found, targets, drawn, margin=settings.margin, names=(STUDENT, noun(other))
        )
        for other, found in measured.items()
        if other != STUDENT
    }
    return Assessment(
        probabilities,
        temperatures,
        {
            "test": {role: score_of(task, found, targets, drawn) for role, found in measured.items()},
            "validation": validation,
            "calibration": calibration,
            "comparison": comparison,
        },
    )


def _of(patients: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if patients is None else patients[rows]


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


def worst_mistakes(task: Task, probabilities: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows that the model got wrong, those first of whose wrong decision it was surest.

    Args:
        probabilities: ``[N, K]``.
        targets: of all ``N`` rows.
        rows: ``[n]`` the rows to look at.
    """
    sure = task.surely_wrong(probabilities[rows], targets[rows])
    return rows[np.argsort(-sure, kind="stable")[: int((sure > 0).sum())]]
