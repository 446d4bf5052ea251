"""Test a finished run on another data set, through the exported student: what is tested is what is deployed. No torch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillroom.data.load import open_source
from stillroom.data.table import Table, UnreadableImage
from stillroom.errors import UsageError
from stillroom.evaluation.calibration import reliability
from stillroom.evaluation.metrics import score
from stillroom.files import write_json
from stillroom.progress import progress
from stillroom.run import Run
from stillroom.settings import DataSettings
from stillroom.task import Task

Split = Literal["auto", "train", "val", "test", "all"]
_BATCH = 32


def evaluate(
    run: Run,
    source: str | Path,
    data: DataSettings | None = None,
    *,
    split: Split = "auto",
    show_progress: bool = True,
) -> dict[str, Any]:
    """Score a run's exported student on another data set; also written to ``evaluations/`` in the run folder.

    Args:
        run: a finished run.
        source: see :func:`stillroom.data.load.open_source`.
        data: how to read the source. Size, fit and intensity are the model's own.
        split: which images; ``auto`` takes the source's test split where it has one, else every image.
        show_progress: show a bar.

    Returns:
        ``source``, ``split``, ``synthetic``, ``test`` (figures under ``student``), ``calibration``,
        ``quarantined`` (path and reason of what could not be read) and ``notes``.

    Raises:
        UsageError: a label that the model does not know, a split that is empty, or no readable image.
    """
    predictor = run.predictor()
    task = predictor.task
    data = replace(data or DataSettings(), size=predictor.size)  # picks MedMNIST's file
    table = open_source(source, data, seed=run.settings.seed)
    targets = _renumbered(table, task)
    rows, chosen = _rows(table, split)

    probabilities: list[np.ndarray] = []
    kept: list[int] = []
    quarantined: list[dict[str, str]] = []
    pending: list[np.ndarray] = []
    with progress("evaluate", len(rows), enabled=show_progress) as advance:
        for row in rows:
            try:
                pending.append(predictor.prepare(table.reader.read(int(table.rows[row]))))
                kept.append(int(row))
            except UnreadableImage as error:
                quarantined.append({"path": str(table.ids[row]), "reason": str(error)})
            if len(pending) == _BATCH:
                probabilities.append(predictor.probabilities(np.stack(pending)))
                pending = []
            advance()
    if pending:
        probabilities.append(predictor.probabilities(np.stack(pending)))
    if not kept:
        raise UsageError(f"None of the {len(rows)} images of {source} could be read: {quarantined[0]['reason']}.")

    found = np.concatenate(probabilities).astype(np.float64)
    truth = targets[kept]
    patients = None if table.patients is None else table.patients[kept]
    figures = score(
        task,
        found,
        truth,
        patients=patients,
        resamples=run.settings.evaluation.resamples,
        seed=run.settings.seed,
    )
    notes = list(figures["notes"])
    if quarantined:
        notes.append(f"{len(quarantined)} images could not be read; the first is {quarantined[0]['path']}.")
    result = {
        "source": table.source,
        "split": chosen,
        "synthetic": table.synthetic or predictor.synthetic,
        "test": {"student": figures},
        "calibration": {"student": {"bins": reliability(task, found, truth)}},
        "quarantined": quarantined,
        "notes": notes,
    }
    name = re.sub(r"[^\w.-]+", "-", f"{table.name}-{chosen}")
    write_json(run.path / "evaluations" / f"{name}.json", result)
    return result


def _renumbered(table: Table, task: Task) -> np.ndarray:
    """The table's targets as the model numbers its classes."""
    if table.task.exclusive != task.exclusive:
        raise UsageError(
            f"The model was trained on {task.kind} labels, {table.name} has {table.task.kind} ones: "
            "they cannot be compared."
        )
    unknown = [name for name in table.task.classes if name not in task.classes]
    if unknown:
        raise UsageError(
            f"{table.name} has the class {unknown[0]!r}, which the model does not know. "
            f"The model's classes: {', '.join(task.classes)}."
        )
    return task.parse(table.task.names(table.targets))


def _rows(table: Table, split: Split) -> tuple[np.ndarray, str]:
    chosen = ("test" if (table.splits == "test").any() else "all") if split == "auto" else split
    rows = np.arange(len(table)) if chosen == "all" else table.indices(chosen)
    if len(rows) == 0:
        there = sorted(set(table.splits.tolist()) - {""})
        others = f"it has {', '.join(there)}" if there else "its images are in no split"
        raise UsageError(f"{table.name} has no {chosen} split; {others}. Give --split all for every image.")
    return rows, chosen
