"""May I use it? Three lines: how good the network handed over is, how sure that is, and what it is not for."""

from __future__ import annotations

from stillroom.evaluation.roles import STUDENT, noun
from stillroom.report.external import external_tests
from stillroom.report.finding import Finding
from stillroom.report.numbers import METRICS, Estimate, count, estimate, finite
from stillroom.report.record import Record, sensitivities
from stillroom.shown import counted

_NAMED = 5
"""Most classes of which the first screen gives each one's sensitivity; of more, the least found."""


def answers(record: Record, found: list[Finding]) -> list[tuple[str, str]]:
    """Three pairs of question and answer; ``found`` is the whole verdict."""
    return [
        ("How good", _how_good(record)),
        ("How sure", _how_sure(record)),
        ("What not", _what_not(record, found)),
    ]


def _how_good(record: Record) -> str:
    role, metric = record.handed_over, METRICS[record.task.selection_metric]
    figure = record.chosen(role)
    said = [
        f"{metric} {figure.text()} on the test images." if figure else f"{metric} is not defined on the test images."
    ]
    if role != STUDENT:
        why = str((record.metrics.get("kept") or {}).get("why") or "").strip()
        said[0] = " ".join(filter(None, (f"Handed over: the {noun(role)}, not the student.", why, said[0])))
    if positive := record.task.positive_class:
        of = record.test[role]
        both = [
            f"{name} {found.text()}" for name in ("sensitivity", "specificity") if (found := estimate(of.get(name)))
        ]
        if both:
            said.append(f"For {positive}: {', '.join(both)}.")
        return " ".join(said)
    classes = sorted(sensitivities(record, role).items(), key=lambda pair: pair[1].value)
    if not classes:
        return " ".join(said)
    named = ", ".join(f"{name} {found.text()}" for name, found in classes[:_NAMED])
    rest = f"; the other {len(classes) - _NAMED} more often" if len(classes) > _NAMED else ""
    return f"{said[0]} Sensitivity by {'class' if record.task.exclusive else 'label'}, least first: {named}{rest}."


def _how_sure(record: Record) -> str:
    test = record.test[record.handed_over]
    on = counted(int(test["images"]), "test image", "test images") if finite(test.get("images")) else "the test images"
    if finite(test.get("patients")):
        on += f" of {counted(int(test['patients']), 'patient', 'patients')}"
    if record.luck:
        trainings = "trainings" if record.luck["kind"] == "repeats" else "cuts of the data"
        luck = f"comparisons hold the luck of {count(record.luck['count'])} {trainings}"
    else:
        luck = "one training, the luck of which no interval holds"
    said = f"In brackets: 95 % intervals from {on}; {luck}."
    if widest := _widest(record):
        name, found = widest
        said += f" Least is known of {name}: its sensitivity may be {found.ends[0]:.2f} or {found.ends[1]:.2f}."
    if error := estimate(test.get("calibration_error")):
        said += f" Calibration error, how far stated probabilities are off: {error.text()}."
    return said


def _what_not(record: Record, found: list[Finding]) -> str:
    said = ["Not for real patients: the images are synthetic."] if record.synthetic else []
    against = [finding.headline for finding in found if finding.tone == "bad" and not finding.aside]
    if against:
        speak = counted(len(against), "thing speaks", "things speak")
        first = " The first two:" if len(against) > 2 else ""
        said.append(f"Not yet: {speak} against it, marked ! below.{first} {' '.join(against[:2])}")
    if tested := external_tests(record):
        said.append(f"Not on images unlike those here and in {'; '.join(test.source for test in tested[:2])}.")
    else:
        said.append("Not on another site's or device's images: none were tested.")
    return " ".join([*said, "Not as a medical device."])


def _widest(record: Record) -> tuple[str, Estimate] | None:
    """The class whose sensitivity has the widest interval; None of a single one, which is the whole."""
    found = {
        name: figure for name, figure in sensitivities(record, record.handed_over).items() if figure.low is not None
    }
    if len(found) < 2:
        return None
    return max(found.items(), key=lambda pair: pair[1].ends[1] - pair[1].ends[0])
