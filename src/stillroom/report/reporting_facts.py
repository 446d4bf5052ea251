"""What the answers to TRIPOD+AI and CLAIM are made of: an answer, and what a run's files say, read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stillroom.data.table import SPLITS
from stillroom.evaluation.roles import STUDENT
from stillroom.report.external import external_tests
from stillroom.report.numbers import METRICS, Estimate, count, estimate, plain
from stillroom.report.record import Record
from stillroom.report.section import sections

_LISTED = 6
"""More classes are not counted out: the report has the table."""


@dataclass(frozen=True)
class Answer:
    """What is known of an item.

    Attributes:
        said: what the run says; empty where it knows nothing.
        place: the report's section with more; empty where there is none.
        author: what only the author can say; empty where nothing is left open.
    """

    said: str = ""
    place: str = ""
    author: str = ""

    @property
    def by(self) -> str:
        """Who answers: ``run``, ``both`` or ``author``."""
        return "author" if not self.said else "both" if self.author else "run"


@dataclass(frozen=True)
class Facts:
    """A run, as the answers ask about it."""

    record: Record

    def set_to(self, section: str, name: str) -> Any:
        """A setting's value; None where the run does not say."""
        found = self.record.settings.get(section)
        return found.get(name) if isinstance(found, dict) else None

    def listed(self, section: str, *names: str) -> str:
        """Settings as ``name value`` in a row, those that the run says."""
        pairs = ((name, self.set_to(section, name)) for name in names)
        return ", ".join(
            f"{name.replace('_', ' ')} {plain(value)}" for name, value in pairs if value not in (None, "", [])
        )

    @property
    def audit(self) -> dict[str, Any]:
        return self.record.audit or {}

    @property
    def by_split(self) -> str:
        """``163 train, 29 val, 48 test``."""
        counts = self.audit.get("class_counts") or {}
        if not self.record.task.exclusive:
            return ""
        return ", ".join(f"{count(sum(counts[split].values()))} {split}" for split in SPLITS if split in counts)

    @property
    def by_class(self) -> str:
        """Images of the classes in each split."""
        counts = self.audit.get("class_counts") or {}
        if len(self.record.task.classes) > _LISTED:
            return ""
        return "; ".join(
            f"{split}: {', '.join(f'{count(number)} {name}' for name, number in counts[split].items())}"
            for split in SPLITS
            if split in counts
        )

    @property
    def other_data(self) -> int:
        """On how many other data sets the run was tested; those that hold its own images are none."""
        return sum(not test.own for test in external_tests(self.record))

    @property
    def metric(self) -> str:
        return METRICS[self.record.task.selection_metric]

    @property
    def main_figure(self) -> str:
        """With folds, over all cuts."""
        cuts, figure, luck = self.record.cuts, self.figure, self.record.luck or {}
        if cuts:
            figures = luck["figures"].get(self.exported) or luck["figures"][STUDENT]
            figure = estimate(figures[self.record.task.selection_metric])
        over = f" over {cuts} cuts of the data" if cuts else ""
        return f"{self.metric} {figure.text()}{over}" if figure else f"{self.metric} not defined{over}"

    @property
    def exported(self) -> str:
        """The role of the network that is handed over."""
        return self.record.handed_over

    @property
    def tested(self) -> dict[str, Any]:
        """Its figures on the test split."""
        return self.record.test[self.exported]

    @property
    def figure(self) -> Estimate | None:
        """The one that networks are compared by."""
        return estimate(self.tested.get(self.record.task.selection_metric))

    @property
    def declared(self) -> tuple[str, ...]:
        """Keys of the sections that stages added."""
        return tuple(section.key for section in sections(self.record.metrics))

    @property
    def groups(self) -> str:
        """The report's section with figures of groups of people; empty where there is none."""
        if self.record.metrics.get("groups"):
            return "groups"
        return next((key for key in self.declared if "group" in key), "")

    @property
    def compared(self) -> bool:
        """Whether any two groups were large enough; of a section that a stage added it is taken for granted."""
        columns = (self.record.metrics.get("groups") or {}).get("columns")
        return bool(self.groups) and (columns is None or any(column["gaps"] for column in columns))

    @property
    def largest_gaps(self) -> str:
        """Of each column that has one, the gap in the main figure, or the first that there is."""
        said = []
        for column in (self.record.metrics.get("groups") or {"columns": []})["columns"]:
            name, gap = next(iter(column["gaps"].items()), ("", None))
            if gap and (figure := estimate(gap)):
                sure = "" if gap["sure"] else ", not shown"
                said.append(f"{column['name']} {METRICS.get(name, name)} {figure.text()}{sure}")
        return "; ".join(said)
