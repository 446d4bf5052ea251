"""Fit a linear head on cached features: the cheap way to turn a frozen backbone into a teacher."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.evaluation.likelihood import calibrated_losses, clearly_better
from stillroom.task import Task

_PENALTIES = tuple(10.0**power for power in range(1, -6, -1))  # strong to weak, each fit starting from the last
_LBFGS_STEPS = 100
_ENOUGH_VALIDATION = 200
_FOLDS = 5
_UNCHOSEN = 0.1
"""The penalty where nothing can choose one."""
_LEAST_SPREAD = 1e-3
"""Of a feature, as a share of the mean feature's."""


@dataclass(frozen=True)
class HeadData:
    """Features and targets of the images that a head is fitted and selected on.

    Attributes:
        train: ``[n, D]`` float32 features of the training images as they are, without augmentation.
        train_targets: ``[n]`` or ``[n, K]``.
        val: ``[m, D]`` of the validation images.
        val_targets: ``[m]`` or ``[m, K]``.
        groups: ``[n]`` whole numbers, equal for training images of one patient; None where nothing is known.
    """

    train: np.ndarray
    train_targets: np.ndarray
    val: np.ndarray
    val_targets: np.ndarray
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class FittedHead:
    """A head and how it was chosen: ``chosen`` says which candidate, ``value`` its selection metric on validation."""

    linear: nn.Linear
    chosen: str
    value: float


def fit_by_lbfgs(task: Task, data: HeadData) -> FittedHead:
    """The best linear head: each L2 penalty's convex optimum by L-BFGS, the penalty of the best likelihood.

    Not of the best AUC: that ignores the scale of the logits, which is what the student is taught. The likelihood is that of
    validation where it is large, else of five-fold cross-validation over the training images: a few dozen images would
    choose at random.

    Features are standardised for the fit and the standardisation is folded into the head's weights.
    """
    mean = data.train.mean(axis=0)
    spread = data.train.std(axis=0)
    # What hardly moves on the training images is no evidence: enlarged, its rounding would be all the head sees.
    scale = np.maximum(spread, _LEAST_SPREAD * spread.mean()) + 1e-6
    train, val = _standardised(data.train, mean, scale), _standardised(data.val, mean, scale)
    targets = torch.from_numpy(data.train_targets)
    folds = _possible_folds(task, data)
    if len(val) >= _ENOUGH_VALIDATION:
        losses = [task.nll(_answers(head, val), data.val_targets) for head in _path(task, train, targets)]
        how = "on validation"
    elif folds >= 2:
        losses, how = _cross_validated(task, train, targets, data, folds), "by cross-validation"
    else:  # one patient, or one image of each class
        losses, how = [float(penalty != _UNCHOSEN) for penalty in _PENALTIES], "beforehand, for want of images"
    best = int(np.argmin(losses))
    linear = list(_path(task, train, targets, _PENALTIES[: best + 1]))[-1]
    value = task.rank(_answers(linear, val), data.val_targets)[0]
    with torch.no_grad():
        linear.weight /= torch.from_numpy(scale)
        linear.bias.sub_(linear.weight @ torch.from_numpy(mean))
    return FittedHead(linear, f"L2 penalty {_PENALTIES[best]:g}, chosen {how}", value)


def _standardised(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Tensor:
    """A copy, and no second one on the way."""
    found = features - mean
    found /= scale
    return torch.from_numpy(found)


def _path(
    task: Task, features: Tensor, targets: Tensor, penalties: Sequence[float] | None = None
) -> Iterator[nn.Linear]:
    """The head of each penalty, from strong to weak, each fit starting from the last. The same layer every time."""
    linear = nn.Linear(features.shape[1], len(task.classes))
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    for penalty in _PENALTIES if penalties is None else penalties:
        _minimise(task, linear, features, targets, penalty)
        yield linear


def _possible_folds(task: Task, data: HeadData) -> int:
    """How often the training images can be cut, at most five times; fewer than 2 if not at all."""
    groups = len(data.train) if data.groups is None else len(np.unique(data.groups))
    return int(min(_FOLDS, groups, np.bincount(task.stratum(data.train_targets)).max()))


def _cross_validated(task: Task, features: Tensor, targets: Tensor, data: HeadData, folds: int) -> list[float]:
    """Mean loss of each penalty on images left out, every image once; a group is never torn apart."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.arange(len(features)) if data.groups is None else data.groups
    sums = np.zeros(len(_PENALTIES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds
        cuts = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
        parts = list(cuts.split(np.zeros(len(groups)), task.stratum(data.train_targets), groups))
    for kept, left_out in parts:
        if not len(left_out):
            continue
        for number, head in enumerate(_path(task, features[kept], targets[kept])):
            sums[number] += len(left_out) * task.nll(_answers(head, features[left_out]), data.train_targets[left_out])
    return (sums / len(features)).tolist()


def fit_by_adam(
    task: Task, data: HeadData, *, epochs: int = 100, lr: float = 1e-3, batch_size: int = 32, seed: int = 0
) -> FittedHead:
    """The head as the MedAlmighty paper trains it: Adam, no penalty; of its epochs the last, see
    :mod:`stillroom.evaluation.likelihood`.
    """
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(data.train.shape[1], len(task.classes))
    with torch.no_grad():
        bound = data.train.shape[1] ** -0.5
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.zero_()
    train, val = torch.from_numpy(data.train), torch.from_numpy(data.val)
    targets = torch.from_numpy(data.train_targets)
    optimizer = torch.optim.Adam(linear.parameters(), lr=lr)
    best_losses: np.ndarray | None = None
    best = ("", _copy(linear))
    losses = np.zeros(0)
    for epoch in range(epochs):
        for batch in torch.randperm(len(train), generator=generator).split(batch_size):
            optimizer.zero_grad()
            task.hard_loss(linear(train[batch]), targets[batch]).mean().backward()
            optimizer.step()
        losses = calibrated_losses(task, _answers(linear, val), data.val_targets)
        if best_losses is None or losses.mean() < best_losses.mean():
            best_losses, best = losses, (f"epoch {epoch + 1}", _copy(linear))
    kept = f"epoch {epochs}"
    if best_losses is not None and clearly_better(best_losses, losses):
        kept = best[0]
        linear.load_state_dict(best[1])
    return FittedHead(linear, kept, task.rank(_answers(linear, val), data.val_targets)[0])


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


def _answers(linear: nn.Linear, features: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return linear(features).numpy()


def _copy(linear: nn.Linear) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in linear.state_dict().items()}
