"""What is simpler than the student: does any of it do better? Then the verdict says to use that, before all else."""

from __future__ import annotations

from stillroom.evaluation.roles import CONTROL, MAJORITY, PROBE_OF_TEACHER, RIVALS, STUDENT, TEACHER, noun
from stillroom.report.finding import Finding
from stillroom.report.numbers import METRICS, MISSING, estimate, fixed, true_minus
from stillroom.report.record import Record


def instead(record: Record) -> list[Finding]:
    """What to use instead of the student, and whether validation would have had another kept; often nothing."""
    ahead = [rival for rival in rivals(record) if wins(record, rival)]
    winners = sorted(ahead, key=lambda rival: _rank(record, rival))
    kept = record.handed_over
    found = []
    if winners:
        found.append(_use(record, winners[0], winners[1:]))
    if kept not in (STUDENT, *winners[:1]):
        why = str((record.metrics.get("kept") or {}).get("why") or "").strip()
        found.append(Finding("neutral", f"This run hands over the {noun(kept)}, not the student.", why))
    elif kept == STUDENT and CONTROL not in winners and _better_on_validation(record, CONTROL):
        evidence = f"{_metric(record)} {_seen(record, CONTROL)} against {_seen(record, STUDENT)}. "
        evidence += "--keep best hands over what is best there."
        found.append(Finding("neutral", "On validation the control is better than the student.", evidence))
    return found


def beaten(record: Record) -> Finding | None:
    """One line on the rivals where none of them wins; None where one does, or none was measured."""
    measured = [rival for rival in rivals(record) if rival != CONTROL]
    if not measured or any(wins(record, rival) for rival in rivals(record)):
        return None
    by = []
    for rival in measured:
        comparison = record.comparison(rival) or {}
        difference, accuracy = (estimate(comparison.get(key)) for key in ("difference", "accuracy_difference"))
        if difference and accuracy:
            gain = f"{_metric(record)} {difference.text(signed=True)}, accuracy {accuracy.text(signed=True)}"
            by.append((difference.ends[0] > 0, f"Student − {_long(record, rival)}: {gain}."))
    if not by:
        return None
    text = "Nothing simpler is shown to be better than the student."
    if all(clear for clear, _ in by):
        text = "The student beats what is simpler."
    if larger := [rival for rival in rivals(record) if _ahead(record, rival)]:
        names = " and the ".join(_long(record, rival) for rival in larger)
        text = f"The {names} is better, but larger; nothing simpler of the student's size is."
    return Finding("neutral", text, " ".join(said for _, said in by))


def rivals(record: Record) -> list[str]:
    """The simpler things that were measured. A frozen teacher with a linear head is its own linear probe.

    A table of answers is no rival: it has none to a new image.
    """
    teacher = record.settings.get("teacher") or {}
    frozen = teacher.get("teacher_mode") == "frozen" and not teacher.get("teacher_answers")
    asked = RIVALS if PROBE_OF_TEACHER in record.test or not frozen else (*RIVALS, TEACHER)
    return [role for role in asked if role in record.test and record.comparison(role)]


def wins(record: Record, rival: str) -> bool:
    """Whether a rival should be used instead of the student.

    It should where the interval of the difference excludes zero in its favour, or where it is ahead on validation and on
    test. One that is larger than the student wins only where the student is not shown to be as good within the margin, and
    never where it is larger than ``--max-mb``. Always giving the same answer is no rival to be used: see the verdict.
    """
    ours, theirs = size(record, STUDENT), size(record, rival)
    if ours is not None and theirs is not None and theirs > ours:
        most = (record.settings.get("evaluation") or {}).get("max_mb")
        if (most is not None and theirs > most) or (record.comparison(rival) or {}).get("non_inferior"):
            return False
    return _ahead(record, rival)


def _ahead(record: Record, rival: str) -> bool:
    """Whether a rival is better beyond the interval, or on validation and on test, whatever its size."""
    comparison = record.comparison(rival) or {}
    difference, accuracy = (estimate(comparison.get(key)) for key in ("difference", "accuracy_difference"))
    if difference is None or rival == MAJORITY:
        return False
    clear = difference.high is not None and difference.high < 0
    decides = accuracy is not None and accuracy.high is not None and accuracy.high < 0 and difference.value <= 0
    return clear or decides or (difference.value < 0 and _better_on_validation(record, rival))


def size(record: Record, role: str) -> float | None:
    """MB of a role's parameters: of the control and the probe of the student's start those of the student."""
    for candidate in (record.metrics.get("kept") or {}).get("candidates") or ():
        if candidate.get("role") == role and candidate.get("mb") is not None:
            return float(candidate["mb"])
    twin = TEACHER if role in (TEACHER, PROBE_OF_TEACHER) else STUDENT
    found = (record.efficiency.get(twin) or {}).get("size_mb")
    return None if found is None else float(found)


def _use(record: Record, rival: str, others: list[str]) -> Finding:
    comparison = record.comparison(rival) or {}
    ours, theirs = record.chosen(STUDENT), record.chosen(rival)
    small, large = size(record, STUDENT), size(record, rival)
    but = ""
    if small is not None and large is not None and large > small:
        but = f", unless {fixed(large, 1)} MB instead of {fixed(small, 1)} are too many"
    handed = record.handed_over == rival
    text = f"{'This run hands over' if handed else 'Use'} the {_long(record, rival)} instead{'' if handed else but}"
    if ours and theirs:
        text += f": {_metric(record)} {fixed(theirs.value)} against the student's {fixed(ours.value)}"
    evidence = f"On the test images: {true_minus(str(comparison.get('statement') or ''))}"
    if accuracy := estimate(comparison.get("accuracy_difference")):
        evidence += f" Accuracy, student − {noun(rival)}: {accuracy.text(signed=True)}."
    if record.chosen(rival, "validation"):
        evidence += f" On validation: {_seen(record, rival)} against the student's {_seen(record, STUDENT)}."
    if others:
        evidence += f" Ahead of the student as well: {', '.join(noun(role) for role in others)}."
    if not handed and not record.metrics.get("kept"):
        evidence += " --keep best hands over what is best on validation."
    return Finding("bad", f"{text}.", evidence)


def _long(record: Record, rival: str) -> str:
    """What to use, in words that need no explanation."""
    if rival == TEACHER:
        modes = {entry.get("mode") for entry in record.manifest.get("taught_by") or []}
        return "teacher as it came" if modes == {"as_is"} else "frozen teacher with its linear head"
    return "control (the same network, plainly trained)" if rival == CONTROL else noun(rival)


def _metric(record: Record) -> str:
    return METRICS[record.task.selection_metric]


def _seen(record: Record, role: str) -> str:
    """The selection metric on validation, in words."""
    found = record.chosen(role, "validation")
    return MISSING if found is None else fixed(found.value)


def _better_on_validation(record: Record, rival: str) -> bool:
    ours, theirs = record.chosen(STUDENT, "validation"), record.chosen(rival, "validation")
    return ours is not None and theirs is not None and theirs.value > ours.value


def _rank(record: Record, rival: str) -> tuple[float, float]:
    """Best on validation first; test decides between equals."""
    seen, tested = record.chosen(rival, "validation"), record.chosen(rival)
    return (-seen.value if seen else 0.0, -tested.value if tested else 0.0)
