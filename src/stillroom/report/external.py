"""A run's tests on other data, and what spoils them: images that it was trained on, and images that it refused."""

from __future__ import annotations

from dataclasses import dataclass

from stillroom.files.reading import read_json
from stillroom.report.numbers import METRICS, Estimate, count, estimate, plain
from stillroom.report.record import Record


@dataclass(frozen=True)
class ExternalTest:
    """What `stillroom evaluate RUN SOURCE` left.

    Attributes:
        source: what was tested on.
        figure: the main one, with its name; empty where it is not defined.
        images: how many were tested.
        own: how many of them were training or validation images of the run.
        refused: the share refused as foreign; None where nothing is refused, or no more than is promised.
    """

    source: str
    figure: str
    images: int
    own: int
    refused: Estimate | None

    @property
    def text(self) -> str:
        """For people: the source, its figure, and what spoils it."""
        said = [self.figure] if self.figure else []
        if self.own:
            said.append(
                f"{count(self.own)} of its {count(self.images)} images were the run's own training or validation images: "
                "this flatters the model and is no external test"
            )
        if self.refused:
            said.append(f"{self.refused.value:.0%} of its images were refused as foreign, and count all the same")
        return f"{self.source} ({'; '.join(said)})" if said else self.source


def external_tests(record: Record) -> list[ExternalTest]:
    """All of a run, by file name."""
    metric, found = record.task.selection_metric, []
    for file in sorted((record.folder / "evaluations").glob("*.json")):
        content = read_json(file)
        tested = (content.get("test") or {}).get("student") or {}
        value, seen, foreign = (
            estimate(tested.get(metric)),
            content.get("seen_in_training") or {},
            content.get("ood") or {},
        )
        refused = estimate(foreign.get("refused"))
        more = refused is not None and refused.low is not None and refused.low > (foreign.get("wanted") or 0)
        found.append(
            ExternalTest(
                plain(content.get("source")),
                f"{METRICS[metric]} {value.text()}" if value else "",
                int(tested.get("images") or seen.get("of") or 0),
                int(seen.get("images") or 0),
                refused if more else None,
            )
        )
    return found
