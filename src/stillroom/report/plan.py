"""The report's part on the plan that a run followed: plan.yaml of the run folder, beside what the stages took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillroom.report.numbers import MISSING, duration, finite, plain
from stillroom.report.record import Record
from stillroom.report.tables import Cell, Grid, facts

_EVALUATION = ("evaluate", "explain", "export", "profile", "corrupt")


@dataclass(frozen=True)
class PlanSection:
    """What the page shows of a plan.

    Attributes:
        budget: what was allowed, in a sentence; empty where nothing was limited.
        choices: a setting, its value and the reason in each row; None where nothing was chosen.
        facts: what the choices rest on, as pairs of key and text.
        times: expected and actual time by stage; None where nothing was expected.
    """

    budget: str
    choices: Grid | None
    facts: list[tuple[str, str]]
    times: Grid | None


def plan_section(record: Record) -> PlanSection | None:
    """None where the run followed no plan."""
    plan = record.plan
    if not plan:
        return None
    choices: list[tuple[Cell, ...]] = [
        (str(setting), plain(choice.get("value")), plain(choice.get("why")))
        for setting, choice in (plan.get("choices") or {}).items()
        if isinstance(choice, Mapping)
    ]
    chosen = Grid(("Setting", "Value", "Why"), choices, long=("Why",)) if choices else None
    return PlanSection(budget(plan), chosen, facts(plan.get("facts")), _times(record, plan))


def budget(plan: Mapping[str, Any]) -> str:
    """``At most 20 minutes for teaching and training, 10 MB.``, or nothing."""
    given = plan.get("budget") or {}
    units = {"minutes": "minutes for teaching and training", "max_mb": "MB", "max_ms": "ms per image"}
    limits = [f"{given[key]:g} {unit}" for key, unit in units.items() if finite(given.get(key))]
    return f"At most {', '.join(limits)}." if limits else ""


def _times(record: Record, plan: Mapping[str, Any]) -> Grid | None:
    expected = {str(key): value for key, value in (plan.get("expected_s") or {}).items() if finite(value)}
    if not expected:
        return None
    took = dict.fromkeys(expected, 0.0)
    for stage, seconds in (record.manifest.get("durations_s") or {}).items():
        part = _part(stage, list(expected))
        if part:
            took[part] += seconds
    rows: list[tuple[Cell, ...]] = [
        (key.replace("_", " "), duration(value), duration(took[key]) if took[key] else MISSING)
        for key, value in expected.items()
    ]
    rows.append(("all of these", duration(sum(expected.values())), duration(sum(took.values()))))
    return Grid(("Stage", "Expected", "Took"), rows)


def _part(stage: str, expected: list[str]) -> str | None:
    """To which part of the plan a stage of the run belongs; None for one that was not planned."""
    for part in expected:
        if stage == part or stage.startswith(f"train {part}"):
            return part
    if "teach" in expected and (stage.startswith(("ask ", "fit ")) or "teacher" in stage):
        return "teach"
    return "evaluate" if "evaluate" in expected and stage in _EVALUATION else None
