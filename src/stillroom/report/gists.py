"""What a folded section of the page says in one line."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from stillroom.evaluation.roles import noun
from stillroom.report.gallery import Mistake
from stillroom.report.learning import learning_gist
from stillroom.report.numbers import METRICS, count, duration, estimate, fixed
from stillroom.report.record import Record, sensitivities
from stillroom.report.tables import Confusion
from stillroom.shown import counted

_LONGEST = 120
_SEAMS = tuple(map(re.compile, ("(?<=[,;]) ", r"(?<!\band) (?=\(|(?:and|at|than|that|which)\b)", " ")))
"""Where a sentence may be cut, the best first: behind a clause, before a bracket or a word that begins one, between words."""


def gists(record: Record, parts: dict[str, Any]) -> dict[str, str]:
    """By section, as far as there is something to say; ``parts`` as the templates have them."""
    found = {
        "data": _data(record),
        "taught": ", ".join(name for name, _ in parts["taught_by"].teachers) if parts["taught_by"] else "",
        "results": _figure(record, record.task.selection_metric),
        "luck": parts["luck"].statement if parts["luck"] else "",
        "kept": parts["kept"]["sentence"] if parts["kept"] else "",
        "learning": learning_gist(record),
        "curves": _figure(record, "auc"),
        "errors": _errors(parts["confusions"], record.handed_over),
        "calibration": _figure(record, "calibration_error"),
        "classes": _classes(record),
        "by_patient": parts["patients"].sentence if parts["patients"] else "",
        "features": "How the networks arrange the test images" if parts["maps"] else "",
        "mistakes": _mistakes(parts["mistakes"]),
        "explanation": _explanation(parts["explanation"]),
        "uncertainty": _uncertainty(parts["uncertainty"]),
        "thresholds": _thresholds(parts["thresholds"]),
        "robustness": parts["robustness"].differences[0]
        if parts["robustness"] and parts["robustness"].differences
        else "",
        "efficiency": _efficiency(record),
        "plan": "What was chosen before the run, and why" if parts["plan"] else "",
        "making": _making(record),
        "reporting": "What papers are asked to say, and what this run answers",
        "glossary": "What every term on this page means",
        "citation": "What to cite",
    }
    found |= {
        part.key: (part.warnings[0][1] if part.warnings else next(iter(part.statements), ""))
        for part in parts["subgroups"]
    }
    found |= {section.key: next(iter(section.text), "") for section in parts["declared"]}
    return {key: _short(text) for key, text in found.items()}


def _short(text: str) -> str:
    """The first sentence, or as much of it as a line holds; no bracket is cut."""
    first = text.split(". ")[0].rstrip(".")
    if len(first) <= _LONGEST:
        return first
    whole = [at for at in re.finditer(" ", first[: _LONGEST + 1]) if _closed(first[: at.start()])]
    for seam in _SEAMS:
        ends = [at.start() for at in whole if at.start() > _LONGEST // 3 and seam.match(first, at.start())]
        if ends:
            return f"{first[: ends[-1]].rstrip(',;')} …"
    return f"{first[:_LONGEST]} …"


def _closed(text: str) -> bool:
    return text.count("(") == text.count(")")


def _data(record: Record) -> str:
    counts = (record.audit or {}).get("class_counts") or {}
    if record.task.exclusive and counts:
        listed = ", ".join(f"{count(sum(classes.values()))} {split}" for split, classes in counts.items())
        return f"Images: {listed}; {len(record.task.classes)} classes"
    return f"{len(record.task.classes)} {'classes' if record.task.exclusive else 'labels'}"


def _figure(record: Record, key: str) -> str:
    role = record.handed_over
    figure = estimate(record.test[role].get(key))
    return f"{METRICS[key]} of the {noun(role)} {figure.text()}" if figure else ""


def _errors(confusions: list[Confusion], role: str) -> str:
    """How many answers are wrong, and the commonest confusion."""
    matrix = next((matrix for matrix in confusions if matrix.role == role), None)
    if matrix is None:
        return ""
    counts = np.array(matrix.counts)
    wrong = counts - np.diag(np.diag(counts))
    said = f"{count(int(wrong.sum()))} of {count(int(counts.sum()))} test images wrong"
    if not wrong.any():
        return said
    true, called = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return f"{said}; most often {matrix.classes[true]} taken for {matrix.classes[called]} ({count(int(wrong.max()))})"


def _classes(record: Record) -> str:
    found = sensitivities(record, record.handed_over)
    if not found:
        return ""
    least = min(found, key=lambda name: found[name].value)
    return f"Found least: {least}, sensitivity {found[least].text()}"


def _mistakes(found: list[Mistake]) -> str:
    return (
        f"{counted(len(found), 'picture', 'pictures')}; the surest: {found[0].said} where {found[0].truth} is true"
        if found
        else ""
    )


def _explanation(section: Any) -> str:
    if section is None:
        return ""
    return str(section.reason or section.judgements[0].statement)


def _uncertainty(section: Any) -> str:
    if section is None:
        return ""
    return str((section.sets or section.refusals).statement)


def _thresholds(section: Any) -> str:
    if section is None:
        return ""
    return next(iter((*section.statements, *section.benefits)), "")


def _efficiency(record: Record) -> str:
    found = record.efficiency.get(record.handed_over) or {}
    if not found:
        return ""
    one = (found.get("latency_ms") or {}).get("batch_1") or {}
    speed = f", {fixed(one.get('median'), 1)} ms for one image" if one else ""
    return f"{fixed(found.get('size_mb'), 1)} MB, {count(found.get('parameters'))} parameters{speed}"


def _making(record: Record) -> str:
    seconds = sum((record.manifest.get("durations_s") or {}).values())
    return (
        f"Recipe {record.recipe}" + (f", {duration(seconds)}" if seconds else "") + ": the command, settings, versions"
    )
