"""Findings on whether what is handed over may be trusted: its heat maps, its sets, its refusals, and corrupted images."""

from __future__ import annotations

from typing import Any

from stillroom.evaluation.roles import STUDENT, noun
from stillroom.report.explanation import judgements, without_maps
from stillroom.report.finding import Finding, Tone
from stillroom.report.numbers import estimate, fixed
from stillroom.report.record import Record, in_order
from stillroom.report.uncertainty import MADE_UP

_NAMED = 3


def trust_findings(record: Record) -> list[Finding]:
    """One each on maps, coverage, refusals and corruptions, as far as the run measured them."""
    metrics = record.metrics
    found = []
    if metrics.get("explanation") and not without_maps(metrics["explanation"]):
        found.append(_maps(record))
    if metrics.get("conformal"):
        found.append(_coverage(record, metrics["conformal"]))
    if metrics.get("ood"):
        found.append(_refusals(metrics["ood"]))
    if metrics.get("robustness"):
        found.append(_robustness(record, metrics["robustness"]))
    return found


def _maps(record: Record) -> Finding:
    """Of the maps of the network explained: what is handed over, unless the run explained others alone."""
    judged, aside = judgements(record)[0], record.explained != record.handed_over
    whose = f"the {noun(judged.role)}'s maps"
    if not judged.faithful:
        text = f"T{whose[1:]} are not faithful: do not show them as reasons."
        if judged.tone == "neutral":
            text = f"Whether {whose} are faithful is {judged.verdict}. Do not show them as reasons."
        return Finding(judged.tone, text, " ".join([judged.statement, *judged.reasons]), aside)
    text = f"T{whose[1:]} are faithful: they mark what it uses, which need not be the right reason."
    return Finding("neutral", text, judged.statement, aside)


def _coverage(record: Record, conformal: dict[str, Any]) -> Finding:
    wanted, figure, size = conformal["wanted"], estimate(conformal["coverage"]), estimate(conformal["mean_size"])
    everything = len(record.task.classes) if record.task.exclusive else 2
    evidence = conformal["statement"]
    if size:
        of = f"{everything} classes" if record.task.exclusive else "2 states"
        evidence += f" A set holds {fixed(size.value, 2)} of {of} on average."
    if size and size.value >= everything:
        return Finding("bad", "The sets say nothing: every one of them holds everything.", evidence)
    if figure is None or figure.low is None or figure.high is None:
        return Finding("neutral", "Whether the sets hold the truth as often as promised is not known.", evidence)
    if figure.high < wanted:
        return Finding("bad", "The sets hold the truth less often than promised.", evidence)
    tone: Tone = "good"
    text = "The sets hold the truth at least as often as promised."
    if figure.low < wanted:
        tone, text = "neutral", "The sets keep their promise, as far as these images can tell."
    if short := _covered_less(conformal):
        named = ", ".join(short[:_NAMED]) + (f" and {len(short) - _NAMED} more" if len(short) > _NAMED else "")
        where = "of" if record.task.exclusive else "where the label is present:"
        return Finding("neutral", f"{text} But less often {where} {named}.", evidence)
    return Finding(tone, text, evidence)


def _covered_less(conformal: dict[str, Any]) -> list[str]:
    """Classes whose whole interval lies below what is wanted of all; of labels, where they are present."""
    figures = {
        name: estimate(values.get("coverage_present", values["coverage"]))
        for name, values in conformal["per_class"].items()
    }
    return [
        name
        for name, figure in figures.items()
        if figure and figure.high is not None and figure.high < conformal["wanted"]
    ]


def _refusals(ood: dict[str, Any]) -> Finding:
    if ood["rule"] is None:
        return Finding("neutral", "Foreign images are not refused.", ood["statement"])
    outside = {MADE_UP.get(found["name"], found["name"]).lower() if found in ood["made_up"] else found["name"]:
               estimate(found["refused"]) for found in (*ood["made_up"], *ood["against"])}  # fmt: skip
    shares = {name: figure.value for name, figure in outside.items() if figure}
    evidence = ood["statement"]
    if shares:
        listed = ", ".join(f"{name} {share:.0%}".replace("%", " %") for name, share in shares.items())
        evidence += f" Refused of foreign images: {listed}."
    missed = [name for name, share in shares.items() if share < 0.5]
    but = f" But most of these pass: {', '.join(missed)}." if missed else ""
    figure, wanted = estimate(ood["refused"]), ood["wanted"]
    if ood["threshold"] is None:
        return Finding("bad", "No image is ever refused as foreign.", evidence)
    tone: Tone = "neutral"
    if figure is None or figure.low is None or figure.high is None:
        text = "Whether more images are refused as foreign than promised is not known."
    elif figure.low > wanted:
        tone, text = "bad", "More images of the right kind are refused as foreign than promised."
    elif figure.high <= wanted:
        tone, text = "neutral" if missed else "good", "No more images of the right kind are refused than promised."
    else:
        text = "Refusals keep their promise, as far as these images can tell."
    return Finding(tone, text + but, evidence)


def _robustness(record: Record, found: dict[str, Any]) -> Finding:
    """Of what is handed over where corrupted images were shown to it, else of the student."""
    lost = {}
    for role in in_order(found["summary"]):
        clean, corrupted = estimate(found["clean"][role]["accuracy"]), estimate(found["summary"][role]["mean_accuracy"])
        if clean and corrupted:
            lost[role] = (clean.value, corrupted.value)
    role = record.handed_over if record.handed_over in lost else STUDENT
    who, aside = noun(role), role != record.handed_over
    if role not in lost:
        text = "What corrupted images cost is not known."
        return Finding("neutral", text, f"The {who}'s accuracy is not defined.", aside)
    clean_value, corrupted_value = lost.pop(role)
    text = f"Corrupted images cost the {who} {fixed(clean_value - corrupted_value)} of accuracy."
    if clean_value <= corrupted_value:
        text = f"Corrupted images do not lower the {who}'s accuracy."
    kinds, severities = len(found["corruptions"]), len(found["severities"])
    evidence = f"Accuracy {fixed(clean_value)} on clean images, {fixed(corrupted_value)} on average over {kinds} "
    evidence += f"corruptions at {severities} severities."
    others = ", ".join(f"{noun(other)} {fixed(clean - corrupted)}" for other, (clean, corrupted) in lost.items())
    return Finding("neutral", text, f"{evidence} It costs others: {others}." if others else evidence, aside)
