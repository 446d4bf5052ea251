"""What the labels mean. The only module that knows binary, multi-class, ordinal and multi-label apart.

Everything that depends on the kind of task is decided here: the loss on labels, the loss on a teacher's soft targets,
probabilities, decisions, the selection metric and how targets are written down. Other modules ask the task.

NumPy is imported here, torch only inside the methods that train, so that the edge predictor and ``--help`` stay light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stillroom.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Direction = Literal["forward", "reverse"]


@dataclass(frozen=True)
class Task(ABC):
    """Base of the two kinds of task. ``K`` is the number of classes (labels), ``N`` or ``B`` the number of images.

    Attributes:
        classes: the ``K`` names, in the order of the logits.
    """

    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise UsageError(f"Class names must differ from each other, got {', '.join(self.classes)}.")

    # -- identity -----------------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def kind(self) -> str:
        """``binary``, ``multiclass``, ``ordinal`` or ``multilabel``."""

    @property
    @abstractmethod
    def exclusive(self) -> bool:
        """True where an image has exactly one class, False where each label stands for itself."""

    @property
    @abstractmethod
    def selection_metric(self) -> str:
        """Name of the metric that picks the best epoch on validation: ``auc`` or ``quadratic_kappa``."""

    @property
    @abstractmethod
    def decision_rule(self) -> str:
        """What :meth:`decide` does, in words for people."""

    @property
    def scored(self) -> tuple[int, ...]:
        """Classes over which one-against-rest figures are averaged: all, but for binary tasks the positive class alone."""
        return (1,) if self.kind == "binary" else tuple(range(len(self.classes)))

    def with_paper_softmax(self) -> Task:
        """The multi-label task trained as MedAlmighty trained it (PAPERS 0 and E5). Refused for other tasks."""
        raise UsageError(
            f"paper_softmax reproduces a multi-label choice of the paper; this task is {self.kind}."
        )

    # -- NumPy side: evaluation and the edge --------------------------------------------------------------------
    @abstractmethod
    def probabilities(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """``[N, K]`` logits to ``[N, K]`` probabilities in [0, 1], float64, after division by ``temperature``."""

    @abstractmethod
    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """``[N, K]`` probabilities to targets of the task's form: ``[N]`` int64, or ``[N, K]`` uint8 at threshold 0.5."""

    @abstractmethod
    def one_hot(self, targets: np.ndarray) -> np.ndarray:
        """Targets to ``[N, K]`` uint8 of 0/1."""

    @abstractmethod
    def stratum(self, targets: np.ndarray) -> np.ndarray:
        """``[N]`` int64: the class that a stratified split balances (for multi-label the rarest label present)."""

    @abstractmethod
    def confidence(self, probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs for a reliability diagram, ``([M], [M])``: stated confidence, and 1.0 where it came true.

        Exclusive classes: top-label confidence and correctness (``M = N``). Multi-label: every label's probability
        and its truth (``M = N * K``).
        """

    @abstractmethod
    def nll(self, logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> float:
        """Mean negative log-likelihood of the targets (per label for multi-label), in nats."""

    @abstractmethod
    def brier(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Brier score per image, ``[N]``: summed over classes; for binary the positive class alone; multi-label a mean."""

    @abstractmethod
    def correct(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Share of an image's decisions that are right, ``[N]`` float64: 0 or 1, for multi-label a mean over labels."""

    @abstractmethod
    def log_loss(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Negative log-likelihood per image, ``[N]`` in nats, from probabilities clipped to 1e-7: :meth:`nll` by image."""

    @abstractmethod
    def names(self, targets: np.ndarray) -> list[str]:
        """Targets as text, one entry per image; several labels are joined by ``;`` and none is the empty text."""

    @abstractmethod
    def parse(self, names: list[str]) -> np.ndarray:
        """The inverse of :meth:`names`. Raises :class:`UsageError` naming the first label that is not a class."""

    def select(self, probabilities: np.ndarray, targets: np.ndarray) -> float:
        """The selection metric on validation, higher is better; NaN where it is not defined (one class only)."""
        from sklearn.metrics import roc_auc_score

        truth = self.one_hot(targets)
        usable = [k for k in self.scored if 0 < truth[:, k].sum() < len(truth)]
        if not usable:
            return float("nan")
        return float(np.mean([roc_auc_score(truth[:, k], probabilities[:, k]) for k in usable]))

    def rank(self, logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
        """What is compared to keep the best of several fits: ``(selection metric, -NLL)``, higher is better in both.

        The metric is -inf where validation holds too few classes to define it, so that the likelihood decides.
        """
        value = self.select(self.probabilities(logits), targets)
        return (value if np.isfinite(value) else float("-inf"), -self.nll(logits, targets))

    def describe(self) -> dict[str, Any]:
        """JSON form, read back by :func:`from_description`."""
        return {"kind": self.kind, "classes": list(self.classes)}

    # -- torch side: training -----------------------------------------------------------------------------------
    @abstractmethod
    def hard_loss(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Loss on the labels per image, ``[B]`` float32: cross-entropy, or binary cross-entropy averaged over labels.

        Args:
            logits: ``[B, K]``, any float type.
            targets: ``[B]`` int64, or ``[B, K]`` of 0/1 for multi-label.
            class_weights: ``[K]``, see :meth:`class_weights`.
        """

    @abstractmethod
    def soft_loss(
        self, student: Tensor, teacher: Tensor, temperature: float, direction: Direction = "forward"
    ) -> Tensor:
        """``t^2 * KL`` between softened distributions per image, ``[B]`` float32 (PAPERS 0; E1 for its direction).

        ``forward`` is KL(teacher || student), ``reverse`` KL(student || teacher). Multi-label: Bernoulli KL averaged
        over labels (PAPERS E5, which sums; the mean keeps alpha's meaning beside a cross-entropy averaged likewise).

        Args:
            student: ``[B, K]`` logits. Gradients flow.
            teacher: ``[B, K]`` logits, detached by the caller.
            temperature: ``t`` > 0.
        """

    @abstractmethod
    def torch_probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """:meth:`probabilities` on tensors, ``[B, K]`` float32, for graphs that leave Python (ONNX)."""

    @abstractmethod
    def class_weights(self, targets: np.ndarray) -> np.ndarray:
        """``[K]`` float32 weights that undo class imbalance: ``N / (K n_c)``, or negatives / positives for multi-label."""


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
        return np.exp(_log_softmax(logits, temperature))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities.argmax(axis=1).astype(np.int64)

    def one_hot(self, targets: np.ndarray) -> np.ndarray:
        return (targets[:, None] == np.arange(len(self.classes))[None]).astype(np.uint8)

    def stratum(self, targets: np.ndarray) -> np.ndarray:
        return targets.astype(np.int64)

    def confidence(self, probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return probabilities.max(axis=1), (probabilities.argmax(axis=1) == targets).astype(np.float64)

    def nll(self, logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> float:
        return float(-_log_softmax(logits, temperature)[np.arange(len(targets)), targets].mean())

    def brier(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        squared = (probabilities - self.one_hot(targets)) ** 2
        return squared[:, 1] if self.kind == "binary" else squared.sum(axis=1)

    def correct(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return (self.decide(probabilities) == targets).astype(np.float64)

    def log_loss(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return -_log_clipped(probabilities[np.arange(len(targets)), targets])

    def names(self, targets: np.ndarray) -> list[str]:
        return [self.classes[int(target)] for target in targets]

    def parse(self, names: list[str]) -> np.ndarray:
        return np.array([_class_index(self.classes, name) for name in names], dtype=np.int64)

    def select(self, probabilities: np.ndarray, targets: np.ndarray) -> float:
        if self.kind != "ordinal":
            return super().select(probabilities, targets)
        from sklearn.metrics import cohen_kappa_score

        labels = np.arange(len(self.classes))
        if len(np.unique(targets)) < 2:
            return float("nan")
        return float(
            cohen_kappa_score(targets, self.decide(probabilities), labels=labels, weights="quadratic")
        )

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"ordinal": self.ordinal}

    def hard_loss(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(logits.float(), targets, weight=class_weights, reduction="none")

    def soft_loss(
        self, student: Tensor, teacher: Tensor, temperature: float, direction: Direction = "forward"
    ) -> Tensor:
        log_student = (student.float() / temperature).log_softmax(dim=-1)
        log_teacher = (teacher.float() / temperature).log_softmax(dim=-1)
        if direction == "reverse":
            log_student, log_teacher = log_teacher, log_student
        return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)

    def torch_probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        return (logits.float() / temperature).softmax(dim=-1)

    def class_weights(self, targets: np.ndarray) -> np.ndarray:
        counts = np.bincount(targets, minlength=len(self.classes))
        return (len(targets) / (len(self.classes) * np.maximum(counts, 1))).astype(np.float32)


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of labels per image, each a yes or no of its own.

    Attributes:
        paper_softmax: train and score with one softmax over the labels, as MedAlmighty did (PAPERS E5). It is wrong
            for multi-label data and exists to reproduce the paper's ChestMNIST row.
    """

    paper_softmax: bool = field(default=False)

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
            return np.exp(_log_softmax(logits, temperature))
        return np.exp(_log_sigmoid(np.asarray(logits, dtype=np.float64) / temperature))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return (probabilities > 0.5).astype(np.uint8)

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
            return float(-(shares * _log_softmax(logits, temperature)).sum(axis=1).mean())
        scaled = np.asarray(logits, dtype=np.float64) / temperature
        return float(-np.where(targets > 0, _log_sigmoid(scaled), _log_sigmoid(-scaled)).mean())

    def brier(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return ((probabilities - targets) ** 2).mean(axis=1)

    def correct(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return (self.decide(probabilities) == targets).mean(axis=1)

    def log_loss(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        if self.paper_softmax:
            shares = targets / np.maximum(targets.sum(axis=1, keepdims=True), 1)
            return -(shares * _log_clipped(probabilities)).sum(axis=1)
        return -_log_clipped(np.where(targets > 0, probabilities, 1 - probabilities)).mean(axis=1)

    def names(self, targets: np.ndarray) -> list[str]:
        return [";".join(c for c, on in zip(self.classes, row, strict=True) if on) for row in targets]

    def parse(self, names: list[str]) -> np.ndarray:
        targets = np.zeros((len(names), len(self.classes)), dtype=np.uint8)
        for row, text in enumerate(names):
            for name in filter(None, (part.strip() for part in text.split(";"))):
                targets[row, _class_index(self.classes, name)] = 1
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

    def soft_loss(
        self, student: Tensor, teacher: Tensor, temperature: float, direction: Direction = "forward"
    ) -> Tensor:
        if self.paper_softmax:
            return MultiClass.soft_loss(self, student, teacher, temperature, direction)  # type: ignore[arg-type]
        from torch.nn.functional import logsigmoid

        first, second = teacher.float() / temperature, student.float() / temperature
        if direction == "reverse":
            first, second = second, first
        chance = first.sigmoid()
        kl = chance * (logsigmoid(first) - logsigmoid(second))
        kl = kl + (1 - chance) * (logsigmoid(-first) - logsigmoid(-second))
        return temperature**2 * kl.mean(dim=-1)

    def torch_probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        scaled = logits.float() / temperature
        return scaled.softmax(dim=-1) if self.paper_softmax else scaled.sigmoid()

    def class_weights(self, targets: np.ndarray) -> np.ndarray:
        positives = targets.sum(axis=0).astype(np.float64)
        return np.clip((len(targets) - positives) / np.maximum(positives, 1), 0.1, 100).astype(np.float32)


def from_description(description: dict[str, Any]) -> Task:
    """Rebuild a task from :meth:`Task.describe`, as stored in run folders and exported models."""
    classes = tuple(description["classes"])
    if description["kind"] == "multilabel":
        return MultiLabel(classes, paper_softmax=bool(description.get("paper_softmax", False)))
    return MultiClass(classes, ordinal=bool(description.get("ordinal", False)))


def _class_index(classes: tuple[str, ...], name: str) -> int:
    try:
        return classes.index(name)
    except ValueError:
        raise UsageError(f"Label {name!r} is not one of the classes: {', '.join(classes)}.") from None


def _log_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))


def _log_sigmoid(values: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -values)


def _log_clipped(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(np.asarray(probabilities, dtype=np.float64), 1e-7, 1.0))
