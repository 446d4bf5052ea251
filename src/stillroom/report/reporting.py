"""TRIPOD+AI and CLAIM, as far as a run answers them: for the report, and as REPORTING.md beside the model card."""

from __future__ import annotations

from dataclasses import dataclass

from stillroom.report.checklists import CHECKLISTS, Checklist, Item
from stillroom.report.record import Record
from stillroom.report.reporting_data import ANSWERS as OF_DATA
from stillroom.report.reporting_facts import Answer, Facts
from stillroom.report.reporting_model import ANSWERS as OF_MODEL
from stillroom.report.section import sections
from stillroom.report.subgroups import HEADINGS

FILE = "REPORTING.md"
AUTHOR = {
    "abstract": "Write it; the verdict at the top of the report holds the figures.",
    "context": "The clinical question, what is done today, and models that exist.",
    "inequalities": "What is known of unequal care or outcome between groups of people.",
    "design": "Whether images were collected for this study or before it.",
    "dates": "First and last day of collection, and of follow-up if there was one.",
    "setting": "Kind of care, number and place of the sites.",
    "treatments": "Treatments that may show in the images or change the outcome, and what was done about it.",
    "blinding": "What those who set the labels did not know.",
    "deidentification": "How names and other marks were removed, from files and from pixels.",
    "reference_reason": "Why this reference standard, and its weaknesses.",
    "annotation": "How the test images were annotated, with which tool and version.",
    "ethics": "The committee, its approval, and consent or why none was needed.",
    "funding": "Who paid, and what part they had in the study.",
    "conflicts": "Interests of all authors.",
    "protocol": "Where the protocol can be read, or that there was none.",
    "registration": "Register and number, or that the study was not registered.",
    "public": "What part patients and the public had, or that they had none.",
    "next_steps": "What should be studied next, for use elsewhere too.",
}
"""What no run can know."""


BY = {"run": "the run", "both": "the run, in part", "author": "**the author**"}
"""Who answers an item, in the model card's words."""


@dataclass(frozen=True)
class Filled:
    """A checklist with its answers, in the order of its items."""

    checklist: Checklist
    rows: tuple[tuple[Item, Answer], ...]

    @property
    def summary(self) -> str:
        """How many items the run answers, and how many are left."""
        number = {who: sum(answer.by == who for _, answer in self.rows) for who in ("run", "both", "author")}
        return (
            f"{self.checklist.name}: of {len(self.rows)} items the run answers {number['run']} and a part of "
            f"{number['both']}; {number['author']} are the author's alone."
        )


PLACES = {
    "verdict": "Verdict",
    "warnings": "Warnings",
    "data": "Data",
    "taught": "Who taught",
    "results": "Test results",
    "luck": "Luck",
    "kept": "What is handed over",
    "learning": "Learning",
    "errors": "Right and wrong",
    "calibration": "Calibration",
    "explanation": "Where it looks",
    "uncertainty": "What it does not know",
    "thresholds": "Acting on it",
    "robustness": "Robustness",
    "efficiency": "Size and speed",
    "making": "How it was made",
}
"""Sections of the report that answers point at, with their headings."""


def places(record: Record) -> dict[str, str]:
    """All sections that answers may point at, those that stages added too."""
    measured = {key: heading for key, heading in HEADINGS.items() if record.metrics.get(key)}
    return PLACES | measured | {section.key: section.title for section in sections(record.metrics)}


def filled(record: Record) -> list[Filled]:
    """Both checklists, answered from a run's files."""
    facts, answers = Facts(record), OF_DATA | OF_MODEL

    def answer(name: str) -> Answer:
        return Answer(author=AUTHOR[name]) if name in AUTHOR else answers[name](facts)

    return [Filled(one, tuple((item, answer(item.answer)) for item in one.items)) for one in CHECKLISTS]
