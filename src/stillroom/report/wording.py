"""Findings in words, for the page and the model card. Nothing here knows HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillroom.evaluation.calibration import calibration_notes, uninformative
from stillroom.report.finding import Finding, Tone
from stillroom.report.numbers import (
    CHANCE,
    METRICS,
    MISSING,
    count,
    counted,
    estimate,
    finite,
    fixed,
    p_value,
    plain,
    ratio,
    true_minus,
)
from stillroom.report.record import Record, title
from stillroom.report.trust_findings import trust_findings


def network(name: Any) -> str:
    """A network's name out of the manifest; a panel of teachers is joined by ``+``."""
    if isinstance(name, Mapping):
        name = name.get("name") or name.get("model")
    if isinstance(name, list | tuple):
        return " + ".join(network(part) for part in name)
    return str(name) if name else ""


def headline(record: Record) -> tuple[str, str]:
    """The page's title and the line below it: what was distilled from what, on which data."""
    student = network(record.manifest.get("student")) or "Student"
    source = record.manifest.get("data") or record.manifest.get("source") or "unnamed data"
    return (
        student,
        f"{claim(record)['origin']} on {source}",
    )


def claim(record: Record) -> dict[str, str]:
    """What the recipe adds to its control (``adds``), what that is (``control``), and the student's ``origin``."""
    if found := record.manifest.get("claim"):
        return dict(found)
    return {"adds": "", "control": "", "origin": "Trained without a teacher"}


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
    """The verdict, most important first; says where evidence is missing or speaks against the student."""
    found = [_absolute(record), _leaks(record)]
    for other, judge in (("teacher", _against_teacher), ("control", _against_control)):
        finding = judge(record)
        finding = finding and _tempered(finding, record.comparison(other) or {})
        found.append(finding and _sobered(finding, record, other))
    found += [_uninformative(record), *trust_findings(record)]
    found += [_size(record), _speed(record), _export(record)]
    return [finding for finding in found if finding]


def notes(record: Record) -> list[str]:
    """Remarks of the evaluation on its own figures, each once; with the role's name where roles differ."""
    by_role = {role: list(map(str, test.get("notes") or [])) for role, test in record.test.items()}
    found: dict[str, list[str]] = {}
    for role, remarks in by_role.items():
        for remark in remarks:
            found.setdefault(remark, []).append(title(role))
    said = [
        remark if len(roles) == len(by_role) else f"{', '.join(roles)}: {remark}" for remark, roles in found.items()
    ]
    if len(teachers := record.manifest.get("teachers") or []) > 1:
        said.insert(0, f"Teacher is the mean of the {len(teachers)} teachers' logits: {', '.join(map(str, teachers))}.")
    for comparison in filter(None, map(record.comparison, ("teacher", "control"))):
        said += map(str, comparison.get("notes") or [])
    return list(dict.fromkeys(said))


def temperature_notes(record: Record) -> list[str]:
    """What to mind about the temperatures, each with its role's name."""
    return [
        f"{title(role)}: {remark}"
        for role, values in record.calibration.items()
        for remark in calibration_notes(values)
    ]


def audit_warnings(record: Record) -> list[dict[str, str]]:
    """The audit's remarks, warnings before notes, each with ``level``, ``code`` and ``text``."""
    remarks = (record.audit or {}).get("warnings") or []
    return sorted(remarks, key=lambda remark: remark.get("level") != "warning")


def audit_total(audit: Mapping[str, Any], key: str) -> int:
    """Full length of one of the audit's lists, which the file may have cut."""
    return int((audit.get("totals") or {}).get(key, len(audit.get(key) or ())))


def _evidence(comparison: Mapping[str, Any], other: str) -> str:
    statement = true_minus(str(comparison.get("statement") or "").strip())
    figure = estimate(comparison.get("difference"))
    if not statement and figure:
        metric = METRICS.get(str(comparison.get("metric")), str(comparison.get("metric") or "figure"))
        statement = f"{metric}, student − {other}: {figure.text(signed=True)}."
    tests = [f"paired bootstrap {p_value(comparison['p_value'])}"] if finite(comparison.get("p_value")) else []
    if accuracy := estimate(comparison.get("accuracy_difference")):
        tests.append(f"accuracy {accuracy.text(signed=True)}")
    if finite(comparison.get("mcnemar_p")):
        tests.append(f"McNemar {p_value(comparison['mcnemar_p'])}")
    details = "; ".join(tests)
    return f"{statement} {details[:1].upper()}{details[1:]}." if details else statement


def _tempered(finding: Finding, comparison: Mapping[str, Any]) -> Finding:
    """The claim rests on the selection metric: where accuracy speaks against it, the headline says so."""
    accuracy = estimate(comparison.get("accuracy_difference"))
    if finding.tone == "bad" or accuracy is None or accuracy.high is None or accuracy.high >= 0:
        return finding
    tone: Tone = "neutral" if finding.tone == "good" else "bad"
    return Finding(tone, f"{finding.headline} But the student's accuracy is lower.", finding.evidence)


def _sobered(finding: Finding, record: Record, other: str) -> Finding:
    """No praise for a comparison that guessing would pass: with the teacher, or of a student that only guesses."""
    guessing = [role for role in ("student", "teacher") if _at_chance(record, role)]
    if finding.tone != "good" or not guessing or (other == "control" and "student" not in guessing):
        return finding
    if other == "control":
        guessing = ["student"]
    who = f"the {guessing[0]} is not" if len(guessing) == 1 else "neither is"
    return Finding("neutral", f"{finding.headline} But {who} shown to be better than guessing.", finding.evidence)


def _at_chance(record: Record, role: str) -> bool:
    """Whether the role's selection metric could be that of guessing, or is even below."""
    metric = record.task.selection_metric
    figure = estimate(record.test.get(role, {}).get(metric))
    return figure is not None and figure.ends[0] <= CHANCE[metric]


def _absolute(record: Record) -> Finding:
    metric = record.task.selection_metric
    figure = estimate(record.test["student"].get(metric))
    if figure is None:
        text = f"{METRICS[metric]} is not defined on these test images."
        return Finding("bad", "Whether the student is better than guessing is not known.", text)
    evidence = f"{METRICS[metric]} on the test images {figure.text()}; guessing scores {plain(CHANCE[metric])}."
    if _at_chance(record, "student"):
        return Finding("bad", "The student is not shown to be better than guessing.", evidence)
    if figure.low is None:
        return Finding("neutral", "Whether the student is better than guessing is open: no interval.", evidence)
    return Finding("neutral", "The student is better than guessing.", evidence)


def _uninformative(record: Record) -> Finding | None:
    roles = [role for role, values in record.calibration.items() if uninformative(values.get("temperature"))]
    if not roles:
        return None
    text = f"The outputs of the {' and the '.join(roles)} carry no usable information on validation."
    return Finding("bad", text, "The fitted temperature is at its upper bound: the flatter the better.")


def _against_teacher(record: Record) -> Finding | None:
    comparison = record.comparison("teacher")
    if comparison is None:
        if "teacher" not in record.test:
            return None
        return Finding("neutral", "Student and teacher were not compared.", "This run holds no paired comparison.")
    evidence, margin = _evidence(comparison, "teacher"), comparison.get("margin")
    difference = estimate(comparison.get("difference"))
    if difference is None or difference.low is None or difference.high is None:
        return Finding("neutral", "Whether the student is as good as its teacher is not known.", evidence)
    if comparison.get("superior"):
        return Finding("good", "The student does better than its teacher.", evidence)
    if comparison.get("non_inferior") and difference.high < 0:
        text = f"The student is a little worse than its teacher, by less than the margin of {plain(margin)}."
        return Finding("good", text, evidence)
    if comparison.get("non_inferior"):
        text = f"The student is as good as its teacher, to within the margin of {plain(margin)}."
        return Finding("good", text, evidence)
    if finite(margin) and difference.high < -margin:
        text = f"The student is worse than its teacher by more than the margin of {plain(margin)}."
        return Finding("bad", text, evidence)
    if difference.high < 0:
        text = "The student is worse than its teacher; whether by more than the margin is open."
        return Finding("bad", text, evidence)
    text = f"The student is not shown to be as good as its teacher, to within the margin of {plain(margin)}."
    return Finding("neutral", text, evidence)


def _against_control(record: Record) -> Finding | None:
    adds, control = claim(record)["adds"], claim(record)["control"]
    if not adds:
        return Finding("neutral", "This run had no teacher.", "The student learned from the labels alone.")
    comparison = record.comparison("control")
    if comparison is None:
        return Finding("neutral", f"Whether {adds} helped is not known.", f"No control was trained: {control}.")
    difference = estimate(comparison.get("difference"))
    evidence = f"{_evidence(comparison, 'control')} The control is {control}. "
    evidence += "One training run each: the interval covers the test images, not the luck of training."
    if difference is None or difference.low is None or difference.high is None:
        return Finding("neutral", f"Whether {adds} helped is not known.", evidence)
    subject = adds[:1].upper() + adds[1:]
    if difference.low > 0:
        return Finding("good", f"{subject} helped.", evidence)
    if difference.high < 0:
        return Finding("bad", f"{subject} did harm: the control is better.", evidence)
    return Finding("neutral", f"{subject} did not measurably help.", evidence)


def _size(record: Record) -> Finding | None:
    student, teacher = record.efficiency.get("student", {}), record.efficiency.get("teacher", {})
    parts = []
    for key, words in (("parameters", "parameters"), ("macs", "multiply-adds")):
        if fewer := ratio(teacher.get(key), student.get(key)):
            more = ratio(student[key], teacher[key])
            parts.append(f"{fewer} fewer {words}" if teacher[key] >= student[key] else f"{more} more {words}")
    if not parts:
        return None
    smaller = all("fewer" in part for part in parts)
    evidence = f"{count(student.get('parameters'))} parameters; {fixed(student.get('size_mb'), 1)} MB against "
    evidence += f"{fixed(teacher.get('size_mb'), 1)} MB."
    return Finding("good" if smaller else "neutral", f"Size: {', '.join(parts)} than the teacher.", evidence)


def _speed(record: Record) -> Finding | None:
    student, teacher = (_one_image_ms(record.efficiency.get(role, {})) for role in ("student", "teacher"))
    faster = ratio(teacher, student)
    if faster is None or student is None or teacher is None:
        return None
    details = record.efficiency["student"]
    where = f" on {details['machine']}" if details.get("machine") else ""
    threads = f", {counted(details['threads'], 'thread', 'threads')}" if details.get("threads") else ""
    evidence = f"{fixed(student, 1)} ms against {fixed(teacher, 1)} ms for one image{where}{threads}."
    if teacher >= student:
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
