"""The report's part on who taught: whose weights the teachers have, under which licence, and what they know of this task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.evaluation.roles import TEACHER
from stillroom.report.answers import answers_notes
from stillroom.report.finding import Finding
from stillroom.report.numbers import METRICS, estimate, fixed, plain
from stillroom.report.record import Record
from stillroom.settings.network_names import shown

MODES = {
    "frozen": "frozen, with a head of its own on its features",
    "finetune": "fine-tuned on this task's labels",
    "as_is": "asked as it came: it answers for these classes already",
    "answers": "by its answers alone: one an image, the same for all its views",
}
_FORBIDDEN = "forbids commercial use"
_COMMERCIAL = {True: _FORBIDDEN, False: "allows commercial use", None: "read what it says of commercial use"}


@dataclass(frozen=True)
class TaughtBy:
    """What the pages show of the teachers.

    Attributes:
        teachers: name, and what is known of it as pairs of heading and text.
        sentences: what to mind.
    """

    teachers: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    sentences: tuple[str, ...]


def taught_by(record: Record) -> TaughtBy | None:
    """None where nobody taught, and for runs that did not write it down."""
    found = record.manifest.get("taught_by") or []
    if not found:
        return None
    teachers = tuple((_named(entry), tuple(_facts(entry))) for entry in found)
    return TaughtBy(teachers, (*answers_notes(record), *_sentences(record, found)))


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
            f"{name if name.isupper() else name.lower()} {fixed(value.value)} ({fixed(value.low)} to {fixed(value.high)})"
            for name, value in figures
            if value
        ]
        if own:
            what = "Together they reach" if len(found) > 1 else "On this task's test images it reaches"
            said.insert(0, f"{what} {' and '.join(own)}; more under Test results.")
    return said


def _bound(found: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(_named(entry) for entry in found if entry.get("forbids_commercial_use")))


def _named(entry: dict[str, Any]) -> str:
    return shown(str(entry.get("name") or "teacher"))


def _place(entry: dict[str, Any]) -> str:
    """Where its weights came from; of a path on the machine that made the page the last part alone."""
    source = plain(entry.get("source") or "not known")
    return Path(source).name if Path(source).is_absolute() else source


def _facts(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Heading and text, as far as it is known."""
    revision = f", revision {plain(entry['revision'])}" if entry.get("revision") else ""
    of = "Answers" if entry["mode"] == "answers" else "Weights"
    yield f"{of} from", f"{_place(entry)}{revision}"
    if entry.get("digest"):
        kind, _, digits = entry["digest"].partition(":")
        yield ("SHA-256 of their file" if kind == "sha256" else "Digest of the weights"), digits
    if entry.get("source") != "random weights":
        bound = _COMMERCIAL[entry.get("forbids_commercial_use")]
        yield "Their licence", f"{plain(entry['licence'])}: {bound}" if entry.get("licence") else "not stated"
    if entry.get("parameters"):
        yield "Parameters", f"{fixed(entry['parameters'], 1)} million"
    if entry.get("side"):
        yield "Sees images of", f"{entry['side']} px"
    yield "Taught", MODES.get(entry["mode"], plain(entry["mode"]))
