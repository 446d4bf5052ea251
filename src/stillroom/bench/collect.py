"""From run folders to rows: what each cell found, and each system's means over its seeds with the control beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillroom.bench.grid import Cell
from stillroom.bench.statistics import Mean, Spread, Verdict, compare_over_sets, difference_of, mean_of, spread, verdict
from stillroom.evaluation.assess import STUDENT
from stillroom.run.folder import Run
from stillroom.settings.whole import to_dict

State = Literal["done", "failed", "waiting"]
Key = tuple[str, str, str, str]
"""Labels of data, recipe, teacher and student."""
SHOWN = ("auc", "accuracy", "f1")
"""Figures of the tables, besides the selection metric where that is another."""


@dataclass(frozen=True)
class Finished:
    """What a finished cell left behind.

    Attributes:
        figures: the student's test figures, each ``{"value", "low", "high"}``, by the names of metrics.json.
        metric: the task's selection metric, in which systems are compared.
        spread: of the figures that the tables show.
        cost: ``seconds`` of the whole run, and the student's ``parameters``, ``size_mb`` and ``latency_ms`` (median of
            one image, or None).
        synthetic: whether the images are.
    """

    figures: dict[str, dict[str, float | None]]
    metric: str
    spread: Spread
    cost: dict[str, float | None]
    synthetic: bool


@dataclass(frozen=True)
class Outcome:
    """A cell and how far it has come.

    Attributes:
        reason: of a failed one, why, in one line.
        finished: of a done one, what it found.
    """

    cell: Cell
    state: State
    reason: str = ""
    finished: Finished | None = None


@dataclass(frozen=True)
class System:
    """A recipe with its teacher and student on one data set, over its seeds.

    Attributes:
        key: labels of data, recipe, teacher and student.
        is_control: whether it is the baseline that the others are compared with, where they name no other control.
        control: key of the system that it is compared with; None where it is one, or where none is clear.
        against: label of the recipe that the file names as its control; empty for the baseline.
        seeds, done, failed: how many cells there are, are done, have failed.
        means: figure to mean over the seeds done; empty where none is.
        metric: the selection metric; empty where none is done.
        difference: to the control in that metric, paired; None where there is none.
        verdict: what the difference allows to say.
        unlike: settings, besides recipe and teacher, in which it differs from its control.
        own_control: in words, what its recipe would be compared with, where that is neither the baseline nor named.
        size_mb: of the student, float32.
    """

    key: Key
    is_control: bool
    control: Key | None
    against: str
    seeds: int
    done: int
    failed: int
    means: dict[str, Mean]
    metric: str
    difference: Mean | None
    verdict: Verdict
    unlike: tuple[str, ...]
    own_control: str
    size_mb: float | None

    @property
    def title(self) -> str:
        """Recipe, teacher and student for people."""
        return " · ".join(filter(None, self.key[1:]))


def read_cell(folder: Path) -> Finished:
    """What a finished run found. Takes a moment: what each test image moves is worked out."""
    run = Run.open(folder)
    task, frame, test = run.task, run.predictions(), run.metrics["test"][STUDENT]
    frame = frame[frame["split"] == "test"]
    metric = task.selection_metric
    found = spread(
        task,
        frame[[f"{STUDENT}:{name}" for name in task.classes]].to_numpy(),
        task.parse(frame["target"].tolist()),
        frame["digest"].tolist(),
        frame["patient"].to_numpy().astype(str),
        list(dict.fromkeys([*SHOWN, metric])),
    )
    profile = run.metrics["efficiency"][STUDENT]
    latency = profile["latency_ms"]
    return Finished(
        figures={name: value for name, value in test.items() if isinstance(value, dict) and set(value) == _FIGURE},
        metric=metric,
        spread=found,
        cost={
            "seconds": round(sum(run.manifest["durations_s"].values()), 1),
            "parameters": profile["parameters"],
            "size_mb": profile["size_mb"],
            "latency_ms": latency["batch_1"]["median"] if latency else None,
        },
        synthetic=bool(run.manifest["synthetic"]),
    )


def row(outcome: Outcome) -> dict[str, Any]:
    """One flat row of table.csv: keys, state, every figure with its interval, and what the cell cost."""
    cell = outcome.cell
    found: dict[str, Any] = {
        "data": cell.data,
        "recipe": cell.recipe,
        "teacher": cell.teacher,
        "student": cell.student,
        "seed": cell.seed,
        "state": outcome.state,
        "reason": outcome.reason,
        "run": f"cells/{cell.id}",
    }
    if outcome.finished:
        for name, figure in outcome.finished.figures.items():
            found |= {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}
        found |= outcome.finished.cost
    return found


def systems(outcomes: Iterable[Outcome]) -> list[System]:
    """Every system in the order of the file, with its means and its difference to its control.

    The control is the first baseline of the same data and student, or the recipe of that label which the file names.
    """
    groups: dict[Key, list[Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        groups.setdefault((cell.data, cell.recipe, cell.teacher, cell.student), []).append(outcome)
    return [_system(key, group, _control_of(key, group[0].cell, groups), groups) for key, group in groups.items()]


def _control_of(key: Key, cell: Cell, groups: Mapping[Key, list[Outcome]]) -> Key | None:
    """Key of the system that this one is compared with; its own where it is the control, None where it is not clear.

    A control with the same teacher goes first; one without a teacher, or with one for all, serves every teacher.
    """
    if cell.against:
        fitting = [other for other in groups if (other[0], other[1], other[3]) == (key[0], cell.against, key[3])]
        alike = [other for other in fitting if other[2] == key[2]]
        if alike:
            return alike[0]
        return fitting[0] if len(fitting) == 1 else None
    baselines = (k for k, group in groups.items() if (k[0], k[3]) == (key[0], key[3]) and group[0].cell.is_baseline)
    return next(baselines, None)


def over_sets(found: list[System]) -> dict[str, Any] | None:
    """Ranks and tests over data sets, of the systems that have every seed done on each; None for one data set.

    Returns what :func:`~stillroom.bench.statistics.compare_over_sets` gives.
    """
    sets = list(dict.fromkeys(system.key[0] for system in found))
    by_key = {system.key: system for system in found}
    whole = [
        key
        for key in dict.fromkeys(system.key[1:] for system in found)
        if all((s := by_key.get((data, *key))) and s.done == s.seeds and _value(s) is not None for data in sets)
    ]
    if len(sets) < 2 or len(whole) < 2:
        return None
    table = np.array([[_value(by_key[data, *key]) for key in whole] for data in sets], dtype=np.float64)
    first = [by_key[sets[0], *key] for key in whole]
    controls = [whole.index(s.control[1:]) if s.control and s.control[1:] in whole else None for s in first]
    return compare_over_sets(table, [system.title for system in first], controls)


def _system(key: Key, group: list[Outcome], control_key: Key | None, groups: Mapping[Key, list[Outcome]]) -> System:
    done = {o.cell.seed: o.finished for o in group if o.finished}
    metric = next((finished.metric for finished in done.values()), "")
    spreads = {seed: finished.spread for seed, finished in done.items()}
    names = list(next(iter(spreads.values())).values) if spreads else []
    is_control = control_key == key
    control = groups[control_key] if control_key and not is_control else None
    difference = None
    if spreads and control:
        beside = {o.cell.seed: o.finished.spread for o in control if o.finished}
        difference = difference_of(spreads, beside, metric, _bounds(metric))
    return System(
        key=key,
        is_control=is_control,
        control=None if is_control else control_key,
        against=group[0].cell.against,
        seeds=len(group),
        done=len(done),
        failed=sum(o.state == "failed" for o in group),
        means={name: mean_of(list(spreads.values()), name, _bounds(name)) for name in names},
        metric=metric,
        difference=difference,
        verdict=verdict(difference),
        unlike=_unlike(group[0].cell, control[0].cell) if control else (),
        own_control=_own_control(group[0].cell),
        size_mb=next((finished.cost["size_mb"] for finished in done.values()), None),
    )


def _unlike(cell: Cell, control: Cell) -> tuple[str, ...]:
    first, second = to_dict(cell.settings), to_dict(control.settings)
    parts = [part for part in first if part not in ("source", "seed", "device", "recipe", "teacher", "evaluation")]
    return tuple(f"{part}.{name}" for part in parts for name in first[part] if first[part][name] != second[part][name])


def _own_control(cell: Cell) -> str:
    """What the recipe itself would be compared with, where that is not the baseline and the file names no control."""
    recipe = cell.settings.recipe
    if cell.against or not recipe.controls_by_itself(cell.settings):
        return ""
    return recipe.claim(cell.settings).control


def _bounds(name: str) -> tuple[float, float]:
    return (-1.0, 1.0) if name == "quadratic_kappa" else (0.0, 1.0)


def _value(system: System) -> float | None:
    mean = system.means.get(system.metric)
    return None if mean is None or np.isnan(mean.value) else mean.value


def synthetic(outcomes: Iterable[Outcome]) -> set[str]:
    """Labels of the data sets whose images are synthetic, as far as cells are done."""
    return {o.cell.data for o in outcomes if o.finished and o.finished.synthetic}


_FIGURE = {"value", "low", "high"}
