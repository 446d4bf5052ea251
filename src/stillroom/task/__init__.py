"""What the labels mean. The only package that knows binary, multi-class, ordinal and multi-label apart.

Everything that depends on the kind of task is decided here: the loss on labels, the loss on a teacher's soft targets,
probabilities, decisions, the selection metric and how targets are written down. Other modules ask the task.

NumPy is imported here, torch only inside the methods that train, so that the edge predictor and ``--help`` stay light.
"""

from __future__ import annotations

from typing import Any

from stillroom.task.base import Direction, Task
from stillroom.task.multi_class import MultiClass
from stillroom.task.multi_label import MultiLabel


def from_description(description: dict[str, Any]) -> Task:
    """Rebuild a task from :meth:`Task.describe`, as stored in run folders and exported models."""
    classes = tuple(description["classes"])
    if description["kind"] == "multilabel":
        return MultiLabel(classes, paper_softmax=bool(description.get("paper_softmax", False)))
    return MultiClass(classes, ordinal=bool(description.get("ordinal", False)))


__all__ = ["Direction", "MultiClass", "MultiLabel", "Task", "from_description"]
