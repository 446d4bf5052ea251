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

from stillroom.data.images import Images, batches, endless, shuffled
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
        unlabelled: more images to learn from, by the teachers' soft targets alone; they have rows of their own.
    """

    images: Images
    targets: np.ndarray
    task: Task
    train: np.ndarray
    val: np.ndarray
    unlabelled: Images | None = None


@dataclass
class _Progress:
    """What changes from epoch to epoch beside the weights."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0  # from 1; 0 before the first
    best_rank: tuple[float, float] = (float("-inf"), float("-inf"))


_Said = tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]
"""The fields of :class:`TeacherOutputs`: Fabric walks through plain containers alone to convert their precision."""


class _Learner(nn.Module):
    """Student and objective as one module whose forward gives the losses, so that Fabric can wrap the pair."""

    def __init__(self, student: Network, objective: Objective, task: Task) -> None:
        super().__init__()
        self.student, self.objective, self.task = student, objective, task

    def forward(
        self,
        images: Tensor,
        targets: Tensor,
        teachers: _Said | None,
        others: Tensor | None,
        unlabelled: tuple[Tensor, _Said] | None,
        share: float,
        class_weights: Tensor | None,
    ) -> dict[str, Tensor]:
        """``others`` are second views of ``images``; ``unlabelled`` are other images and what the teachers said of them."""
        said = TeacherOutputs(*teachers) if teachers else None
        if unlabelled is None:
            outputs = self.student.outputs(images)
            other = None if others is None else self.student.outputs(others)
            return self.objective(Step(images, targets, outputs, said, self.task, share, class_weights, others, other))
        more, said_of_more = unlabelled
        # One pass over both, so that batch norm sees one batch.
        outputs = self.student.outputs(torch.cat(_alike(images, more)))
        labelled, free = outputs.of(slice(len(images))), outputs.of(slice(len(images), None))
        step = Step(images, targets, labelled, said, self.task, share, class_weights)
        without = Step(more, targets[:0], free, TeacherOutputs(*said_of_more), self.task, share)
        return self.objective(step) | self.objective.on_unlabelled(without)


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
    """Train ``student`` in place and return it with the weights of its best validation epoch, or of its last one where the
    objective reads no labels.

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
            view = 2 * epoch if objective.two_views else view_of_epoch(data.images.views, epoch)
            sums: dict[str, Tensor] = {}
            for number, rows in enumerate(batches(shuffled(data.train, seed, epoch), settings.batch_size)):
                step = epoch * steps_per_epoch + number
                lr = learning_rate(settings, step, total)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                losses = learner(
                    *_feed(data, objective, teachers, rows, view, step, seed),
                    share=step / total,
                    class_weights=weights,
                )
                optimizer.zero_grad()
                fabric.backward(torch.stack(list(losses.values())).sum())
                optimizer.step()
                objective.after_step(student, (step + 1) / total)
                for name, value in losses.items():
                    sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach() * len(rows)
                advance()
            means = {name: float(value) / len(data.train) for name, value in sums.items()}
            _check_finite(means, role, epoch)
            if objective.label_free:
                rank = (float(epoch), math.nan)  # nothing to select by: the last epoch counts as the best
            else:
                rank = task.rank(run_over(student, data.images, data.val), data.targets[data.val])
            done.epoch, better = epoch + 1, rank > done.best_rank
            if better:
                done.best_epoch, done.best_rank = epoch + 1, rank
            metric = None if objective.label_free else task.selection_metric
            log(
                {
                    "role": role,
                    "epoch": epoch + 1,
                    "epochs": settings.epochs,
                    "loss": sum(means.values()),
                    "losses": means,
                    "val": metric and {"metric": metric, "value": _finite(rank[0]), "nll": -rank[1]},
                    "lr": lr,
                    "seconds": round(time.perf_counter() - start, 3),
                    "best": better,
                }
            )
            _save(folder / _CHECKPOINT, student, objective, optimizer, done, better)
            found = f", validation {metric.replace('_', ' ')} {rank[0]:.3f}" if metric else ""
            advance(0, f"epoch {epoch + 1}/{settings.epochs}{found}")
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


def _feed(
    data: TrainingData,
    objective: Objective,
    teachers: Sequence[Teacher],
    rows: np.ndarray,
    view: int | None,
    step: int,
    seed: int,
) -> tuple[Tensor, Tensor, _Said | None, Tensor | None, tuple[Tensor, _Said] | None]:
    """What the learner is given for one step: images, targets, the teachers' answers, second views, unlabelled images."""
    device = data.images.device
    images = data.images.batch(rows, view)
    others = data.images.batch(rows, view + 1) if objective.two_views and view is not None else None
    targets = torch.from_numpy(data.targets[rows]).to(device)
    said = _ask(teachers, objective, rows, view, device)
    unlabelled = None
    if data.unlabelled is not None:
        more = endless(len(data.unlabelled), len(rows), step, seed)
        if objective.label_free:
            images = torch.cat(_alike(images, data.unlabelled.batch(more, view)))
            if others is not None and view is not None:
                others = torch.cat(_alike(others, data.unlabelled.batch(more, view + 1)))
        elif teachers:
            also = [teacher.unlabelled for teacher in teachers if teacher.unlabelled]
            answers = _ask(also, objective, more, view, device)
            unlabelled = (data.unlabelled.batch(more, view), answers) if answers else None
    return images, targets, said, others, unlabelled


def _alike(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both as colour where one is: grey is three equal channels to every network."""
    if first.shape[1] != second.shape[1]:
        return first.expand(-1, 3, -1, -1), second.expand(-1, 3, -1, -1)
    return first, second


def _ask(
    teachers: Sequence[Teacher],
    objective: Objective,
    rows: np.ndarray,
    view: int | None,
    device: torch.device,
) -> _Said | None:
    """What the teachers said of these views."""
    if not teachers:
        return None

    def stored(name: str) -> list[Tensor]:
        if name not in objective.needs:
            return []
        return [teacher.output(name, rows, view).to(device) for teacher in teachers]

    logits = torch.stack([teacher.logits(rows, view) for teacher in teachers]).to(device)
    return logits, stored("pooled"), stored("map"), stored("attention")


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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # validation may hold one class only


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
