"""What every move of a run works on: the data, the device, and the budget; and the one that trains a network on them.

Every move leaves its result in the run folder and, when the result is there already, takes it from there. That is all
that resuming is: the recipe runs again, and finished moves return at once.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from torch import nn

from stillroom.data.images import batches
from stillroom.data.inference import run_over
from stillroom.data.load import Dataset
from stillroom.data.slices import stratified_slices
from stillroom.distillation.step import Objective
from stillroom.distillation.teachers import Panel, Teacher
from stillroom.errors import UsageError
from stillroom.evaluation.intervals import group_indices
from stillroom.evaluation.likelihood import calibrated_losses
from stillroom.models.device import pick_device
from stillroom.models.network import Network
from stillroom.models.saving import load_network
from stillroom.run import networks
from stillroom.run.folder import Run
from stillroom.run.sides import Sides, side_notes
from stillroom.training.feeding import TrainingData
from stillroom.training.loop import fit

_REPEATS_APART = 1_000_000
"""Between the seeds of repeats, so that runs with seeds 0, 1, 2 share none of their luck."""


class Bench:
    """The data of one run, and what is trained on it.

    Attributes:
        run: the run folder.
        settings: the run's settings.
        task: what the labels mean, as the recipe trains it.
        data: images, targets and split rows; ``data.train`` holds the training images whose labels may be used, ``data.rest``
            those that teachers alone tell about.
        device: where the networks run.
        sides: the images at the input side of any network.
        training_rows: ``[n]`` every training image, for what reads no labels.
        teachers: every teacher made so far, in order.
        milestones: networks on the recipe's way that are evaluated beside the student, by role.
        labels_read: row numbers of the training images whose labels anything has learnt from.
        seed: of what is luck in a training: initial weights that are random, and the order of the images. Another one in
            each of several trainings, of which this is the one with ``number``.
    """

    def __init__(self, run: Run, dataset: Dataset, *, number: int = 1, show_progress: bool = True) -> None:
        self.run, self.settings, self.dataset = run, run.settings, dataset
        self.show_progress = show_progress
        self.task = self.settings.recipe.adapt(dataset.table.task)
        self.device, table = pick_device(self.settings.device), dataset.table
        self.training_rows = table.indices("train")
        labelled = self.slices(1, self.settings.training.label_fraction, self.training_rows)[0]
        training, taught = self.settings.training, self.settings.recipe.has_teacher
        rest = np.setdiff1d(self.training_rows, labelled)
        self.sides = Sides(dataset, self.device, self.settings, (labelled, rest), show_progress=show_progress)
        images, unlabelled = self.sides.at(dataset.store.size)
        self.data = TrainingData(
            images,
            table.targets,
            self.task,
            labelled,
            table.indices("val"),
            rest if training.teach_rest and taught else rest[:0],
            unlabelled,
            None if table.patients is None else group_indices(table.patients[table.indices("val")]),
        )
        self.teachers: list[Teacher] = []
        self.milestones: dict[str, Network] = {}
        self.labels_read: set[int] = set()
        self.seed = self.settings.seed + _REPEATS_APART * (number - 1)
        self._made: Sequence[Teacher] = ()

    def again(self, number: int) -> Self:
        """The bench for another training that differs in luck alone, in the folder ``repeats/<number>``.

        Images, views and the labels that may be read are this bench's; :meth:`teacher` gives the teachers that this one has
        made, in their order.
        """
        other = copy.copy(self)
        other.run, other.seed = self.run.part(f"repeats/{number}"), self.settings.seed + _REPEATS_APART * (number - 1)
        other.teachers, other.milestones, other.labels_read = [], {}, set()
        other._made = self.teachers
        return other

    def seen_by(self, network: nn.Module) -> TrainingData:
        """``data`` with the images at the network's own side; at the student's for a panel of several networks."""
        if not isinstance(network, Network):
            return self.data
        images, unlabelled = self.sides.at(network.input_size[0])
        return replace(self.data, images=images, unlabelled=unlabelled)

    def teacher_network(self) -> nn.Module | None:
        """The teacher; of several, the mean of their logits; None without one, or where a table of answers teaches."""
        found = [teacher.network for teacher in self.teachers if teacher.network]
        return Panel(found) if len(found) > 1 else found[0] if found else None

    def side_notes(self) -> list[str]:
        """What to mind where the teachers are shown the student's images."""
        return side_notes(self.dataset.store.size, [teacher.images.store.size for teacher in self.teachers])

    def slices(self, count: int, fraction: float, rows: np.ndarray | None = None, *, draw: int = 0) -> list[np.ndarray]:
        """``count`` disjoint slices, each this share of ``rows`` (default: the labelled ones), every class in each.

        Another ``draw`` deals the rows anew.
        """
        rows = self.data.train if rows is None else rows
        return stratified_slices(
            self.task.one_hot(self.dataset.table.targets[rows]), rows, count, fraction, (self.settings.seed, draw)
        )

    def fit(
        self,
        role: str,
        network: Network,
        objective: Objective,
        *,
        teachers: Sequence[Teacher] = (),
        epochs: int | None = None,
        rows: np.ndarray | None = None,
        lr: float | None = None,
        class_weights: bool | None = None,
        seed: int | None = None,
    ) -> Network:
        """Train ``network`` on the run's budget; the weights of its end are saved under the role's name.

        Args:
            role: ``student``, ``control``, ``teacher`` or a name of the recipe's own; also the folder's name.
            network: trained in place.
            objective: what is minimised.
            teachers: who is asked.
            epochs: another number of epochs than the run's.
            rows: other training images than ``data.train``.
            lr: another peak learning rate than the run's.
            class_weights: whether to weigh the labels' loss by class, where not as the run's settings say.
            seed: of the order of the images, other than the run's.
        """
        folder = self.run.path / role
        if not objective.label_free:
            self.labels_read.update((self.data.train if rows is None else rows).tolist())
        if networks.stands(self.run, role):
            done = load_network(folder).to(self.device).eval()
            networks.note(self.run, role, done)  # a teacher from the cache, or a kill came before it was
            return done
        network = self._fitted(role, network, objective, teachers, epochs, rows, lr, class_weights, seed)
        networks.save(self.run, role, network)
        self._forget(role)
        return network

    def trial(
        self,
        role: str,
        network: Network,
        objective: Objective,
        *,
        teachers: Sequence[Teacher] = (),
        epochs: int | None = None,
        rows: np.ndarray | None = None,
        lr: float | None = None,
    ) -> float:
        """Like :meth:`fit`, but nothing is kept; returns validation's calibrated log-likelihood, higher is better."""
        self._forget(role)  # a trial that was stopped is not gone on with: the next one is another point
        try:
            network = self._fitted(role, network, objective, teachers, epochs, rows, lr)
        finally:
            self._forget(role)
        data = self.seen_by(network)
        logits = run_over(network, data.images, data.val)
        return -float(calibrated_losses(data.task, logits, data.targets[data.val]).mean())

    def epochs(self, rows: np.ndarray) -> int:
        """How many epochs the run's budget gives a network that is trained on these images with their labels."""
        return self.settings.training.epochs_of(len(batches(rows, self.settings.training.batch_size)))

    def control_epochs(self, rows: np.ndarray | None = None) -> int:
        """Epochs that show a control as many images as the student has seen on its whole way, by the run's own count.

        Args:
            rows: what an epoch of the control passes over. Default: ``data.train``.
        """
        rows = self.data.train if rows is None else rows
        apart = ("teacher", "control", "tuning", "probe")
        seen = sum(line.get("images", 0) for line in self.run.history() if not line["role"].startswith(apart))
        return max(1, round(seen / len(rows))) if seen else self.epochs(rows)

    def epochs_alone(self) -> int:
        """Epochs on the labels alone that show as many images as a teacher would teach in the run's budget."""
        training, epochs = self.settings.training, self.epochs(self.data.train)
        longer = training.steps is None and training.teach_rest
        return max(1, round(epochs * len(self.training_rows) / len(self.data.train))) if longer else epochs

    def _fitted(
        self,
        role: str,
        network: Network,
        objective: Objective,
        teachers: Sequence[Teacher],
        epochs: int | None,
        rows: np.ndarray | None,
        lr: float | None,
        class_weights: bool | None = None,
        seed: int | None = None,
    ) -> Network:
        self._check(objective, teachers, rows)
        chosen = self.settings.training
        settings = replace(
            chosen,
            epochs=epochs or chosen.epochs,
            steps=None if epochs else chosen.steps,
            lr=lr or chosen.lr,
            class_weights=chosen.class_weights if class_weights is None else class_weights,
        )
        data = self.seen_by(network)
        with self.run.stage(f"train {role}"):
            return fit(
                network,
                objective,
                data if rows is None else replace(data, train=rows, rest=data.rest[:0]),
                settings,
                folder=self.run.path / "checkpoints" / role,
                role=role,
                teachers=teachers,
                seed=self.seed if seed is None else seed,
                log=self.run.log,
                show_progress=self.show_progress,
            )

    def _forget(self, role: str) -> None:
        """Remove the checkpoints of a training that is done."""
        folder = self.run.path / "checkpoints"
        shutil.rmtree(folder / role, ignore_errors=True)
        for place in ((folder / role).parent, folder):
            with contextlib.suppress(OSError):
                place.rmdir()

    def _check(self, objective: Objective, teachers: Sequence[Teacher], rows: np.ndarray | None) -> None:
        name = type(objective).__name__
        if self.task.kind not in objective.kinds:
            supported = ", ".join(sorted(objective.kinds))
            raise UsageError(f"{name} supports {supported} tasks; this one is {self.task.kind}.")
        views = self.settings.views
        if objective.two_views and views.augment == "none":
            raise UsageError(f"{name} compares two views of each image: give --augment light or strong.")
        if views.mix != "none" and objective.two_views:
            raise UsageError(f"{name} compares two views of one image, and --mix shows two images: give --mix none.")
        if views.mix != "none" and rows is not None and not np.isin(self.data.train, rows).all():
            raise UsageError(
                "--mix would mix images of a slice of the labels with images outside of it: give --mix none."
            )
        for teacher in teachers:
            unanswered = objective.needs - {"teacher_logits"} - teacher.holds
            if unanswered:
                raise UsageError(
                    f"{name} needs the teacher's {' and '.join(sorted(unanswered))}, for which its recipe did not ask: "
                    f"the bank holds {' and '.join(sorted(teacher.holds))}."
                )
