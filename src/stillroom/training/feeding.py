"""What the loop is fed: which images make an epoch, which go into a step, and what the teachers say of them.

An epoch is a pass over all that teach. Where only some images have labels that may be used, every step holds some of those
and some that the teachers alone tell about. All is a function of seed and step, so that a resumed run is fed the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillroom.data.images import Images, batches, endless, shuffled
from stillroom.data.views import view_of_epoch
from stillroom.distillation.step import Objective
from stillroom.distillation.teachers import Teacher
from stillroom.task import Task

LEAST_LABELLED_SHARE = 0.25
"""Of a step's images, however few the labels are: with 3 of 32 the labels' gradient would be noise."""
_STATISTICS_IMAGES = 1024

Said = tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]
"""The fields of :class:`TeacherOutputs`: Fabric walks through plain containers alone to convert their precision."""


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on and validated by.

    Attributes:
        images: the data set's images.
        targets: ``[N]`` or ``[N, K]``, for every row of the data set.
        task: what the targets mean.
        train: row numbers to train on.
        val: row numbers of validation. Never test rows.
        rest: row numbers of training images whose labels are not used: teachers alone tell about them.
        unlabelled: more images to learn from in that way; they have rows of their own.
        val_groups: ``[m]`` whole numbers from 0, equal for validation images of one patient; None where none are known.
    """

    images: Images
    targets: np.ndarray
    task: Task
    train: np.ndarray
    val: np.ndarray
    rest: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    unlabelled: Images | None = None
    val_groups: np.ndarray | None = None

    @property
    def free(self) -> int:
        """Number of images that teachers alone tell about."""
        return len(self.rest) + (len(self.unlabelled) if self.unlabelled else 0)


class Feed(NamedTuple):
    """One step: images ``[B, C, H, W]``, targets, the teachers' answers, second views, images without labels, and of
    mixtures the other images' targets with the share ``[B]`` of the images themselves.
    """

    images: Tensor
    targets: Tensor
    teachers: Said | None
    others: Tensor | None
    unlabelled: tuple[Tensor, Said] | None
    mixture: tuple[Tensor, Tensor] | None

    @property
    def passes(self) -> int:
        """How many images go through the student in this step."""
        views = len(self.images) * (1 if self.others is None else 2)
        return views + (len(self.unlabelled[0]) if self.unlabelled else 0)


class Feeder:
    """Cuts epochs into steps.

    Args:
        data: images, targets and rows.
        objective: whether it reads labels, compares two views, and what it asks of teachers.
        teachers: asked through their banks for the view that the student sees.
        batch_size: images in a step.
        seed: fixes their order.

    Attributes:
        steps: in an epoch.
        labelled_per_epoch: images with targets that an epoch shows; an image that comes twice counts twice.
    """

    def __init__(
        self, data: TrainingData, objective: Objective, teachers: Sequence[Teacher], batch_size: int, seed: int
    ) -> None:
        self.data, self.objective, self.teachers = data, objective, teachers
        self.batch_size, self.seed = batch_size, seed
        self._free = data.free if teachers and not objective.label_free else 0
        self.steps, self._labelled = steps_of_epoch(len(data.train), self._free, batch_size)
        self.labelled_per_epoch = self.steps * self._labelled if self._free else len(data.train)

    def epoch(self, epoch: int) -> Iterator[tuple[int, Feed]]:
        """The number of each step, counted from the first epoch's first, and what it is fed."""
        data, device, views = self.data, self.data.images.device, self.data.images.views
        own = 2 * epoch if self.objective.two_views else view_of_epoch(views, epoch)
        orders = None if self._free else batches(shuffled(data.train, self.seed, epoch), self.batch_size)
        for number in range(self.steps):
            step = epoch * self.steps + number
            rows = data.train[self._endless(len(data.train), step)] if orders is None else orders[number]
            images = data.images.batch(rows, own)
            others = data.images.batch(rows, own + 1) if self.objective.two_views and own is not None else None
            targets = torch.from_numpy(data.targets[rows]).to(device)
            said = _ask(self.teachers, self.objective, rows, own, device)
            if self.objective.label_free and data.unlabelled is not None:
                more = endless(len(data.unlabelled), len(rows), step, self.seed)
                images = torch.cat(alike(images, data.unlabelled.batch(more, own)))
                if others is not None and own is not None:
                    others = torch.cat(alike(others, data.unlabelled.batch(more, own + 1)))
            free = self._without_labels(step, own) if self._free else None
            yield step, Feed(images, targets, said, others, free, self._mixed_with(rows, own))

    def plain_images(self) -> Iterator[Tensor]:
        """Training images as they are, in batches: what running statistics are taken over."""
        rows = shuffled(np.concatenate([self.data.train, self.data.rest]), self.seed, 0)[:_STATISTICS_IMAGES]
        for batch in batches(rows, self.batch_size):
            yield self.data.images.batch(batch)

    def _endless(self, count: int, step: int) -> np.ndarray:
        return endless(count, self._labelled, step, self.seed)

    def _mixed_with(self, rows: np.ndarray, view: int | None) -> tuple[Tensor, Tensor] | None:
        """Targets of the images that these are mixed with, and ``[B]`` float32 the share of the images themselves."""
        data, device = self.data, self.data.images.device
        found = data.images.mixture(rows, view)
        if found is None:
            return None
        targets = torch.from_numpy(data.targets[found.partners])
        return targets.to(device), torch.from_numpy(found.share).float().to(device)

    def _without_labels(self, step: int, view: int | None) -> tuple[Tensor, Said] | None:
        """Images that teachers alone tell about, of the data set's own and of those that came without labels."""
        data, device = self.data, self.data.images.device
        numbers = endless(self._free, self.batch_size - self._labelled, step, self.seed)
        ours = data.rest[numbers[numbers < len(data.rest)]]
        more = numbers[numbers >= len(data.rest)] - len(data.rest)
        parts: list[tuple[Tensor, Said]] = []
        if len(ours) and (said := _ask(self.teachers, self.objective, ours, view, device)):
            parts.append((data.images.batch(ours, view), said))
        if len(more) and data.unlabelled is not None:
            also = [teacher.unlabelled for teacher in self.teachers if teacher.unlabelled]
            if said := _ask(also, self.objective, more, view, device):
                parts.append((data.unlabelled.batch(more, view), said))
        if len(parts) < 2:
            return parts[0] if parts else None
        (first, said), (second, also_said) = parts
        joined = [[torch.cat(pair) for pair in zip(said[k], also_said[k], strict=True)] for k in (1, 2, 3)]
        answers = (torch.cat([said[0], also_said[0]], dim=1), joined[0], joined[1], joined[2])
        return torch.cat(alike(first, second)), answers


def steps_of_epoch(labelled: int, free: int, batch_size: int) -> tuple[int, int]:
    """Steps in which all that teach come at least once, and how many images of a whole step have labels.

    Args:
        labelled: images with labels.
        free: images that teachers alone tell about.
        batch_size: images in a step.
    """
    if not free:
        return len(batches(np.arange(labelled), batch_size)), batch_size
    share = max(labelled / (labelled + free), LEAST_LABELLED_SHARE)
    each = min(max(2, round(share * batch_size)), batch_size - 1)
    return int(np.ceil(max(free / (batch_size - each), labelled / each))), each


def alike(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both as colour where one is: grey is three equal channels to every network."""
    if first.shape[1] != second.shape[1]:
        return first.expand(-1, 3, -1, -1), second.expand(-1, 3, -1, -1)
    return first, second


def _ask(
    teachers: Sequence[Teacher], objective: Objective, rows: np.ndarray, view: int | None, device: torch.device
) -> Said | None:
    """What the teachers said of these views."""
    if not teachers:
        return None

    def stored(name: str) -> list[Tensor]:
        if name not in objective.needs:
            return []
        return [teacher.output(name, rows, view).to(device) for teacher in teachers]

    logits = torch.stack([teacher.logits(rows, view) for teacher in teachers]).to(device)
    return logits, stored("pooled"), stored("map"), stored("attention")
