"""What a threshold answers: yes or no. Is it the positive class; this class or the rest; this label; this grade or above?"""

from __future__ import annotations

import numpy as np

from stillroom.errors import UsageError, nearest
from stillroom.task import Task


def question_names(task: Task) -> tuple[str, ...]:
    """The ``Q`` questions by name: the positive class alone, every class or label, every grade above the lowest.

    A grade's question is whether the image has that grade or a higher one, ``moderate or above``.
    """
    if task.kind == "ordinal":
        *between, highest = task.classes[1:]
        return (*(f"{grade} or above" for grade in between), highest)
    return tuple(task.classes[k] for k in task.scored)


def question_of(task: Task, name: str) -> int:
    """The number of the question that is meant by the name of a class.

    Raises:
        UsageError: there is no such class, or nothing is asked of it: of two the negative one, the lowest grade.
    """
    if name not in task.classes:
        raise UsageError(
            f"There is no class {name!r}.{nearest(name, task.classes)} The classes: {', '.join(task.classes)}."
        )
    number = task.classes.index(name)
    if task.kind == "binary" and number == 0:
        raise UsageError(
            f"{name} is the negative one of two classes: its sensitivity is the specificity of {task.classes[1]}, and the "
            "other way round. Ask that, or give --positive."
        )
    if task.kind == "ordinal" and number == 0:
        raise UsageError(f"{name} is the lowest grade, which every image has or exceeds: name a higher one.")
    return number - 1 if task.kind in ("binary", "ordinal") else number


def chances(task: Task, probabilities: np.ndarray) -> np.ndarray:
    """``[N, K]`` probabilities to ``[N, Q]``, of yes to each question."""
    if task.kind == "ordinal":
        above = np.cumsum(np.asarray(probabilities, dtype=np.float64)[:, :0:-1], axis=1)[:, ::-1]
        return np.minimum(above, 1.0)
    return np.asarray(probabilities, dtype=np.float64)[:, list(task.scored)]


def answers(task: Task, targets: np.ndarray) -> np.ndarray:
    """Targets to the true answers, ``[N, Q]`` bool."""
    if task.kind == "ordinal":
        return targets[:, None] >= np.arange(1, len(task.classes))[None]
    return task.one_hot(targets)[:, list(task.scored)].astype(bool)
