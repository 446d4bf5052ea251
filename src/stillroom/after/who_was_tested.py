"""Who was tested on another data set: patients, subgroups, and image quality, cut as the run's own images were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stillroom.data.bands import grouped
from stillroom.data.quality import by_quality
from stillroom.data.table import Table
from stillroom.evaluation.by_patient import by_patient
from stillroom.evaluation.main_figures import Answers
from stillroom.evaluation.subgroups import judge_parts
from stillroom.run.folder import Run
from stillroom.task import Task


@dataclass(frozen=True)
class Cuts:
    """Where a run cut its own images, so that bands compare; the defaults are those of a file alone.

    Attributes:
        asked: the columns that the run was judged by.
        groups: edges of bands by column, in lower case.
        quality: edges of thirds by property; none where the model does not see images as they were measured.
    """

    asked: tuple[str, ...] = ()
    groups: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    quality: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def cuts_of(run: Run) -> Cuts:
    """Those of a finished run."""
    manifest = run.manifest
    same_side = manifest.get("store", {}).get("size") == manifest.get("exported_side")
    return Cuts(run.settings.data.groups, _edges(run, "groups"), _edges(run, "quality") if same_side else {})


def who_was_tested(
    cuts: Cuts,
    task: Task,
    table: Table,
    rows: np.ndarray,
    probabilities: np.ndarray,
    targets: np.ndarray,
    quality: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """The parts ``by_patient``, ``groups`` and ``quality`` as a run's metrics.json has them; None where there is nothing.

    Args:
        cuts: of the run whose model it is.
        task: the model's.
        table: the other data set, with the columns that the user named.
        rows: ``[n]`` of the table, those that were tested.
        probabilities: ``[n, K]`` of the exported file, calibrated.
        targets: of these rows, in the task's form.
        quality: of these rows, see :func:`~stillroom.data.quality.quality_of_image`.
    """
    patients = None if table.patients is None else table.patients[rows]
    answers = Answers.of(task, probabilities, targets, patients)
    nobody = np.zeros(len(table), dtype=bool)  # bands that the run did not make are made of these images
    columns = [grouped(one, nobody, cuts.groups.get(one.name.casefold())).take(rows) for one in table.groups]
    thirds = by_quality(quality, cuts.quality)
    parts = {name: groupings for name, groupings in (("groups", columns), ("quality", thirds)) if groupings}
    return {
        "by_patient": by_patient(task, {"student": probabilities}, targets, patients),
        "groups": None,
        "quality": None,
    } | judge_parts(answers, parts, "student")


def hint(cuts: Cuts, table: Table) -> list[str]:
    """A note where the run was judged by subgroups and this set is not asked for any."""
    if not cuts.asked or table.groups:
        return []
    named = ", ".join(cuts.asked), " ".join(cuts.asked)
    return [f"The run was judged by {named[0]}: --groups {named[1]} tells the same of a table with these columns."]


def _edges(run: Run, part: str) -> dict[str, tuple[float, ...]]:
    found = run.metrics.get(part) or {"columns": []}
    return {column["name"].casefold(): tuple(column["edges"]) for column in found["columns"] if column["edges"]}
