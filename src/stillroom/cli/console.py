"""What the command line shows: results on standard output, everything else on standard error."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from stillroom.evaluation.roles import MAJORITY, PROBE_OF_STUDENT, PROBE_OF_TEACHER
from stillroom.explanation.claims import FAITHFUL, LABELS, NOT_FAITHFUL, Verdict, verdict_of
from stillroom.progress import duration
from stillroom.shown import counted, shown, shown_as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillroom.after.doctor import Check
    from stillroom.after.heat_map import Explanation
    from stillroom.models.cards import ModelCard
    from stillroom.models.medical import MedicalTeacher
    from stillroom.planning.sheet import Plan
    from stillroom.run.folder import Run

_SHOWN = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "quadratic_kappa": "Quadratic kappa",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "f1": "F1",
    "calibration_error": "Calibration error",
}


_IN_A_SENTENCE = (PROBE_OF_TEACHER, PROBE_OF_STUDENT, MAJORITY)
"""Beside these three more columns would not fit: what they reach is said in a sentence each."""
_UNBROKEN = 1000
_LONGEST = 1200
_MOST_POINTS = 3
_DIGITS = re.compile("[0-9]{60,}")
"""Characters of an error: a name or value in it may have any length."""
_UNDEFINED: dict[str, float | None] = {"value": None}
_PLAIN: dict[str, Any] = {"box": SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}


_NEAREST = {"█": "#", "─": "-", "━": "-", "│": "|", "–": "-", "…": "...", "×": "x", "≥": ">=", "≤": "<=", "·": "."}
"""What stands for a character that an output's encoding lacks."""
_ACCESS = {True: "gated", False: "not gated", None: "perhaps gated"}
"""Of a medical teacher, in words."""


class _Console(Console):
    """Shows texts as they are: no name can steer the terminal, be taken for an emoji or break a line."""

    def on_broken_pipe(self) -> None:
        """What reads, such as `head`, has had enough: `main` knows what to do. Called where the error is handled."""
        raise

    def render_str(self, text: str, **how: Any) -> Text:
        inside = text.strip("\n")
        before, _, after = text.partition(inside) if inside else (text, "", "")
        if len(inside) > _UNBROKEN and "\n" not in inside:  # names may have any length: one line stays one
            inside = f"{inside[: _UNBROKEN // 2 - 3]} ... {inside[3 - _UNBROKEN // 2 :]}"
        return super().render_str(f"{before}{shown(inside)}{after}", **how)


def out() -> Console:
    """Standard output; colours only on a terminal, and lines broken only there."""
    return _Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _UNBROKEN)


def say(text: str) -> None:
    """A note for people, on standard error."""
    _Console(stderr=True, highlight=False, emoji=False).print(escape(text), soft_wrap=True)


def fail(text: str) -> None:
    """One line that says what was wrong, on standard error, if that can be written to."""
    with suppress(OSError):
        text = _DIGITS.sub(lambda found: f"{found[0][:10]}...({len(found[0]):,} digits)", text.strip())
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
        line = f"[bold red]error:[/bold red] {escape(text)}"
        _Console(stderr=True, highlight=False, emoji=False).print(line, soft_wrap=True)


def show_what_can_be_shown() -> None:
    """Let both outputs write what their encoding lacks as near as it comes: ``#`` for a bar, ``?`` for the rest."""
    codecs.register_error("stillroom.nearest", _nearest)
    # A closed output, as of a service or `>&-`: what is said there goes nowhere.
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="stillroom.nearest")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_NEAREST.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def print_json(content: Any) -> None:
    """JSON alone, on standard output; what its encoding lacks is escaped, so that nothing is lost."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2, allow_nan=False)
    print(shown_as_json(text))


def show_run(run: Run) -> None:
    """A finished run in a few lines: the test figures, what they mean, and where the report is."""
    from stillroom.evaluation.calibration import NEEDED, calibration_notes
    from stillroom.evaluation.calibration_error import calibration_words
    from stillroom.evaluation.subgroup_words import told_in_short
    from stillroom.report.lighter import verdict

    metrics, console = run.metrics, out()
    shown = {role: figures for role, figures in metrics["test"].items() if role not in _IN_A_SENTENCE}
    show_figures(shown, "Test", synthetic=run.manifest["synthetic"])
    luck, kept = metrics.get("luck") or metrics, metrics.get("kept") or {}  # several trainings say more than one
    said = [comparison["statement"] for comparison in luck["comparison"].values()]
    judged = metrics["calibration"]["student"].get("after")  # not in a run of an earlier Stillroom
    if judged and judged["verdict"] == NEEDED:
        said.append(calibration_words(judged))
    for sentence in filter(None, (*said, luck.get("statement"), kept.get("why"))):
        console.print(escape(sentence))
    if (metrics.get("luck") or {}).get("kind") == "folds":
        console.print(f"What follows is of the first of {luck['count']} cuts of the data alone.")
    for urgent, sentence in told_in_short(metrics):
        console.print(f"{'[yellow]Note:[/yellow] ' if urgent else ''}{escape(sentence)}")
    for part in ("conformal", "ood"):
        found = metrics.get(part) or {}  # not in a run of an earlier Stillroom
        if found:
            console.print(escape(found["statement"]))
        for note in found.get("notes") or []:
            if note.startswith(("Too few", "With ")):  # the promise cannot be made at all
                console.print(f"[yellow]Note:[/yellow] {escape(note)}")
    if int8 := metrics.get("int8"):
        console.print(escape(verdict(int8, "int8")))
        for sentence in () if int8["refused"] else int8["downgraded"]:  # handed over, with a word
            console.print(f"[yellow]Note:[/yellow] {escape(sentence)}")
    thresholds = metrics.get("operating_points") or {}
    points = thresholds.get("points", ())
    for point in points[:_MOST_POINTS]:
        console.print(escape(point["statement"]))
    if len(points) > _MOST_POINTS:
        left = len(points) - _MOST_POINTS
        console.print(f"{left} more {'threshold stands' if left == 1 else 'thresholds stand'} in the report.")
    for note in thresholds.get("notes", ()):
        if note.startswith(("Too few", "No threshold")):
            console.print(f"[yellow]Note:[/yellow] {escape(note)}")
    explanation = metrics.get("explanation") or {}
    if sentence := (explanation.get("statement") or {}).get("student") or explanation.get("reason"):
        judged = (explanation.get("faithfulness") or {}).get("student")
        reasons = judged["reasons"][:1] if judged else []
        mark = _mark(verdict_of(judged)) if judged else ""
        console.print(f"{mark}{escape(' '.join([sentence, *reasons]))}")
    for note in [*metrics["test"]["student"]["notes"], *calibration_notes(metrics["calibration"]["student"])]:
        console.print(f"[yellow]Note:[/yellow] {escape(note)}")
    student, teacher = metrics["efficiency"]["student"], metrics["efficiency"].get("teacher")
    line = f"Student {student['size_mb']:.1f} MB, {student['macs'] / 1e6:.0f} M multiply-adds"
    if teacher and teacher["macs"] is not None:
        line += f"; teacher {teacher['size_mb']:.1f} MB, {teacher['macs'] / 1e6:.0f} M"
    console.print(line + ".")
    for found in run.audit["warnings"]:
        if found["level"] == "warning" or found["code"] == "dropped_classes":
            console.print(f"[yellow]Audit:[/yellow] {escape(found['text'])}")
    console.print(f"\nReport: {escape(str(run.report))}", soft_wrap=True)


def show_figures(scores: dict[str, dict[str, Any]], heading: str, *, synthetic: bool) -> None:
    """Figures side by side, one column per model, each with its interval. Three models fit on 80 columns."""
    first = next(iter(scores.values()))
    images, positive = first["images"], first.get("positive_class")
    reading = f"positive class: {positive}" if positive else "sensitivity, specificity and F1 are means over classes"
    note = ", synthetic data" if synthetic else ""
    table = Table(**_PLAIN)
    table.add_column("")
    for role in scores:
        table.add_column(role.replace("_", " ").capitalize())
    for key, title in _SHOWN.items():
        if key in first:
            table.add_row(title, *(_estimate(figures[key]) for figures in scores.values()))
    console = out()
    console.print(
        f"{heading}: {counted(images, 'image')}{note}; {reading}; 95 % intervals\n", style="bold", markup=False
    )
    console.print(table)
    console.print()


def _mark(verdict: Verdict | None) -> str:
    """What stands before a statement on heat maps; None is that of maps which were not tested."""
    if verdict == FAITHFUL:
        return ""
    return f"[yellow]{LABELS[verdict] if verdict == NOT_FAITHFUL else 'Note'}:[/yellow] "


def show_explanations(found: Sequence[Explanation], verdicts: Sequence[tuple[Verdict | None, str]]) -> None:
    """One line per image, and how far the maps can be trusted: the verdict, and a sentence."""
    table = Table(**_PLAIN)
    for heading in ("Image", "Answer", "Explained", "Picture"):
        table.add_column(heading, overflow="fold")
    for explanation in found:
        prediction = explanation.prediction
        if prediction.error is not None:
            table.add_row(escape(prediction.name), f"[red]{escape(prediction.error)}[/red]", "", "")
            continue
        share = "" if prediction.foreign else f" ({prediction.probabilities[str(explanation.of)]:.1%})"
        answer = "; ".join(filter(None, (prediction.answer, prediction.flags)))
        cells = (prediction.name, answer, f"{explanation.of}{share}", explanation.picture)
        table.add_row(*(escape(str(cell)) for cell in cells))
    console = out()
    console.print(table)
    if any(explanation.empty for explanation in found):
        text = "A picture without colour means that nothing speaks for the class, or everything alike."
        console.print(f"[yellow]Note:[/yellow] {text}")
    for verdict, statement in verdicts:
        console.print(f"{_mark(verdict)}{escape(statement)}", soft_wrap=True)


def show_foreign(run: Run, found: dict[str, Any]) -> None:
    """How well foreign images were refused."""
    console = out()
    console.print(f"{found['name']}: {counted(found['images'], 'image')}", style="bold", markup=False)
    for key, words in (
        ("refused", "Refused"),
        ("auroc", "Told from the run's test images, AUROC"),
        ("auroc_energy", "  by energy alone"),
        ("auroc_distance", "  by feature distance alone"),
    ):
        console.print(f"{words}: {_estimate(found[key])}", markup=False)
    for note in found["notes"]:
        say(note)
    console.print(f"\nReport: {escape(str(run.report))}", soft_wrap=True)


def show_robustness(run: Run, found: dict[str, Any]) -> None:
    """Mean figures on corrupted images, one column per network."""
    table = Table(**_PLAIN)
    table.add_column("")
    summary = found["summary"]
    for role in summary:
        table.add_column(role.capitalize())
    table.add_row("Accuracy, clean", *(_estimate(found["clean"][role]["accuracy"]) for role in summary))
    rows = {"mean_accuracy": "Accuracy, corrupted", "mean_error": "Balanced error", "rise": "Its rise"}
    if found["reference"]:
        rows |= {"rise_over_reference": f"  less the {found['reference']}'s", "be": "BE", "rbe": "rBE"}
    for key, title in rows.items():
        table.add_row(title, *(_estimate(summary[role][key] or _UNDEFINED) for role in summary))
    console = out()
    counts = f"{len(found['families'])} corruptions, {len(found['severities'])} severities"
    console.print(f"{counted(found['images'], 'test image')}, {counts}; 95 % intervals\n", style="bold")
    console.print(table)
    for note in found["notes"]:
        say(note)
    console.print(f"\nReport: {escape(str(run.report))}", soft_wrap=True)


def show_plan(plan: Plan, file: Path) -> None:
    """Every choice with its reason, and how long the run will take."""
    table = Table(**_PLAIN)
    table.add_column("Choice", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("Why", overflow="fold")
    for name, choice in plan.choices.items():
        value = (
            {True: "yes", False: "no"}.get(choice.value, choice.value)
            if isinstance(choice.value, bool)
            else choice.value
        )
        table.add_row(escape(name), escape(str(value)), escape(choice.why))
    facts, console = plan.facts, out()
    line = (
        f"{plan.settings.source}: {facts['images']} images, {facts['labelled']} labels to learn from; {facts['sizes']}"
    )
    console.print(f"{line}\n", style="bold", markup=False)
    console.print(table)
    console.print(f"\n{times_in_words(plan.expected_s)}", markup=False)
    console.print(f"Follow it: stillroom distill --plan {shlex.quote(str(file))}", markup=False, soft_wrap=True)


def plan_in_short(plan: Plan) -> str:
    """One line: the networks, the side, and how long the run will take."""
    settings, student = plan.settings, plan.settings.student
    start = "pretrained" if student.student_pretrained else "from random weights"
    start = f"cut out of {student.student_from}" if student.student_from else start
    taught_by = " and ".join(dict.fromkeys(settings.recipe.teacher_names(settings)))
    parts = [f"{student.student} ({start}) at {settings.student_data.size} px"]
    if settings.recipe.has_teacher and settings.teacher.teacher_answers:
        parts.append(f"taught by the answers in {settings.teacher.teacher_answers.name}")
    if taught_by:
        parts.append(
            f"taught by {'a frozen' if settings.teacher.teacher_mode == 'frozen' else 'a fine-tuned'} {taught_by}"
        )
    return f"Plan: {', '.join(parts)}. {times_in_words(plan.expected_s)}".strip()


def times_in_words(expected_s: dict[str, float]) -> str:
    """What the stages of a plan will take, in a sentence; empty where nobody knows."""
    if not expected_s:
        return ""
    first = sum(expected_s.get(stage, 0.0) for stage in ("teach", "student"))
    after = sum(seconds for stage, seconds in expected_s.items() if stage not in ("teach", "student", "control"))
    parts = [f"Teaching and training about {duration(first)}"]
    if "control" in expected_s:
        parts.append(f"control about {duration(expected_s['control'])}")
    return f"{', '.join([*parts, f'evaluation and report about {duration(after)}'])}."


def models_table(cards: list[ModelCard]) -> Table:
    """The networks at a glance; the time of one image where any was measured."""
    measured = any(card.latency_ms is not None for card in cards)
    table = Table(**_PLAIN)
    table.add_column("Name", overflow="fold")
    table.add_column("Role")
    for title in ("Input", "Parameters", "float32", "MACs", *(["Latency"] if measured else [])):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("On the hub", no_wrap=True)
    for card in cards:
        latency = "" if card.latency_ms is None else f"{card.latency_ms:.2f} ms"
        table.add_row(
            card.name,
            card.role,
            f"{card.size} px",
            f"{card.parameters:.1f} M",
            f"{card.megabytes:.1f} MB",
            "does not fit" if card.macs is None else f"{card.macs:.0f} M",
            *([latency] if measured else []),
            "yes" if card.pretrained else "no",
        )
    return table


def show_medical(entries: list[MedicalTeacher], *, whole: bool = False) -> None:
    """The medical teachers, two lines each: nine facts are no table on 80 columns.

    Args:
        entries: of the catalogue.
        whole: also what their publishers ask and how far the facts can be trusted.
    """
    for entry in entries:
        taken = {"cls": "class token", "mean": "mean of patches", "both": "class token and mean of patches"}
        features = taken.get(entry.features, "its own pooling")
        out().print(
            f"[bold]{entry.name}[/bold]  {entry.domain}: {entry.parameters:.1f} M parameters, {entry.size} px, "
            f"{features} ({entry.width})"
        )
        use = {True: "commercial use allowed", False: "no commercial use", None: "read it for commercial use"}[
            entry.commercial
        ]
        lines = [f"{entry.licence}, {use}, {_ACCESS[entry.gated]}: {entry.source}"]
        if whole:
            lines += filter(
                None, (entry.terms, f"Held against: {entry.verified}.", f"From: {'; '.join(entry.reference)}.")
            )
        for line in lines:
            out().print(f"    {line}", style="dim", markup=False)


def show_check(check: Check) -> None:
    """One thing that was looked at, and what to do about it."""
    mark = {"well": "[green]ok[/green]   ", "note": "[yellow]note[/yellow] ", "wrong": "[red]wrong[/red]"}[check.state]
    out().print(f"{mark} {escape(f'{check.part}: {check.text}')}", soft_wrap=True)
    if check.advice:
        out().print(f"      {check.advice}", style="dim", markup=False, soft_wrap=True)


def _estimate(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return "undefined"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.3f}"
    between = " to " if figure["low"] < 0 else "-"
    return f"{figure['value']:.3f} ({figure['low']:.3f}{between}{figure['high']:.3f})"
