"""Exactly one class per image: binary, multi-class and ordinal tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.task.base import Direction, Task
from stillroom.task.numerics import class_index, focal_factor, log_clipped, log_softmax, softmax_kl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MultiClass(Task):
    """Exactly one class per image. Two classes make it binary (the second is the positive one).

    Attributes:
        ordinal: the classes are ordered grades: epochs are selected by, and figures gain, quadratic kappa.
    """

    ordinal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) < 2:
            raise UsageError(
                f"At least two classes are needed, got {len(self.classes)}: {', '.join(self.classes) or 'none'}."
            )

    @property
    def kind(self) -> str:
        if len(self.classes) == 2:
            return "binary"
        return "ordinal" if self.ordinal else "multiclass"

    @property
    def exclusive(self) -> bool:
        return True

    @property
    def selection_metric(self) -> str:
        return "quadratic_kappa" if self.kind == "ordinal" else "auc"

    @property
    def decision_rule(self) -> str:
        return "the class of highest probability"

    def probabilities(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        return np.exp(log_softmax(logits, temperature))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities.argmax(axis=1).astype(np.int64)

    def positive(self, probabilities: np.ndarray) -> np.ndarray:
        decided = self.decide(probabilities)
        return np.ones(len(decided), dtype=bool) if self.kind == "multiclass" else decided > 0

    def one_hot(self, targets: np.ndarray) -> np.ndarray:
        return (targets[:, None] == np.arange(len(self.classes))[None]).astype(np.uint8)

    def stratum(self, targets: np.ndarray) -> np.ndarray:
        return targets.astype(np.int64)

    def confidence(self, probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return probabilities.max(axis=1), (probabilities.argmax(axis=1) == targets).astype(np.float64)

    def nll(self, logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> float:
        return float(-log_softmax(logits, temperature)[np.arange(len(targets)), targets].mean())

    def brier(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        squared = (probabilities - self.one_hot(targets)) ** 2
        return squared[:, 1] if self.kind == "binary" else squared.sum(axis=1)

    def correct(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return (self.decide(probabilities) == targets).astype(np.float64)

    def surely_wrong(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.where(self.decide(probabilities) == targets, 0.0, probabilities.max(axis=1))

    def log_loss(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return -log_clipped(probabilities[np.arange(len(targets)), targets])

    def names(self, targets: np.ndarray) -> list[str]:
        return [self.classes[int(target)] for target in targets]

    def parse(self, names: list[str]) -> np.ndarray:
        return np.array([class_index(self.classes, name) for name in names], dtype=np.int64)

    def select(self, probabilities: np.ndarray, targets: np.ndarray) -> float:
        if self.kind != "ordinal":
            return super().select(probabilities, targets)
        from sklearn.metrics import cohen_kappa_score

        labels = np.arange(len(self.classes))
        if len(np.unique(targets)) < 2:
            return float("nan")
        return float(cohen_kappa_score(targets, self.decide(probabilities), labels=labels, weights="quadratic"))

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"ordinal": self.ordinal}

    def hard_loss(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(logits.float(), targets, weight=class_weights, reduction="none")

    def focal_loss(self, logits: Tensor, targets: Tensor, gamma: float, class_weights: Tensor | None = None) -> Tensor:
        plain = self.hard_loss(logits, targets)
        weighted = plain if class_weights is None else plain * class_weights[targets]
        return focal_factor(plain, gamma) * weighted

    def soft_loss(
        self, student: Tensor, teacher: Tensor, temperature: float, direction: Direction = "forward"
    ) -> Tensor:
        return softmax_kl(student, teacher, temperature, direction)

    def decoupled_loss(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        import torch

        others = torch.ones_like(student, dtype=torch.bool).scatter_(1, targets[:, None], False)

        def split(logits: Tensor) -> tuple[Tensor, Tensor]:
            scaled = logits.float() / temperature
            rest = scaled[others].view(len(scaled), -1)
            return torch.stack([scaled[~others], rest.logsumexp(dim=1)], dim=1), rest

        ours, theirs = split(student), split(teacher)
        first, second = (softmax_kl(a, b, 1.0, "forward") for a, b in zip(ours, theirs, strict=True))
        return temperature**2 * first, temperature**2 * second

    def torch_probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        return (logits.float() / temperature).softmax(dim=-1)

    def class_weights(self, targets: np.ndarray) -> np.ndarray:
        counts = np.bincount(targets, minlength=len(self.classes))
        return (len(targets) / (len(self.classes) * np.maximum(counts, 1))).astype(np.float32)
