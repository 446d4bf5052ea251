"""MODEL_CARD.md: what the network handed over is, what was measured, and what it must not be used for."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from stillroom.evaluation.roles import STUDENT, noun
from stillroom.files.atomic import write_atomically
from stillroom.report import tables
from stillroom.report.calibration import calibration_sentences, temperature_notes
from stillroom.report.citations import citations
from stillroom.report.explanation import judgements, lesion_table, maps_table, without_maps
from stillroom.report.explanation import notes as map_notes
from stillroom.report.external import external_tests
from stillroom.report.numbers import Estimate, count, estimate
from stillroom.report.plan import budget
from stillroom.report.record import Record, load
from stillroom.report.reporting import BY, filled, places
from stillroom.report.reporting import FILE as REPORTING
from stillroom.report.robustness import robustness_table
from stillroom.report.section import sections
from stillroom.report.subgroups import patient_section, subgroup_section
from stillroom.report.taught_by import taught_by
from stillroom.report.templating import environment
from stillroom.report.thresholds import thresholds_section
from stillroom.report.uncertainty import refusal_notes, refusal_table, sets_table
from stillroom.report.wording import (
    audit_warnings,
    claim,
    findings,
    headline,
    labels,
    network,
    notes,
    reading,
)
from stillroom.shown import shown_in_lines


def write_model_card(run: Path) -> Path:
    """Write ``MODEL_CARD.md`` into a run folder, and ``REPORTING.md`` beside it; returns the card's path.

    Raises:
        UsageError: ``run`` is no finished run folder.
        RunError: a file of the run cannot be read.
    """
    record = load(run)
    jinja = environment(md=escape, rows=markdown_table)
    lists = filled(record)
    context = {"name": record.name, "reporting": lists, "places": places(record), "by": BY}
    reporting = shown_in_lines(jinja.get_template("reporting.md.j2").render(context | {"title": headline(record)[0]}))
    write_atomically(run / REPORTING, lambda temporary: temporary.write_text(reporting, encoding="utf-8"))
    text = shown_in_lines(jinja.get_template("model_card.md.j2").render(_context(record) | context))
    target = run / "MODEL_CARD.md"
    write_atomically(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return target


def escape(value: Any) -> str:
    """Text of the data as one line of Markdown that means itself: no markup, HTML or table border."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|#~])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def markdown_table(grid: tables.Grid) -> str:
    """A grid as a Markdown table."""
    rows = [[escape(cell.text() if isinstance(cell, Estimate) else cell) for cell in row] for row in grid.rows]
    head = [escape(column) for column in grid.columns]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _context(record: Record) -> dict[str, Any]:
    title, subtitle = headline(record)
    manifest = record.manifest
    role = record.handed_over
    size = (record.efficiency.get(role) or record.efficiency.get(STUDENT) or {}).get("parameters")
    return {
        "record": record,
        "manifest": record.manifest,
        "audit": record.audit or {},
        "title": title,
        "subtitle": subtitle,
        "instead": "" if role == STUDENT else noun(role),
        "network": network(manifest.get("exported_network") or manifest.get(STUDENT)),
        "side": manifest.get("exported_side") or manifest.get("store", {}).get("size"),
        "teacher": network(record.manifest.get("teacher")),
        "parameters": count(size) if size else None,
        "labels": labels(record),
        "reading": reading(record),
        "control": claim(record)["control"],
        "findings": findings(record),
        "taught_by": taught_by(record),
        "results": tables.results(record),
        "luck": record.luck,
        "kept": tables.kept(record),
        "plan": record.plan and (budget(record.plan) or "Without a limit of time or size."),
        "notes": notes(record),
        "class_counts": tables.class_counts(record),
        "calibration_sentences": calibration_sentences(record),
        "calibration": {key: estimate(value) for key, value in (record.calibration.get(role) or {}).items()},
        "calibration_notes": temperature_notes(record),
        "warnings": audit_warnings(record),
        "patients": patient_section(record),
        "subgroups": [part for key in ("groups", "quality") if (part := subgroup_section(record, key, drawn=False))],
        "maps": _maps(record, record.metrics["explanation"]) if "explanation" in record.metrics else None,
        "conformal": record.metrics.get("conformal"),
        "sets": sets_table(record) if record.metrics.get("conformal") else None,
        "ood": record.metrics.get("ood"),
        "refusals": refusal_table(record.metrics["ood"]) if record.metrics.get("ood") else None,
        "refusal_notes": refusal_notes(record.metrics.get("ood") or {}),
        "thresholds": thresholds_section(record),
        "robustness": record.metrics.get("robustness"),
        "corrupted": robustness_table(record.metrics["robustness"]) if record.metrics.get("robustness") else None,
        "declared": sections(record.metrics),
        "external": external_tests(record),
        "efficiency": tables.efficiency(record),
        "citations": citations(record.recipe),
        "command_path": shlex.quote(record.name),
        "python_path": json.dumps(record.name, ensure_ascii=False),
    }


def _maps(record: Record, found: dict[str, Any] | None) -> dict[str, Any]:
    """What the card says of heat maps; ``reason`` says why there are none."""
    if (reason := without_maps(found)) or found is None:
        return {"reason": reason}
    return {
        "reason": None,
        "judgements": judgements(record),
        "of": noun(record.explained),
        "tables": [
            (heading, table)
            for heading, table in (
                ("Every network asked about its own map and about trivial ones:", maps_table(found)),
                (
                    "Share of the heat, and of the maps' hottest places, that lie on marked regions:",
                    lesion_table(found),
                ),
            )
            if table
        ],
        "notes": map_notes(found),
    }
