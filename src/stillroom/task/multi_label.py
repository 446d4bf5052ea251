"""Any number of labels per image, each a yes or no of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.task.base import Direction, Task
from stillroom.task.numerics import class_index, focal_factor, log_clipped, log_sigmoid, log_softmax, softmax_kl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of labels per image, each a yes or no of its own.

    Attributes:
        paper_softmax: train and score with one softmax over the labels, as MedAlmighty did. It is wrong
            for multi-label data and exists to reproduce the paper's ChestMNIST row.
    """

    paper_softmax: bool = False

    @property
    def kind(self) -> str:
        return "multilabel"

    @property
    def exclusive(self) -> bool:
        return False

    @property
    def selection_metric(self) -> str:
        return "auc"

    @property
    def decision_rule(self) -> str:
        return "every label of probability above 0.5"

    def with_paper_softmax(self) -> Task:
        return replace(self, paper_softmax=True)

    def probabilities(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        if self.paper_softmax:
            return np.exp(log_softmax(logits, temperature))
        return np.exp(log_sigmoid(np.asarray(logits, dtype=np.float64) / temperature))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return (probabilities > 0.5).astype(np.uint8)

    def positive(self, probabilities: np.ndarray) -> np.ndarray:
        return np.asarray(self.decide(probabilities).any(axis=1))

    def one_hot(self, targets: np.ndarray) -> np.ndarray:
        return targets.astype(np.uint8)

    def stratum(self, targets: np.ndarray) -> np.ndarray:
        frequency = targets.sum(axis=0).astype(np.float64)
        rarity = np.where(targets > 0, frequency[None], np.inf)
        return np.where(targets.any(axis=1), rarity.argmin(axis=1), len(self.classes)).astype(np.int64)

    def confidence(self, probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return probabilities.ravel(), targets.astype(np.float64).ravel()

    def nll(self, logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> float:
        if self.paper_softmax:
            shares = targets / np.maximum(targets.sum(axis=1, keepdims=True), 1)
            return float(-(shares * log_softmax(logits, temperature)).sum(axis=1).mean())
        scaled = np.asarray(logits, dtype=np.float64) / temperature
        return float(-np.where(targets > 0, log_sigmoid(scaled), log_sigmoid(-scaled)).mean())

    def brier(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return ((probabilities - targets) ** 2).mean(axis=1)

    def correct(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return (self.decide(probabilities) == targets).mean(axis=1)

    def surely_wrong(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        stated = np.maximum(probabilities, 1 - probabilities)
        return np.where(self.decide(probabilities) == targets, 0.0, stated).max(axis=1)

    def log_loss(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        if self.paper_softmax:
            shares = targets / np.maximum(targets.sum(axis=1, keepdims=True), 1)
            return -(shares * log_clipped(probabilities)).sum(axis=1)
        return -log_clipped(np.where(targets > 0, probabilities, 1 - probabilities)).mean(axis=1)

    def names(self, targets: np.ndarray) -> list[str]:
        return [";".join(c for c, on in zip(self.classes, row, strict=True) if on) for row in targets]

    def parse(self, names: list[str]) -> np.ndarray:
        targets = np.zeros((len(names), len(self.classes)), dtype=np.uint8)
        for row, text in enumerate(names):
            for name in filter(None, (part.strip() for part in text.split(";"))):
                targets[row, class_index(self.classes, name)] = 1
        return targets

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"paper_softmax": self.paper_softmax}

    def hard_loss(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        from torch.nn import functional

        logits, targets = logits.float(), targets.float()
        if self.paper_softmax:
            shares = targets / targets.sum(dim=-1, keepdim=True).clamp(min=1)
            return -(shares * logits.log_softmax(dim=-1)).sum(dim=-1)
        losses = functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=class_weights, reduction="none"
        )
        return losses.mean(dim=-1)

    def focal_loss(self, logits: Tensor, targets: Tensor, gamma: float, class_weights: Tensor | None = None) -> Tensor:
        from torch.nn import functional

        logits, targets = logits.float(), targets.float()
        if self.paper_softmax:
            shares = targets / targets.sum(dim=-1, keepdim=True).clamp(min=1)
            plain = -logits.log_softmax(dim=-1)
            return (shares * focal_factor(plain, gamma) * plain).sum(dim=-1)
        plain = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        weights = 1.0 if class_weights is None else 1 + (class_weights - 1) * targets
        return (focal_factor(plain, gamma) * weights * plain).mean(dim=-1)

    def soft_loss(
        self, student: Tensor, teacher: Tensor, temperature: float, direction: Direction = "forward"
    ) -> Tensor:
        if self.paper_softmax:
            return softmax_kl(student, teacher, temperature, direction)
        from torch.nn.functional import logsigmoid

        first, second = teacher.float() / temperature, student.float() / temperature
        if direction == "reverse":
            first, second = second, first
        chance = first.sigmoid()
        kl = chance * (logsigmoid(first) - logsigmoid(second))
        kl = kl + (1 - chance) * (logsigmoid(-first) - logsigmoid(-second))
        return temperature**2 * kl.mean(dim=-1)

    def decoupled_loss(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        whole = self.soft_loss(student, teacher, temperature)
        return whole, whole.new_zeros(whole.shape)

    def torch_probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        scaled = logits.float() / temperature
        return scaled.softmax(dim=-1) if self.paper_softmax else scaled.sigmoid()

    def class_weights(self, targets: np.ndarray) -> np.ndarray:
        positives = targets.sum(axis=0).astype(np.float64)
        return np.clip((len(targets) - positives) / np.maximum(positives, 1), 0.1, 100).astype(np.float32)
