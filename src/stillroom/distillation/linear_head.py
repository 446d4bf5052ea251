"""Fit a linear head on cached features: the cheap way to turn a frozen backbone into a teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.task import Task

_PENALTIES = tuple(10.0**power for power in range(1, -6, -1))  # strong to weak, each fit starting from the last
_LBFGS_STEPS = 100


@dataclass(frozen=True)
class HeadData:
    """Features and targets of the images that a head is fitted and selected on.

    Attributes:
        train: ``[n, D]`` float32 features of the training images as they are, without augmentation.
        train_targets: ``[n]`` or ``[n, K]``.
        val: ``[m, D]`` of the validation images.
        val_targets: ``[m]`` or ``[m, K]``.
    """

    train: np.ndarray
    train_targets: np.ndarray
    val: np.ndarray
    val_targets: np.ndarray


@dataclass(frozen=True)
class FittedHead:
    """A head and how it was chosen: ``chosen`` says which candidate, ``value`` its selection metric on validation."""

    linear: nn.Linear
    chosen: str
    value: float


def fit_by_lbfgs(task: Task, data: HeadData) -> FittedHead:
    """The best linear head: each L2 penalty's convex optimum by L-BFGS, the penalty of the best validation likelihood.

    Not of the best AUC: that ignores the scale of the logits, which is what the student is taught.

    Features are standardised for the fit and the standardisation is folded into the head's weights.
    """
    mean = data.train.mean(axis=0)
    scale = data.train.std(axis=0) + 1e-6
    train = torch.from_numpy((data.train - mean) / scale)
    val = torch.from_numpy((data.val - mean) / scale)
    targets = torch.from_numpy(data.train_targets)
    linear = nn.Linear(train.shape[1], len(task.classes))
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)

    best: tuple[float, str, float, dict[str, Tensor]] | None = None
    for penalty in _PENALTIES:
        _minimise(task, linear, train, targets, penalty)
        value, likelihood = _rank(task, linear, val, data.val_targets)
        if best is None or likelihood > best[0]:
            best = (likelihood, f"L2 penalty {penalty:g}", value, _copy(linear))
    assert best is not None
    linear.load_state_dict(best[3])
    with torch.no_grad():
        linear.weight /= torch.from_numpy(scale)
        linear.bias.sub_(linear.weight @ torch.from_numpy(mean))
    return FittedHead(linear, best[1], best[2])


def fit_by_adam(
    task: Task, data: HeadData, *, epochs: int = 100, lr: float = 1e-3, batch_size: int = 32, seed: int = 0
) -> FittedHead:
    """The head as the MedAlmighty paper trains it: Adam, no penalty, the best validation epoch kept."""
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(data.train.shape[1], len(task.classes))
    with torch.no_grad():
        bound = data.train.shape[1] ** -0.5
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.zero_()
    train, val = torch.from_numpy(data.train), torch.from_numpy(data.val)
    targets = torch.from_numpy(data.train_targets)
    optimizer = torch.optim.Adam(linear.parameters(), lr=lr)
    best: tuple[tuple[float, float], str, dict[str, Tensor]] | None = None
    for epoch in range(epochs):
        for batch in torch.randperm(len(train), generator=generator).split(batch_size):
            optimizer.zero_grad()
            task.hard_loss(linear(train[batch]), targets[batch]).mean().backward()
            optimizer.step()
        rank = _rank(task, linear, val, data.val_targets)
        if best is None or rank > best[0]:
            best = (rank, f"epoch {epoch + 1}", _copy(linear))
    assert best is not None
    linear.load_state_dict(best[2])
    return FittedHead(linear, best[1], best[0][0])


def _minimise(task: Task, linear: nn.Linear, features: Tensor, targets: Tensor, penalty: float) -> None:
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=_LBFGS_STEPS, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = task.hard_loss(linear(features), targets).mean() + penalty / 2 * linear.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)


def _rank(task: Task, linear: nn.Linear, features: Tensor, targets: np.ndarray) -> tuple[float, float]:
    """Selection metric, ties (and an undefined metric) broken by the likelihood."""
    with torch.inference_mode():
        logits = linear(features).numpy()
    return task.rank(logits, targets)


def _copy(linear: nn.Linear) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in linear.state_dict().items()}
