"""What stands in a run folder, read once into memory. Everything on the page comes from here.

Light on purpose: pandas is imported only when predictions are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillroom.errors import RunError, UsageError
from stillroom.evaluation.roles import CONTROL, MAJORITY, PROBE_OF_STUDENT, PROBE_OF_TEACHER, STUDENT, TEACHER, noun
from stillroom.files.digests import read_lines, require_whole, say_if_changed
from stillroom.files.frames import read_arrays, read_frame
from stillroom.progress import remark
from stillroom.report.numbers import Estimate, estimate
from stillroom.task import Task, from_description

ROLES = (STUDENT, CONTROL, TEACHER, PROBE_OF_TEACHER, PROBE_OF_STUDENT)
TITLES = {
    PROBE_OF_TEACHER: "Linear probe on the teacher",
    PROBE_OF_STUDENT: "Linear probe on the student's start",
    MAJORITY: "Majority class",
    "onnx": "The ONNX file",
}


@dataclass(frozen=True)
class Predictions:
    """predictions.parquet as arrays; ``N`` rows of all splits, ``K`` classes.

    Attributes:
        ids: ``[N]`` str, as in the data table.
        targets: ``[N]`` or ``[N, K]``, in the task's own form.
        patients: ``[N]`` str, empty where unknown.
        test: ``[N]`` bool, True for rows of the test split.
        probabilities: role to ``[N, K]`` float64 in [0, 1]; a role without its columns is absent.
    """

    ids: np.ndarray
    targets: np.ndarray
    patients: np.ndarray
    test: np.ndarray
    probabilities: dict[str, np.ndarray]


@dataclass(frozen=True)
class Record:
    """A run folder. Optional parts that were not written are None or empty.

    Attributes:
        folder: the run folder itself.
        task: what the labels mean.
        settings, manifest, audit, metrics, plan: the files of these names.
        history: one entry per role and epoch, in the order written.
        features: ``student [M, D]``, perhaps ``teacher [M, D2]``, and ``index [M]``, rows of the predictions.
        gallery: ``images [G, C, H, W]`` uint8, ``index [G]``, rows of the predictions, and ``left_out [G]``.
    """

    folder: Path
    task: Task
    settings: dict[str, Any]
    manifest: dict[str, Any]
    audit: dict[str, Any] | None
    metrics: dict[str, Any]
    plan: dict[str, Any] | None
    history: list[dict[str, Any]]
    predictions: Predictions | None
    features: dict[str, np.ndarray]
    gallery: dict[str, np.ndarray]

    @property
    def synthetic(self) -> bool:
        return bool(self.manifest.get("synthetic"))

    @property
    def name(self) -> str:
        """The run folder's own name."""
        return self.folder.resolve().name

    @property
    def version(self) -> str:
        """The Stillroom that made the run."""
        versions = self.manifest.get("versions") or {}
        return str(self.manifest.get("stillroom") or versions.get("stillroom") or "of unknown version")

    @property
    def recipe(self) -> str:
        """The recipe's name, ``unnamed`` where the run does not say."""
        recipe = self.settings.get("recipe")
        name = recipe.get("name") if isinstance(recipe, dict) else recipe
        return str(name or self.manifest.get("recipe") or "unnamed")

    @property
    def test(self) -> dict[str, dict[str, Any]]:
        """Test metrics by role, student first; roles without figures are left out."""
        written = self.metrics.get("test") or {}
        return {role: written[role] for role in in_order(written) if written[role]}

    @property
    def validation(self) -> dict[str, dict[str, Any]]:
        """Validation metrics by role; empty for runs that measured none."""
        return self.metrics.get("validation") or {}

    @property
    def handed_over(self) -> str:
        """The role of the network that the run's files for use were made of; ``student`` unless validation chose another."""
        chosen = (self.metrics.get("kept") or {}).get("role") or self.manifest.get("exported_role")
        return str(chosen or STUDENT)

    @property
    def explained(self) -> str:
        """The role of the network whose decision the heat maps explain: what is handed over, unless the run says another."""
        found = self.metrics.get("explanation") or {}
        role = str(found.get("of") or self.handed_over)
        return role if role in (found.get("method") or {}) else STUDENT

    @property
    def cuts(self) -> int:
        """Of how many cuts of the data (folds) the figures are; 0 for a run with one."""
        found = self.luck or {}
        return int(found["count"]) if found.get("kind") == "folds" else 0

    @property
    def first_cut(self) -> list[str]:
        """What is said where figures are of the first cut alone; empty for a run with one."""
        return [f"Of the first of {self.cuts} cuts of the data alone."] if self.cuts else []

    @property
    def luck(self) -> dict[str, Any] | None:
        """What several trainings say; None where there was one each."""
        return self.metrics.get("luck") or None

    @property
    def calibration(self) -> dict[str, dict[str, Any]]:
        """Calibration by role, student first."""
        written = self.metrics.get("calibration") or {}
        return {role: written[role] for role in in_order(written) if written[role]}

    @property
    def efficiency(self) -> dict[str, dict[str, Any]]:
        """Size and speed by network, student first."""
        written = self.metrics.get("efficiency") or {}
        return {role: written[role] for role in in_order(written) if written[role]}

    def comparison(self, other: str) -> dict[str, Any] | None:
        """The paired comparison of the student with ``other``: over several trainings where there were several, else of one.

        None where there is none.
        """
        for found in (self.luck or {}, self.metrics):
            if comparison := (found.get("comparison") or {}).get(f"student_vs_{other}"):
                return dict(comparison)
        return None

    def chosen(self, role: str, split: Literal["test", "validation"] = "test") -> Estimate | None:
        """A role's selection metric on a split; None where it was not measured or is not defined."""
        figures = (self.test if split == "test" else self.validation).get(role) or {}
        return estimate(figures.get(self.task.selection_metric))

    def over_trainings(self, other: str) -> bool:
        """Whether the comparison with ``other`` holds the luck of training."""
        return f"student_vs_{other}" in ((self.luck or {}).get("comparison") or {})


def in_order(roles: Iterable[str]) -> list[str]:
    """Student, control, teacher and the probes first, then the rest as they came; the majority class last."""
    roles = list(roles)
    rest = [role for role in roles if role not in (*ROLES, MAJORITY)]
    return [role for role in ROLES if role in roles] + rest + [role for role in roles if role == MAJORITY]


def sensitivities(record: Record, role: str) -> dict[str, Estimate]:
    """Of a role, by class; without those that no test image is of."""
    classes = record.test[role].get("per_class") or {}
    return {name: figure for name, values in classes.items() if (figure := estimate(values.get("sensitivity")))}


def title(role: str) -> str:
    """A role as a heading, e.g. ``Student``."""
    return TITLES.get(role, role.replace("_", " ").capitalize())


def load(run: Path) -> Record:
    """Read a run folder.

    Raises:
        UsageError: ``run`` is no run folder: manifest.json, metrics.json or settings.yaml is missing.
        RunError: a file cannot be parsed, or its parts contradict each other.
    """
    for name in ("manifest.json", "metrics.json", "settings.yaml"):
        if not (run / name).is_file():
            raise UsageError(f"{run} has no {name}: point to the folder of a finished run.")
    manifest, metrics = _json(run / "manifest.json"), _json(run / "metrics.json")
    description = metrics.get("task") or manifest.get("task")
    if not description:
        raise RunError(f"{run / 'metrics.json'} does not say what the task is; evaluate the run again.")
    task = from_description({"ordinal": description.get("kind") == "ordinal"} | description)
    predictions = _predictions(run / "predictions.parquet", task)
    record = Record(
        folder=run,
        task=task,
        settings=_edited(run / "settings.yaml"),
        manifest=manifest,
        audit=_json(run / "audit.json") if (run / "audit.json").is_file() else None,
        metrics=metrics,
        plan=_edited(run / "plan.yaml") if (run / "plan.yaml").is_file() else None,
        history=_history(run / "history.jsonl"),
        predictions=predictions,
        features=_arrays(run / "features.npz", predictions),
        gallery=_arrays(run / "gallery.npz", predictions),
    )
    for role in (STUDENT, record.handed_over):
        if role not in record.test:
            raise RunError(f"{run / 'metrics.json'} holds no test figures of the {noun(role)}; evaluate the run again.")
    return record


def heat_maps(record: Record) -> dict[str, np.ndarray]:
    """The pictures behind the figures on heat maps; read only when asked for, because they are large.

    Returns:
        ``index [n]``, rows of the predictions, ``classes [n]`` explained, ``images [n, C, S, S]`` uint8, perhaps ``masks
        [n, S, S]`` bool, and by role ``map_student`` and the like, ``[n, S, S]`` float16 in [0, 1]. Empty where the run
        keeps none.

    Raises:
        RunError: the file contradicts itself or the predictions.
    """
    return _arrays(record.folder / "explanations" / "maps.npz", record.predictions)


def _json(path: Path) -> dict[str, Any]:
    require_whole(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is not valid JSON ({error}); write it again by repeating its stage.") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} should hold a JSON object, found {type(content).__name__}.")
    return content


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise RunError(f"{path} is not valid YAML ({str(error).splitlines()[0]}).") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} should hold settings by name, found {type(content).__name__}.")
    return content


def _edited(path: Path) -> dict[str, Any]:
    say_if_changed(path)
    return _yaml(path)


def _history(path: Path) -> list[dict[str, Any]]:
    """Epochs as trained. One that a killed run repeated counts once; a damaged line is left out, which is said."""
    lines = read_lines(path)
    if lines.damaged:
        remark(f"{path} is damaged in line {lines.damaged[0]}: what the report shows of the training lacks that epoch.")
    epochs: dict[tuple[str, int], dict[str, Any]] = {}
    for entry in lines.entries:
        if "role" in entry and "epoch" in entry:
            epochs[str(entry["role"]), int(entry["epoch"])] = entry
    return list(epochs.values())


def _predictions(path: Path, task: Task) -> Predictions | None:
    if not path.is_file():
        return None
    import pandas as pd

    table = read_frame(path)
    probabilities = {}
    for role in in_order(dict.fromkeys(name.split(":", 1)[0] for name in map(str, table.columns) if ":" in name)):
        columns = [f"{role}:{name}" for name in task.classes]
        if not set(columns) <= set(table.columns):
            continue
        values = table[columns].to_numpy(dtype=np.float64)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise RunError(f"{path}, row {row}: the {role}'s probabilities are not finite numbers; evaluate again.")
        probabilities[role] = values
    names = ["" if pd.isna(name) else str(name) for name in table["target"]]
    return Predictions(
        ids=table["id"].astype(str).to_numpy(),
        targets=task.parse(names),
        patients=table["patient"].fillna("").astype(str).to_numpy(),
        test=(table["split"] == "test").to_numpy(),
        probabilities=probabilities,
    )


def _arrays(path: Path, predictions: Predictions | None) -> dict[str, np.ndarray]:
    """Arrays of an .npz whose ``index`` points into the predictions; empty without either file."""
    if predictions is None or not path.is_file():
        return {}
    require_whole(path)
    arrays = read_arrays(path)
    index = arrays.get("index", np.zeros(0, dtype=np.int64))
    if len(index) and int(index.max()) >= len(predictions.ids):
        raise RunError(
            f"{path} points at row {int(index.max())}, but predictions.parquet has "
            f"{len(predictions.ids)} rows; evaluate the run again."
        )
    for name, array in arrays.items():
        if len(array) != len(index):
            raise RunError(f"{path}: {name} has {len(array)} rows, index has {len(index)}; evaluate the run again.")
    return arrays if len(index) else {}
