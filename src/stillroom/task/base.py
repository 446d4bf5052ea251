"""What every task answers; see :mod:`stillroom.task`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
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
        """Name of the metric that networks are compared by: ``auc`` or ``quadratic_kappa``."""

    @property
    @abstractmethod
    def decision_rule(self) -> str:
        """What :meth:`decide` does, in words for people."""

    @property
    def scored(self) -> tuple[int, ...]:
        """Classes over which one-against-rest figures are averaged: all, but for binary tasks the positive class alone."""
        return (1,) if self.kind == "binary" else tuple(range(len(self.classes)))

    @property
    def positive_class(self) -> str | None:
        """The class that a binary task's one-against-rest figures are of; None where they are means over classes."""
        return self.classes[1] if self.kind == "binary" else None

    def with_paper_softmax(self) -> Task:
        """The multi-label task trained as MedAlmighty trained it (docs/recipes.md). Refused for other tasks."""
        raise UsageError(f"paper_softmax reproduces a multi-label choice of the paper; this task is {self.kind}.")

    # -- NumPy side: evaluation and the edge --------------------------------------------------------------------
    @abstractmethod
    def probabilities(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """``[N, K]`` logits to ``[N, K]`` probabilities in [0, 1], float64, after division by ``temperature``."""

    @abstractmethod
    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """``[N, K]`` probabilities to targets of the task's form: ``[N]`` int64, or ``[N, K]`` uint8 at threshold 0.5."""

    @abstractmethod
    def positive(self, probabilities: np.ndarray) -> np.ndarray:
        """Whether the most probable answer is that something is there, ``[N]`` bool: the positive class, a grade above the
        lowest, a label present. Where classes have no order, every answer counts as one."""

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
    def surely_wrong(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The probability stated of an image's wrong decision, of several the surest one, ``[N]``; 0 where all are right."""

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
    def focal_loss(self, logits: Tensor, targets: Tensor, gamma: float, class_weights: Tensor | None = None) -> Tensor:
        """:meth:`hard_loss` times ``(1 - p)^gamma``, ``p`` being what is given to the truth (each label's, before the mean).

        Returns ``[B]`` float32; the hard loss itself at ``gamma`` 0. Source: Lin et al. 2017, eq. 4.

        Args:
            logits: ``[B, K]``, any float type.
            targets: ``[B]`` int64, or ``[B, K]`` of 0/1 for multi-label.
            gamma: at least 0; the larger, the less what is right already counts.
            class_weights: ``[K]``, see :meth:`class_weights`.
        """

    @abstractmethod
    def soft_loss(
        self, student: Tensor, teacher: Tensor, temperature: float, direction: Direction = "forward"
    ) -> Tensor:
        """``t^2 * KL`` between softened distributions per image, ``[B]`` float32.

        ``forward`` is KL(teacher || student), ``reverse`` KL(student || teacher). Multi-label: Bernoulli KL averaged
        over labels (the mean, not the sum, keeps alpha's meaning beside a cross-entropy averaged likewise).

        Args:
            student: ``[B, K]`` logits. Gradients flow.
            teacher: ``[B, K]`` logits, detached by the caller.
            temperature: ``t`` > 0.
        """

    @abstractmethod
    def decoupled_loss(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """The two parts that :meth:`soft_loss` (forward) is made of, per image, ``([B], [B])`` float32, by DKD.

        The first is ``t^2 * KL`` between the probabilities of the true class against all others; the second ``t^2 * KL``
        between the distributions over those others. ``soft_loss`` is the first plus the second times the teacher's
        probability of the others. The second is exactly 0 for two classes. A multi-label task has no single true class:
        the first is then all of ``soft_loss``, the second 0.

        Args:
            student: ``[B, K]`` logits. Gradients flow.
            teacher: ``[B, K]`` logits, detached by the caller.
            targets: ``[B]`` int64, or ``[B, K]`` of 0/1 for multi-label.
            temperature: ``t`` > 0.
        """

    @abstractmethod
    def torch_probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """:meth:`probabilities` on tensors, ``[B, K]`` float32, for graphs that leave Python (ONNX)."""

    @abstractmethod
    def class_weights(self, targets: np.ndarray) -> np.ndarray:
        """``[K]`` float32 weights that undo class imbalance: ``N / (K n_c)``, or negatives / positives for multi-label."""
