"""From run folders to rows: what each cell found, and each system's means over its seeds with the control beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillroom.bench.grid import Cell
from stillroom.bench.statistics import Mean, Spread, Verdict, compare_over_sets, difference_of, mean_of, spread, verdict
from stillroom.evaluation.assess import STUDENT
from stillroom.run import Run
from stillroom.settings import to_dict

State = Literal["done", "failed", "waiting"]
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
        against: label of the recipe that it is compared with; empty for the baseline.
        seeds, done, failed: how many cells there are, are done, have failed.
        means: figure to mean over the seeds done; empty where none is.
        metric: the selection metric; empty where none is done.
        difference: to the control in that metric, paired; None where there is none.
        verdict: what the difference allows to say.
        unlike: settings, besides recipe and teacher, in which it differs from its control.
        size_mb: of the student, float32.
    """

    key: tuple[str, str, str, str]
    is_control: bool
    against: str
    seeds: int
    done: int
    failed: int
    means: dict[str, Mean]
    metric: str
    difference: Mean | None
    verdict: Verdict
    unlike: tuple[str, ...]
    size_mb: float | None

    @property
    def title(self) -> str:
        """Recipe, teacher and student for people."""
        return " · ".join(filter(None, self.key[1:]))


def read_cell(folder: Path) -> Finished:
    """What a finished run found. Takes a moment: its test images are drawn again a thousand times."""
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
    groups: dict[tuple[str, str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        groups.setdefault((cell.data, cell.recipe, cell.teacher, cell.student), []).append(outcome)
    controls: dict[tuple[str, str, str], list[Outcome]] = {}
    for (data, recipe, _, student), group in groups.items():
        controls.setdefault((data, recipe, student), group)
        if group[0].cell.is_baseline:
            controls.setdefault((data, "", student), group)
    return [_system(key, group, controls.get((key[0], group[0].cell.against, key[3]))) for key, group in groups.items()]


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
    control: dict[tuple[str, str], int] = {}
    for column, key in enumerate(whole):
        control.setdefault((key[0], key[2]), column)
        if by_key[sets[0], *key].is_control:
            control.setdefault(("", key[2]), column)
    columns = [
        None if system.is_control else control.get((system.against, key[2]))
        for key, system in ((key, by_key[sets[0], *key]) for key in whole)
    ]
    return compare_over_sets(table, [by_key[sets[0], *key].title for key in whole], columns)


def _system(key: tuple[str, str, str, str], group: list[Outcome], control: list[Outcome] | None) -> System:
    done = {o.cell.seed: o.finished for o in group if o.finished}
    metric = next((finished.metric for finished in done.values()), "")
    spreads = {seed: finished.spread for seed, finished in done.items()}
    names = list(next(iter(spreads.values())).values) if spreads else []
    is_control = group is control
    difference = None
    if spreads and control and not is_control:
        beside = {o.cell.seed: o.finished.spread for o in control if o.finished}
        difference = difference_of(spreads, beside, metric)
    return System(
        key=key,
        is_control=is_control,
        against=group[0].cell.against,
        seeds=len(group),
        done=len(done),
        failed=sum(o.state == "failed" for o in group),
        means={name: mean_of(list(spreads.values()), name, _bounds(name)) for name in names},
        metric=metric,
        difference=difference,
        verdict=verdict(difference),
        unlike=_unlike(group[0].cell, control[0].cell) if control and not is_control else (),
        size_mb=next((finished.cost["size_mb"] for finished in done.values()), None),
    )


def _unlike(cell: Cell, control: Cell) -> tuple[str, ...]:
    first, second = to_dict(cell.settings), to_dict(control.settings)
    parts = [part for part in first if part not in ("source", "seed", "device", "recipe", "teacher", "evaluation")]
    return tuple(f"{part}.{name}" for part in parts for name in first[part] if first[part][name] != second[part][name])


def _bounds(name: str) -> tuple[float, float]:
    return (-1.0, 1.0) if name == "quadratic_kappa" else (0.0, 1.0)


def _value(system: System) -> float | None:
    mean = system.means.get(system.metric)
    return None if mean is None or np.isnan(mean.value) else mean.value


def synthetic(outcomes: Iterable[Outcome]) -> set[str]:
    """Labels of the data sets whose images are synthetic, as far as cells are done."""
    return {o.cell.data for o in outcomes if o.finished and o.finished.synthetic}


_FIGURE = {"value", "low", "high"}
