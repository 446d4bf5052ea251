"""The report's part on who taught: whose weights the teachers have, under which licence, and what they know of this task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stillroom.evaluation.roles import TEACHER
from stillroom.report.finding import Finding
from stillroom.report.numbers import METRICS, MISSING, estimate, fixed, plain
from stillroom.report.record import Record
from stillroom.report.tables import Cell, Grid

MODES = {
    "frozen": "frozen, with a head of its own on its features",
    "finetune": "fine-tuned on this task's labels",
    "as_is": "asked as it came: it answers for these classes already",
}
_FORBIDDEN = "forbids commercial use"
_COMMERCIAL = {True: _FORBIDDEN, False: "allows commercial use", None: "read it for commercial use"}
_DIGITS = 16


@dataclass(frozen=True)
class TaughtBy:
    """What the pages show of the teachers.

    Attributes:
        table: one row a teacher.
        sentences: what to mind.
    """

    table: Grid
    sentences: tuple[str, ...]


def taught_by(record: Record) -> TaughtBy | None:
    """None where nobody taught, and for runs that did not write it down."""
    found = record.manifest.get("taught_by") or []
    if not found:
        return None
    rows: list[tuple[Cell, ...]] = [
        (
            plain(entry["name"]),
            f"{plain(entry['source'])}{' at ' + entry['revision'][:12] if entry.get('revision') else ''}",
            _licence(entry),
            _digest(entry.get("digest")),
            f"{fixed(entry['parameters'], 1)} M" if entry.get("parameters") else MISSING,
            f"{entry['side']} px" if entry.get("side") else MISSING,
            MODES.get(entry["mode"], plain(entry["mode"])),
        )
        for entry in found
    ]
    columns = ("Teacher", "Source", "Licence of its weights", "Digest", "Parameters", "Sees", "How it taught")
    return TaughtBy(Grid(columns, rows), tuple(_sentences(record, found)))


def licence_finding(record: Record) -> Finding | None:
    """What the teachers' licences forbid; None where they do not."""
    bound = _bound(record.manifest.get("taught_by") or [])
    if not bound:
        return None
    return Finding(
        "neutral",
        f"The licence of {' and '.join(bound)} {_FORBIDDEN}.",
        "Whether a student that was taught by such weights may be sold is for that licence and a lawyer to say.",
    )


def _sentences(record: Record, found: Sequence[dict[str, Any]]) -> list[str]:
    said = [str(note) for entry in found for note in entry.get("notes", [])]
    test = record.test.get(TEACHER)
    if test:
        figures = [(METRICS[key], estimate(test.get(key))) for key in ("auc", "accuracy") if key in METRICS]
        own = [
            f"{name} {fixed(value.value)} ({fixed(value.low)} to {fixed(value.high)})"
            for name, value in figures
            if value
        ]
        if own:
            what = "Together they reach" if len(found) > 1 else "On this task's test images it reaches"
            said.insert(0, f"{what} {' and '.join(own)}; more under Test results.")
    return said


def _bound(found: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(plain(entry["name"]) for entry in found if entry.get("forbids_commercial_use")))


def _licence(entry: dict[str, Any]) -> str:
    if entry.get("source") == "random weights":
        return "none needed"
    if not entry.get("licence"):
        return "not stated"
    return f"{plain(entry['licence'])} ({_COMMERCIAL[entry.get('forbids_commercial_use')]})"


def _digest(digest: str | None) -> str:
    if not digest:
        return MISSING
    kind, _, digits = digest.partition(":")
    return f"{kind} {digits[:_DIGITS]}…"
