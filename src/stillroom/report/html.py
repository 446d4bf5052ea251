"""report.html: one file that opens offline, made from the run folder alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.evaluation.roles import MAJORITY, SIMPLEST, STUDENT, TEACHER, noun
from stillroom.files.atomic import write_atomically
from stillroom.report import curves, figures, first_screen, tables
from stillroom.report.calibration import calibration_sentences, calibration_table, temperature_notes
from stillroom.report.citations import citations
from stillroom.report.explanation import explanation_section
from stillroom.report.gallery import mistakes
from stillroom.report.gists import gists
from stillroom.report.learning import learners, learning_notes
from stillroom.report.luck import luck_section
from stillroom.report.plan import plan_section
from stillroom.report.record import Record, load
from stillroom.report.reporting import filled
from stillroom.report.robustness import robustness_section
from stillroom.report.section import sections
from stillroom.report.style import MARKERS, colour_name, glyph
from stillroom.report.subgroups import patient_section, subgroup_section
from stillroom.report.taught_by import taught_by
from stillroom.report.templating import TEMPLATES, environment, scripted
from stillroom.report.terms import terms
from stillroom.report.thresholds import thresholds_section
from stillroom.report.uncertainty import uncertainty_section
from stillroom.report.wording import (
    audit_warnings,
    claim,
    findings,
    headline,
    labels,
    notes,
    reading,
)
from stillroom.shown import shown_in_lines

LISTED = 200
NO_AUDIT: dict[str, Any] = {
    **dict.fromkeys(("source", "images")),
    **dict.fromkeys(
        (
            "cross_split_duplicates",
            "label_conflicts",
            "patients_on_two_sides",
            "quarantined",
            "small_classes",
            "missing_classes",
        ),
        (),
    ),
}


@dataclass(frozen=True)
class Panel:
    """A drawing with its heading."""

    heading: str
    svg: str


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    Reads only files of the run folder. Optional ones that are missing leave their section out or say so.

    Raises:
        UsageError: ``run`` is no finished run folder.
        RunError: a file of the run cannot be read.
    """
    record = load(run)
    page = shown_in_lines(environment().get_template("report.html.j2").render(_context(record)))
    target = run / "report.html"
    write_atomically(target, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return target


def _context(record: Record) -> dict[str, Any]:
    title, subtitle = headline(record)
    roles = list(record.test)
    maps, classes = figures.features(record)
    kept, declared = tables.kept(record), sections(record.metrics)
    thresholds = thresholds_section(record)
    compared = [role for role in roles if role in {STUDENT, TEACHER, record.handed_over}]
    parted = [part for key in ("groups", "quality") if (part := subgroup_section(record, key))]
    found = findings(record)
    audit = NO_AUDIT | (record.audit or {})
    parts: dict[str, Any] = {
        "css": (TEMPLATES / "style.css").read_text(encoding="utf-8"),
        **scripted("report.js"),
        "record": record,
        "manifest": record.manifest,
        "audit": audit,
        "title": title,
        "subtitle": subtitle,
        "instead": "" if record.handed_over == STUDENT else noun(record.handed_over),
        "drawn": _legend(role for role in roles if role != MAJORITY),
        "trained": _legend(role for role in roles if role not in SIMPLEST),
        "labels": labels(record),
        "reading": reading(record),
        "control": claim(record)["control"],
        "findings": found,
        "answers": first_screen.answers(record, found),
        "warnings": audit_warnings(record),
        "listed": LISTED,
        "pairs": {key: tables.pairs(audit[key][:LISTED]) for key in ("cross_split_duplicates", "label_conflicts")},
        "quarantined": tables.quarantined(audit["quarantined"][:LISTED]),
        "class_counts": tables.class_counts(record),
        "taught_by": taught_by(record),
        "results": tables.results(record),
        "notes": notes(record),
        "forest": [svg for svg in (figures.forest(record, False), figures.forest(record, True)) if svg],
        "differences": figures.differences(record),
        "learning": _panels(curves.learning_curves(record)),
        "learnt": _legend(role for role in learners(record) if role in MARKERS),
        "learning_notes": learning_notes(record),
        "roc": _panels(curves.roc_and_pr(record)),
        "roc_classes": _panels(curves.roc_per_class(record)),
        "max_small_panels": curves.MAX_SMALL_PANELS,
        "confusions": [matrix for role in compared if (matrix := tables.confusion(record, role))],
        "decisions": [(role, table) for role in compared if (table := tables.decisions(record, role))],
        "calibration": calibration_table(record),
        "calibration_sentences": calibration_sentences(record),
        "calibration_notes": temperature_notes(record),
        "reliability": _panels(figures.reliability(record)),
        "per_class": tables.per_class(record),
        "patients": patient_section(record),
        "subgroups": parted,
        "subgroup_contents": [(part.key, part.title, True) for part in parted],
        "maps": [Panel(*pair) for pair in maps],
        "map_classes": classes,
        "mistakes": mistakes(record),
        "luck": luck_section(record),
        "kept": kept and {"sentence": kept[0], "table": kept[1]},
        "plan": plan_section(record),
        "explanation": explanation_section(record),
        "uncertainty": uncertainty_section(record),
        "robustness": robustness_section(record),
        "thresholds": thresholds,
        "benefits": _panels(thresholds.curves if thresholds else ()),
        "thresholds_drawn": _legend(thresholds.roles if thresholds else ()),
        "declared": declared,
        "declared_contents": [(section.key, section.title, True) for section in declared],
        "efficiency": tables.efficiency(record),
        "size": figures.size_and_figure(record),
        "durations": tables.durations(record),
        "settings": tables.facts(record.settings),
        "versions": tables.facts(record.manifest.get("versions")),
        "machine": tables.facts(record.manifest.get("machine")),
        "store": tables.facts(record.manifest.get("store")),
        "command": f"stillroom distill --settings {shlex.quote(f'{record.name}/settings.yaml')}",
        "recipe": record.recipe,
        "reporting": filled(record),
        "citations": citations(record.recipe),
    }
    return parts | {"terms": terms(record, parts), "gists": gists(record, parts)}


def _legend(roles: Iterable[str]) -> list[tuple[str, str, str]]:
    """Name, colour (a CSS variable's name) and glyph of each role."""
    return [(noun(role), colour_name(role), glyph(role)) for role in roles]


def _panels(pairs: Any) -> list[Panel]:
    return [Panel(heading, svg) for heading, svg in pairs]
