"""The only training loop. It knows no method: an objective turns a step into losses, the loop minimises their sum.

Everything that happens in epoch ``e`` is a function of the seed, ``e`` and the state at its start, and that state is
written after every epoch. A run killed at any moment therefore goes on to the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stillroom.data.images import Images, batches, shuffled
from stillroom.data.views import view_of_epoch
from stillroom.distillation.step import Objective, Step, TeacherOutputs
from stillroom.distillation.teachers import Teacher
from stillroom.errors import RunError
from stillroom.files import write_atomically
from stillroom.inference import run_over
from stillroom.models.network import Network
from stillroom.progress import progress
from stillroom.settings import TrainingSettings
from stillroom.task import Task

_WARM_UP_SHARE = 0.05
_CHECKPOINT = "checkpoint.pt"

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision that was asked for


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained and selected on.

    Attributes:
        images: the data set's images.
        targets: ``[N]`` or ``[N, K]``, for every row of the data set.
        task: what the targets mean.
        train: row numbers to train on.
        val: row numbers that select the epoch. Never test rows.
    """

    images: Images
    targets: np.ndarray
    task: Task
    train: np.ndarray
    val: np.ndarray


@dataclass
class _Progress:
    """What changes from epoch to epoch beside the weights."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0  # from 1; 0 before the first
    best_rank: tuple[float, float] = (float("-inf"), float("-inf"))


class _Learner(nn.Module):
    """Student and objective as one module whose forward gives the losses, so that Fabric can wrap the pair.

    It takes tensors in plain containers alone: Fabric walks through them to convert their precision.
    """

    def __init__(self, student: Network, objective: Objective, task: Task) -> None:
        super().__init__()
        self.student, self.objective, self.task = student, objective, task

    def forward(
        self,
        images: Tensor,
        targets: Tensor,
        teachers: tuple[Tensor, list[Tensor], list[Tensor]] | None,
        share: float,
        class_weights: Tensor | None,
    ) -> dict[str, Tensor]:
        said = TeacherOutputs(*teachers) if teachers else None
        step = Step(images, targets, self.student.outputs(images), said, self.task, share, class_weights)
        return self.objective(step)


def fit(
    student: Network,
    objective: Objective,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    folder: Path,
    role: str,
    teachers: Sequence[Teacher] = (),
    seed: int = 0,
    log: Callable[[dict[str, Any]], None] = lambda line: None,
    show_progress: bool = True,
) -> Network:
    """Train ``student`` in place and return it with the weights of its best validation epoch.

    Args:
        student: trained in place, on ``data.images``'s device.
        objective: what is minimised.
        data: images, targets and the rows to train and select on.
        settings: optimiser, schedule and budget.
        folder: where the checkpoint stands; when it holds one of the same job, training goes on from it.
        role: ``student``, ``control`` or ``teacher``, for the log.
        teachers: asked through their banks for the view that the student sees.
        seed: fixes the order of the images and the views.
        log: called once an epoch with a line for history.jsonl.
        show_progress: show a bar with the time left.

    Raises:
        RunError: the loss is not finite any more, or the disk is full.
    """
    device, task = data.images.device, data.task
    # bf16 runs under autocast, weights stay float32.
    fabric = Fabric(
        accelerator=device.type,
        devices=1,
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
    )
    module = _Learner(student, objective, task).to(device)
    learner, optimizer = fabric.setup(module, _optimizer(module, settings))
    weights = (
        torch.from_numpy(task.class_weights(data.targets[data.train])).to(device) if settings.class_weights else None
    )
    done = _restore(folder / _CHECKPOINT, student, objective, optimizer, device)
    steps_per_epoch = len(batches(data.train, settings.batch_size))
    total = settings.epochs * steps_per_epoch

    with progress(role, total, done=done.epoch * steps_per_epoch, enabled=show_progress) as advance:
        for epoch in range(done.epoch, settings.epochs):
            if settings.patience and epoch - done.best_epoch >= settings.patience and done.best_epoch:
                break
            start = time.perf_counter()
            torch.manual_seed(_epoch_seed(seed, epoch))  # dropout and drop-path draw from the global generator
            student.train()
            objective.train()
            view = view_of_epoch(data.images.views, epoch)
            sums: dict[str, Tensor] = {}
            for number, rows in enumerate(batches(shuffled(data.train, seed, epoch), settings.batch_size)):
                step = epoch * steps_per_epoch + number
                lr = learning_rate(settings, step, total)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                losses = learner(
                    data.images.batch(rows, view),
                    torch.from_numpy(data.targets[rows]).to(device),
                    _ask(teachers, objective, rows, view, device),
                    step / total,
                    weights,
                )
                optimizer.zero_grad()
                fabric.backward(torch.stack(list(losses.values())).sum())
                optimizer.step()
                for name, value in losses.items():
                    sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach() * len(rows)
                advance()
            means = {name: float(value) / len(data.train) for name, value in sums.items()}
            _check_finite(means, role, epoch)
            rank = task.rank(run_over(student, data.images, data.val), data.targets[data.val])
            done.epoch, better = epoch + 1, rank > done.best_rank
            if better:
                done.best_epoch, done.best_rank = epoch + 1, rank
            value = rank[0] if math.isfinite(rank[0]) else None
            log(
                {
                    "role": role,
                    "epoch": epoch + 1,
                    "epochs": settings.epochs,
                    "loss": sum(means.values()),
                    "losses": means,
                    "val": {"metric": task.selection_metric, "value": value, "nll": -rank[1]},
                    "lr": lr,
                    "seconds": round(time.perf_counter() - start, 3),
                    "best": better,
                }
            )
            _save(folder / _CHECKPOINT, student, objective, optimizer, done, better)
            metric = task.selection_metric.replace("_", " ")
            advance(0, f"epoch {epoch + 1}/{settings.epochs}, validation {metric} {rank[0]:.3f}")
    student.load_state_dict(_load(folder / "best.pt", device)["student"])
    return student.eval()


def learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    """The learning rate of one step: a function of the step alone, so that resuming needs no scheduler's state."""
    share = step / total
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * (1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01)
    if share < _WARM_UP_SHARE:
        return settings.lr * (step + 1) / math.ceil(_WARM_UP_SHARE * total + 1)
    return settings.lr * (1 + math.cos(math.pi * (share - _WARM_UP_SHARE) / (1 - _WARM_UP_SHARE))) / 2


def _ask(
    teachers: Sequence[Teacher],
    objective: Objective,
    rows: np.ndarray,
    view: int | None,
    device: torch.device,
) -> tuple[Tensor, list[Tensor], list[Tensor]] | None:
    """What the teachers said of these views: the fields of :class:`TeacherOutputs`."""
    if not teachers:
        return None

    def stored(name: str) -> list[Tensor]:
        if name not in objective.needs:
            return []
        return [teacher.output(name, rows, view).to(device) for teacher in teachers]

    logits = torch.stack([teacher.logits(rows, view) for teacher in teachers]).to(device)
    return logits, stored("pooled"), stored("map")


def _optimizer(modules: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Weight decay falls on matrices and kernels alone, not on biases, norms and other vectors."""
    trained = [p for p in modules.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = trained[0].device.type in ("cpu", "cuda")  # one kernel for all parameters: ten times as fast on a CPU
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True, fused=fused)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, fused=fused)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.default_rng([seed, epoch, 1]).integers(2**62))


def _check_finite(means: dict[str, float], role: str, epoch: int) -> None:
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise RunError(
            f"The {role}'s {bad[0]} loss became {means[bad[0]]} in epoch {epoch + 1}: training diverged. "
            "Lower --lr, or use --precision 32."
        )


def _save(
    path: Path,
    student: nn.Module,
    objective: nn.Module,
    optimizer: Any,
    done: _Progress,
    better: bool,
) -> None:
    """The best weights first: if the process dies in between, the epoch is repeated and both are written again."""
    if better:
        write_atomically(
            path.with_name("best.pt"), lambda target: torch.save({"student": student.state_dict()}, target)
        )
    state = {
        "student": student.state_dict(),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": done.epoch,
        "best_epoch": done.best_epoch,
        "best_rank": list(done.best_rank),
    }
    write_atomically(path, lambda target: torch.save(state, target))


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    return torch.load(path, map_location=device, weights_only=True)


def _restore(path: Path, student: nn.Module, objective: nn.Module, optimizer: Any, device: torch.device) -> _Progress:
    if not path.exists():
        return _Progress()
    state = _load(path, device)
    student.load_state_dict(state["student"])
    objective.load_state_dict(state["objective"])
    optimizer.load_state_dict(state["optimizer"])
    return _Progress(state["epoch"], state["best_epoch"], (state["best_rank"][0], state["best_rank"][1]))
