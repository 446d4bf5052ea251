"""What the report says of calibration: one table, one sentence a network, and what to mind."""

from __future__ import annotations

from typing import Any

from stillroom.evaluation.calibration import calibration_notes
from stillroom.evaluation.calibration_error import LEVEL, calibration_words
from stillroom.evaluation.roles import MAJORITY
from stillroom.report.numbers import MISSING, estimate, fixed, true_minus
from stillroom.report.record import Record, title
from stillroom.report.tables import Cell, Grid


def calibration_table(record: Record) -> Grid | None:
    """Temperature, calibration error before and after it, the usual error and the Brier score's parts; a network a row."""
    rows = [_row(role, values) for role, values in record.calibration.items() if role != MAJORITY]
    columns = (
        "Network", "Temperature", "Calibration error before", "after", "ECE", "ECE if calibrated", "Miscalibration",
        "Discrimination", "Uncertainty",
    )  # fmt: skip
    return Grid(columns, rows) if rows else None


def calibration_sentences(record: Record) -> list[str]:
    """Whether each network needs recalibration, in words; nothing of a run of before there was a test."""
    return [
        f"{title(role)}: {calibration_words(values['after'])}{_both(values['after'])}"
        for role, values in record.calibration.items()
        if role != MAJORITY and values.get("after")
    ]


def _both(after: dict[str, Any]) -> str:
    """Why an error that may be zero can stand beside a test that excludes it; empty where it does not."""
    if after.get("p_value") is None or after["p_value"] >= 1 - LEVEL or after["error"]["low"] > 0:
        return ""
    return (
        " The two do not contradict each other: the test asks whether stated probabilities are exactly right, the interval "
        "how large their error is, and the interval is cautious."
    )


def temperature_notes(record: Record) -> list[str]:
    """What to mind about the temperatures, each with its role's name."""
    return [
        f"{title(role)}: {remark}"
        for role, values in record.calibration.items()
        if role != MAJORITY
        for remark in calibration_notes(values)
    ]


def _row(role: str, values: dict[str, Any]) -> tuple[Cell, ...]:
    before, after = values.get("before") or {}, values.get("after") or {}
    parts = after.get("brier") or {}
    errors = [estimate(found.get("error")) for found in (before, after)]
    return (
        title(role),
        fixed(values.get("temperature"), 2),
        *(found or MISSING for found in errors),
        fixed(values.get("ece_after")),
        fixed(after.get("ece_if_calibrated")),
        *(true_minus(fixed(parts.get(part))) for part in ("miscalibration", "discrimination", "uncertainty")),
    )
