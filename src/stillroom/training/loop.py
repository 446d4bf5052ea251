"""The only training loop. It knows no method: an objective turns a step into losses, the loop minimises their sum.

Everything that happens in epoch ``e`` is a function of the seed, ``e`` and the state at its start, and that state is
written whenever validation has been asked. A run killed at any moment therefore goes on to the same weights, bit for
bit on a CPU.
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

from stillroom.data.inference import run_over
from stillroom.distillation.step import Objective, Step, TeacherOutputs
from stillroom.distillation.teachers import Teacher
from stillroom.errors import RunError
from stillroom.evaluation.likelihood import calibrated_losses, clearly_better
from stillroom.models.adapters import learnt, merge, take_up
from stillroom.models.network import Network
from stillroom.progress import progress
from stillroom.settings.sections import TrainingSettings
from stillroom.task import Task
from stillroom.training import checkpoints
from stillroom.training.batch_norm import reestimate_statistics, statistics_lag
from stillroom.training.feeding import Feeder, Said, TrainingData, alike
from stillroom.training.learning_rates import learning_rate, optimizer_of, set_learning_rate

_LOOKS = 30
_SAVE_S = 60
"""A checkpoint is written after every look, and after the first epoch that ends so long after the last one."""

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision that was asked for


@dataclass
class _Progress:
    """What changes from epoch to epoch beside the weights. See :mod:`~stillroom.evaluation.likelihood`."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0  # the look, from 1, of the lowest mean loss; 0 before the first
    waited: int = 0  # looks in a row that were clearly worse than the best
    losses: np.ndarray | None = None
    best_losses: np.ndarray | None = None

    def kept_epoch(self, groups: np.ndarray | None) -> int:
        """The epoch whose weights are handed over: the last, unless an earlier one was clearly better."""
        if self.losses is None or self.best_losses is None:
            return self.epoch
        return self.best_epoch if clearly_better(self.best_losses, self.losses, groups) else self.epoch


class _Learner(nn.Module):
    """Student and objective as one module whose forward gives the losses, so that Fabric can wrap the pair."""

    def __init__(self, student: Network, objective: Objective, task: Task) -> None:
        super().__init__()
        self.student, self.objective, self.task = student, objective, task

    def forward(
        self,
        images: Tensor,
        targets: Tensor,
        teachers: Said | None,
        others: Tensor | None,
        unlabelled: tuple[Tensor, Said] | None,
        mixture: tuple[Tensor, Tensor] | None,
        share: float,
        class_weights: Tensor | None,
    ) -> dict[str, Tensor]:
        """``others`` are second views of ``images``; ``unlabelled`` are other images and what the teachers said of them;
        ``mixture`` holds the step's ``other_targets`` and ``share``.
        """
        said = TeacherOutputs(*teachers) if teachers else None
        also = mixture or (None, None)
        if unlabelled is None:
            outputs = self.student.outputs(images)
            other = None if others is None else self.student.outputs(others)
            step = Step(images, targets, outputs, said, self.task, share, class_weights, others, other, *also)
            return self.objective(step)
        more, said_of_more = unlabelled
        # One pass over both, so that batch norm sees one batch.
        outputs = self.student.outputs(torch.cat(alike(images, more)))
        labelled, free = outputs.of(slice(len(images))), outputs.of(slice(len(images), None))
        step = Step(images, targets, labelled, said, self.task, share, class_weights, None, None, *also)
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
    """Train ``student`` in place and return it with the weights of its end, see :mod:`~stillroom.evaluation.likelihood`.

    Args:
        student: trained in place, on ``data.images``'s device.
        objective: what is minimised.
        data: images, targets and the rows to train and validate on.
        settings: optimiser, schedule and budget.
        folder: where checkpoints stand; when it holds one of the same job, training goes on from it.
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
    learner, optimizer = fabric.setup(module, optimizer_of(student, objective, settings))
    weights = (
        torch.from_numpy(task.class_weights(data.targets[data.train])).to(device) if settings.class_weights else None
    )
    done = _restore(folder, student, objective, optimizer, device)
    feeder = Feeder(data, objective, teachers, settings.batch_size, seed)
    epochs = settings.epochs_of(feeder.steps)
    total = epochs * feeder.steps

    saved = time.monotonic()
    with progress(role, total, done=done.epoch * feeder.steps, enabled=show_progress) as advance:
        for epoch in range(done.epoch, epochs):
            if settings.patience and done.waited >= settings.patience:
                break
            start = time.perf_counter()
            torch.manual_seed(_epoch_seed(seed, epoch))  # dropout and drop-path draw from the global generator
            student.train()
            objective.train()
            sums: dict[str, Tensor] = {}
            images = 0
            for step, feed in feeder.epoch(epoch):
                lr = learning_rate(settings, step, total)
                set_learning_rate(optimizer, lr)
                losses = learner(*feed, share=step / total, class_weights=weights)
                optimizer.zero_grad()
                fabric.backward(torch.stack(list(losses.values())).sum())
                optimizer.step()
                objective.after_step(student, (step + 1) / total)
                for name, value in losses.items():
                    sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach() * len(feed.targets)
                images += feed.passes
                advance()
            means = {name: float(value) / feeder.labelled_per_epoch for name, value in sums.items()}
            _check_finite(means, role, epoch)
            done.epoch = epoch + 1
            looked = _is_look(done.epoch, epochs, settings.patience)
            found = None
            if looked and not objective.label_free:
                found = _look(student, data, done, role)
            line = {
                "role": role,
                "epoch": done.epoch,
                "epochs": epochs,
                "loss": sum(means.values()),
                "losses": means,
                "images": images,
                "val": found,
                "lr": lr,
                "seconds": round(time.perf_counter() - start, 3),
                "best": done.best_epoch == done.epoch,
            }
            ends = done.epoch == epochs or bool(settings.patience and done.waited >= settings.patience)
            log(line | ({"kept": done.kept_epoch(data.val_groups)} if ends else {}))
            if looked or time.monotonic() - saved > _SAVE_S:
                _save(folder, student, objective, optimizer, done)
                saved = time.monotonic()
            advance(0, f"epoch {done.epoch}/{epochs}{_in_words(found)}")
    if done.kept_epoch(data.val_groups) != done.epoch:
        best = checkpoints.best_weights(folder, done.best_epoch, device)
        if best is None:
            raise RunError(
                f"The best weights of the {role} in {folder} were changed or damaged while it trained: resume the run, "
                "and it trains that network anew."
            )
        take_up(student, best["student"])
    merge(student)
    if statistics_lag(student, done.epoch * feeder.steps):
        reestimate_statistics(student, feeder.plain_images())
    return student.eval()


def _look(student: Network, data: TrainingData, done: _Progress, role: str) -> dict[str, Any]:
    """Ask validation how the network does, and note it. Returns the log's ``val``.

    Raises:
        RunError: what it answers is no number, though its loss was one: the training diverged.
    """
    task, targets = data.task, data.targets[data.val]
    logits = run_over(student, data.images, data.val)
    if not np.isfinite(logits).all():
        raise RunError(
            f"The {role}'s answers to validation images are not finite numbers after epoch {done.epoch}: training diverged. "
            "Lower --lr, or use --precision 32."
        )
    done.losses = calibrated_losses(task, logits, targets)
    if done.best_losses is None or done.losses.mean() < done.best_losses.mean():
        done.best_epoch, done.best_losses = done.epoch, done.losses
    done.waited = done.waited + 1 if clearly_better(done.best_losses, done.losses, data.val_groups) else 0
    value, likelihood = task.rank(logits, targets)
    return {"metric": task.selection_metric, "value": _finite(value), "nll": -likelihood}


def _is_look(epoch: int, epochs: int, patience: int) -> bool:
    """Whether validation is asked after this epoch (from 1): at most some 30 times a training.

    With few labels an epoch is a few steps, and looking would take longer than learning.
    """
    return bool(patience) or epoch == epochs or epoch % max(1, round(epochs / _LOOKS)) == 0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # validation may hold one class only


def _in_words(found: dict[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return ""
    return f", validation {found['metric'].replace('_', ' ')} {found['value']:.3f}"


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.default_rng([seed, epoch, 1]).integers(2**62))


def _check_finite(means: dict[str, float], role: str, epoch: int) -> None:
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise RunError(
            f"The {role}'s {bad[0]} loss became {means[bad[0]]} in epoch {epoch + 1}: training diverged. "
            "Lower --lr, or use --precision 32."
        )


def _save(folder: Path, student: nn.Module, objective: nn.Module, optimizer: Any, done: _Progress) -> None:
    state = {
        "student": learnt(student),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": done.epoch,
        "best_epoch": done.best_epoch,
        "waited": done.waited,
        "losses": None if done.losses is None else torch.from_numpy(done.losses),
        "best_losses": None if done.best_losses is None else torch.from_numpy(done.best_losses),
    }
    checkpoints.save(folder, state, {"student": state["student"]} if done.best_epoch == done.epoch else None)


def _restore(folder: Path, student: nn.Module, objective: nn.Module, optimizer: Any, device: torch.device) -> _Progress:
    wanted = learnt(student), objective.state_dict()
    state = checkpoints.newest(folder, device, lambda state: checkpoints.is_of(state, *wanted, optimizer))
    if state is None:
        return _Progress()
    take_up(student, state["student"])
    objective.load_state_dict(state["objective"])
    optimizer.load_state_dict(state["optimizer"])
    losses, best = (None if state[name] is None else state[name].cpu().numpy() for name in ("losses", "best_losses"))
    return _Progress(state["epoch"], state["best_epoch"], state["waited"], losses, best)
