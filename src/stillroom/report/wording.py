"""Findings in words, for the page and the model card. Nothing here knows HTML or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from stillroom.evaluation.calibration import uninformative
from stillroom.evaluation.roles import MAJORITY, STUDENT, TEACHER, noun
from stillroom.report.doubts import doubts
from stillroom.report.finding import Finding
from stillroom.report.numbers import MISSING, count, finite, fixed, plain, ratio
from stillroom.report.record import Record, title
from stillroom.report.rivals import beaten, instead
from stillroom.report.taught_by import licence_finding
from stillroom.report.trust_findings import trust_findings
from stillroom.report.verdict import absolute, against_control, against_teacher, claim
from stillroom.settings.network_names import shown
from stillroom.shown import counted


def network(name: Any) -> str:
    """A network's name out of the manifest; a panel of teachers is joined by ``+``."""
    if isinstance(name, Mapping):
        name = name.get("name") or name.get("model")
    if isinstance(name, list | tuple):
        return " + ".join(network(part) for part in name)
    return shown(str(name)) if name else ""


def headline(record: Record) -> tuple[str, str]:
    """The page's title, the network that is handed over, and the line below it: what that is, of which data."""
    manifest, role = record.manifest, record.handed_over
    student = network(manifest.get("student")) or "Student"
    source = manifest.get("data") or manifest.get("source") or "unnamed data"
    if role == STUDENT:
        return student, f"{claim(record)['origin']} on {source}"
    title = network(manifest.get("exported_network")) or noun(role).capitalize()
    return title, f"The {noun(role)}, handed over instead of the student {student}, on {source}"


def labels(record: Record) -> str:
    """How many labels were used and what was learnt without any, where that is not the whole training split."""
    read, training = record.manifest.get("labels_read"), record.manifest.get("training_images")
    more = record.manifest.get("unlabelled") or {}
    said = []
    if read and training and read < training:
        said.append(f"The labels of {count(read)} of the {count(training)} training images were used.")
    if more:
        said.append(f"{count(more['images'])} images without labels were learnt from too.")
        if left_out := len(more.get("left_out_because_held_out") or ()):
            said.append(f"{count(left_out)} more were left out, because validation or test show them again.")
    return " ".join(said)


def reading(record: Record) -> str:
    """What the one-against-rest figures are of: the positive class, or a mean over classes."""
    if positive := record.task.positive_class:
        return f"positive class: {positive}"
    classes = "classes" if record.task.exclusive else "labels"
    return f"sensitivity, specificity, precision and F1 are means over {classes}"


def findings(record: Record) -> list[Finding]:
    """The verdict, most important first; says where evidence is missing or speaks against the student.

    What to use instead comes before everything, then what the network handed over is worth, what the student is, and why that
    may not hold.
    """
    role = record.handed_over
    found: list[Finding | None] = [*_of(STUDENT, record, instead(record))]
    found += [absolute(record, role)] if role != STUDENT else []
    found += [*_of(STUDENT, record, [absolute(record)]), *doubts(record), _leaks(record)]
    found += _of(STUDENT, record, [against_teacher(record), against_control(record), beaten(record)])
    found += [_uninformative(record), *trust_findings(record)]
    measured = role if role != TEACHER and role in record.efficiency else STUDENT
    found += _of(measured, record, [_size(record, measured), _speed(record, measured)])
    found += [_export(record), licence_finding(record)]
    return [finding for finding in found if finding]


def _of(role: str, record: Record, found: Iterable[Finding | None]) -> list[Finding]:
    """The findings there are, put aside where they tell of a network that is not handed over."""
    return [replace(finding, aside=role != record.handed_over) for finding in found if finding]


def notes(record: Record) -> list[str]:
    """Remarks of the evaluation on its own figures, each once; with the role's name where roles differ."""
    tests = {
        role: test for role, test in record.test.items() if role != MAJORITY
    }  # always the same answer needs no remark
    by_role = {role: list(map(str, test.get("notes") or [])) for role, test in tests.items()}
    found: dict[str, list[str]] = {}
    for role, remarks in by_role.items():
        for remark in remarks:
            found.setdefault(remark, []).append(title(role))
    said = [
        remark if len(roles) == len(by_role) else f"{', '.join(roles)}: {remark}" for remark, roles in found.items()
    ]
    if len(teachers := record.manifest.get("teachers") or []) > 1:
        said.insert(0, f"Teacher is the mean of the {len(teachers)} teachers' logits: {', '.join(map(str, teachers))}.")
    sides = record.manifest.get("sides") or {}
    if others := sorted({int(side) for side in sides.get("teachers", [])} - {int(sides.get("student", 0))}):
        seen = " and ".join(f"{side} px" for side in others)
        said.insert(
            0, f"Each network sees the images at its own side: the teacher {seen}, the student {sides['student']} px."
        )
    return list(dict.fromkeys(said))


def audit_warnings(record: Record) -> list[dict[str, str]]:
    """The audit's remarks, warnings before notes, each with ``level``, ``code`` and ``text``."""
    remarks = (record.audit or {}).get("warnings") or []
    return sorted(remarks, key=lambda remark: remark.get("level") != "warning")


def audit_total(audit: Mapping[str, Any], key: str) -> int:
    """Full length of one of the audit's lists, which the file may have cut."""
    return int((audit.get("totals") or {}).get(key, len(audit.get(key) or ())))


def _uninformative(record: Record) -> Finding | None:
    roles = [role for role, values in record.calibration.items() if uninformative(values.get("temperature"))]
    if not roles:
        return None
    text = f"The outputs of the {' and the '.join(map(noun, roles))} carry no usable information on validation."
    return Finding("bad", text, "The fitted temperature is at its upper bound: the flatter the better.")


def _size(record: Record, role: str) -> Finding | None:
    own, teacher = record.efficiency.get(role, {}), record.efficiency.get(TEACHER, {})
    parts = []
    for key, words in (("parameters", "parameters"), ("macs", "multiply-adds")):
        if fewer := ratio(teacher.get(key), own.get(key)):
            more = ratio(own[key], teacher[key])
            parts.append(f"{fewer} fewer {words}" if teacher[key] >= own[key] else f"{more} more {words}")
    if not parts:
        return None
    smaller = all("fewer" in part for part in parts)
    evidence = f"{count(own.get('parameters'))} parameters; {fixed(own.get('size_mb'), 1)} MB against "
    evidence += f"{fixed(teacher.get('size_mb'), 1)} MB."
    return Finding("good" if smaller else "neutral", f"Size: {', '.join(parts)} than the teacher.", evidence)


def _speed(record: Record, role: str) -> Finding | None:
    own, teacher = (_one_image_ms(record.efficiency.get(name, {})) for name in (role, TEACHER))
    faster = ratio(teacher, own)
    if faster is None or own is None or teacher is None:
        return None
    details = record.efficiency[role]
    where = f" on {details['machine']}" if details.get("machine") else ""
    threads = f", {counted(details['threads'], 'thread', 'threads')}" if details.get("threads") else ""
    evidence = f"{fixed(own, 1)} ms against {fixed(teacher, 1)} ms for one image{where}{threads}."
    if teacher >= own:
        return Finding("good", f"Speed: {faster} as fast as the teacher.", evidence)
    return Finding("neutral", "Speed: slower than the teacher.", evidence)


def _one_image_ms(network: Mapping[str, Any]) -> float | None:
    return ((network.get("latency_ms") or {}).get("batch_1") or {}).get("median")


def _export(record: Record) -> Finding | None:
    export = record.metrics.get("export") or {}
    if export.get("passed") is None:
        return None
    worst = export.get("max_probability_difference")
    evidence = f"Largest difference in probability over {plain(export.get('images'))} images: "
    evidence += f"{worst:.2g}" if finite(worst) else MISSING
    evidence += f" (tolerance {plain(export.get('tolerance'))})."
    if export["passed"]:
        return Finding("good", "The exported ONNX file answers as the trained network does.", evidence)
    return Finding("bad", "The exported ONNX file does not answer as the trained network does.", evidence)


def _leaks(record: Record) -> Finding | None:
    audit = record.audit
    if audit is None:
        return Finding("neutral", "The data were not audited.", "This run holds no audit.json.")
    images = ((audit.get("leaked") or {}).get("test") or {}).get("images")
    if images is None:
        pairs = audit.get("cross_split_duplicates") or []
        images = sum("test" in (pair.get("first_split"), pair.get("second_split")) for pair in pairs)
    patients = audit_total(audit, "patients_on_two_sides")
    leaks = (
        [f"{counted(images, 'test image stands', 'test images stand')} in another split too, the same or nearly so"]
        if images
        else []
    )
    leaks += [f"{counted(patients, 'patient is', 'patients are')} on more than one side"] if patients else []
    if not leaks:
        return None
    text = "The test figures may flatter every network here. The audit names the images and patients."
    return Finding("bad", f"The splits leak: {' and '.join(leaks)}.", text)
