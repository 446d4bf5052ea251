"""Which epoch of a training was handed over, and by what it was chosen."""

from __future__ import annotations

from stillroom.evaluation.roles import CONTROL, STUDENT, TEACHER, noun
from stillroom.report.numbers import METRICS
from stillroom.report.record import Record, in_order
from stillroom.shown import counted


def learners(record: Record) -> list[str]:
    """The roles of which there is a curve, student first."""
    return in_order(dict.fromkeys(str(entry.get("role")) for entry in record.history))


def likeliest_epoch(record: Record, role: str) -> int | None:
    """The epoch after which validation was likeliest; None where validation was not asked."""
    found = [int(entry["epoch"]) for entry in record.history if entry.get("role") == role and entry.get("best")]
    return found[-1] if found else None


def kept_epoch(record: Record, role: str) -> int | None:
    """The epoch whose weights were handed over. A log of before it was written down has the likeliest one alone."""
    noted = [int(entry["kept"]) for entry in record.history if entry.get("role") == role and entry.get("kept")]
    return noted[-1] if noted else likeliest_epoch(record, role)


def learning_gist(record: Record) -> str:
    """In one line; empty where no epoch of the student was logged."""
    epochs, kept = [entry for entry in record.history if entry.get("role") == STUDENT], kept_epoch(record, STUDENT)
    if not epochs:
        return ""
    return counted(len(epochs), "epoch", "epochs") + (f"; the student of epoch {kept} was kept" if kept else "")


def learning_notes(record: Record) -> list[str]:
    """What to know of the curves, in sentences: which epoch was kept and why, and what does not compare."""
    said = []
    kept = {role: epoch for role in learners(record) if (epoch := kept_epoch(record, role))}
    if kept and any(entry.get("val") for entry in record.history):
        metric = METRICS[record.task.selection_metric]
        said.append(
            "The mark on a validation curve is the epoch that was kept: the last one, unless an earlier one had a clearly "
            f"lower log loss on validation. {metric}, which is drawn, does not choose it, so that it may be higher elsewhere."
        )
        said += [_of(role, epoch, likeliest_epoch(record, role)) for role, epoch in kept.items()]
    known = [noun(role) for role in learners(record) if role in (STUDENT, CONTROL, TEACHER)]
    if len(known) > 1:
        named = f"{', '.join(known[:-1])} and {known[-1]}"
        said.append(f"Losses of {named} add up different terms and do not compare with each other.")
    return said


def _of(role: str, kept: int, likeliest: int | None) -> str:
    who = noun(role).replace("_", " ")
    if likeliest is None or likeliest == kept:
        return f"Of the {who} epoch {kept} was kept: its log loss was the lowest." if likeliest else ""
    return (
        f"Of the {who} epoch {kept} was kept: epoch {likeliest} had the lowest log loss, but not clearly lower than "
        f"that of the last."
    )
