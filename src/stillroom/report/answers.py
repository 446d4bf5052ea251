"""What the page and the card say of a teacher that is a table of answers, of readers or of a model that was not run here."""

from __future__ import annotations

from typing import Any

from stillroom.report.numbers import count
from stillroom.report.record import Record
from stillroom.shown import counted

_MOST_READERS = 12
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def answers_notes(record: Record) -> list[str]:
    """Sentences, most important first; none where no table of answers taught."""
    facts = record.manifest.get("answers")
    if not facts:
        return []
    said = [
        f"The teacher is a table of answers, {facts['file']}: {_what(facts)} about {count(facts['images'])} images. It gives "
        "all views of an image one answer. There is no network behind it, so it has no heat map, no size, no speed and no "
        "figures on corrupted images."
    ]
    if len(facts["readers"]) > 1:
        said.append(_weighed(facts))
    lacking = {split: there for split, there in facts["splits"].items() if there[0] < there[1]}
    if lacking:
        parts = [f"{count(have)} of {count(of)} {_SPLITS[split]} images" for split, (have, of) in lacking.items()]
        said.append(f"The teacher's own figures are left out: the table answers {' and '.join(parts)}.")
    if facts.get("unknown_rows"):
        rows = counted(facts["unknown_rows"], "row of the table is", "rows of the table are")
        said.append(f"{rows} about no image of this data set.")
    if read_as := facts.get("columns_read_as"):
        said.append(f"Columns told by their names: {', '.join(f'{name} as {role}' for name, role in read_as.items())}.")
    if unread := facts.get("unread_columns"):
        more = f" and {len(unread) - _MOST_READERS} more" if len(unread) > _MOST_READERS else ""
        said.append(f"Columns of the table that were not read: {', '.join(unread[:_MOST_READERS])}{more}.")
    return said


def _what(facts: dict[str, Any]) -> str:
    """What stands in the table, and of how many."""
    readers, (fewest, most) = len(facts["readers"]), facts["per_image"]
    if readers == 1:
        return {"votes": "one vote each", "embedding": "an embedding with a head fitted on it"}.get(
            facts["kind"], f"the {facts['kind']}"
        )
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"the {facts['kind']} of {count(readers)} readers, {each} an image,"


def _weighed(facts: dict[str, Any]) -> str:
    """How much each reader counts."""
    if facts["weights"] == "equal":
        return "Every reader of an image counts alike."
    readers = list(facts["readers"].items())
    named = ", ".join(f"{name} {weight:.2f}" for name, weight in readers[:_MOST_READERS])
    more = f" and {len(readers) - _MOST_READERS} more" if len(readers) > _MOST_READERS else ""
    return (
        "Readers count by confidence, each the more on a training image the better its answer foretells the label; in the "
        f"mean, where 1 is an equal share: {named}{more}."
    )
