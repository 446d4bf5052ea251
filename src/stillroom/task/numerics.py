"""The few stable logarithms that the tasks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stillroom.errors import UsageError
from stillroom.task.base import Direction

if TYPE_CHECKING:
    from torch import Tensor


def softmax_kl(student: Tensor, teacher: Tensor, temperature: float, direction: Direction) -> Tensor:
    """``t^2 * KL`` between softmax distributions per image, ``[B]`` float32; see :meth:`Task.soft_loss`."""
    log_student = (student.float() / temperature).log_softmax(dim=-1)
    log_teacher = (teacher.float() / temperature).log_softmax(dim=-1)
    if direction == "reverse":
        log_student, log_teacher = log_teacher, log_student
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)


def focal_factor(losses: Tensor, gamma: float) -> Tensor:
    """``(1 - p)^gamma`` from ``-log p``; kept off 0, where a power below 1 has an infinite slope."""
    return (-(-losses).expm1()).clamp(min=1e-12) ** gamma


def log_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Over the last axis, float64, after division by the temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))


def log_sigmoid(values: np.ndarray) -> np.ndarray:
    """Without overflow at either end."""
    return -np.logaddexp(0.0, -values)


def log_clipped(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities kept above 1e-7, so that a certain mistake costs much but not infinity."""
    return np.log(np.clip(np.asarray(probabilities, dtype=np.float64), 1e-7, 1.0))


def class_index(classes: tuple[str, ...], name: str) -> int:
    """The class's number. Raises UsageError for a label that is not a class."""
    try:
        return classes.index(name)
    except ValueError:
        raise UsageError(f"Label {name!r} is not one of the classes: {', '.join(classes)}.") from None
