"""What a recipe works with: the data, the device, and the moves `teacher`, `student` and `fit`.

Every move leaves its result in the run folder and, when the result is there already, takes it from there. That is all
that resuming is: the recipe runs again, and finished moves return at once.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from stillroom.data.images import batches
from stillroom.data.load import Dataset
from stillroom.data.slices import stratified_slices
from stillroom.distillation.cutting import cut_out
from stillroom.distillation.step import Objective
from stillroom.distillation.teachers import Teacher
from stillroom.ending import calibrated_losses
from stillroom.errors import UsageError
from stillroom.evaluation.intervals import group_indices
from stillroom.feeding import TrainingData
from stillroom.inference import run_over
from stillroom.models.network import Network
from stillroom.models.saving import load_network, save_network
from stillroom.models.taps import FeatureKind
from stillroom.models.zoo import create, resolve_size
from stillroom.run import Run
from stillroom.sides import Sides, side_notes
from stillroom.teaching import ask, fine_tune, freeze
from stillroom.training import fit

_REPEATS_APART = 1_000_000
"""Between the seeds of repeats, so that runs with seeds 0, 1, 2 share none of their luck."""


class Workbench:
    """The workbench of one run.

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

    def again(self, number: int) -> Workbench:
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

    def side_notes(self) -> list[str]:
        """What to mind where the teachers are shown the student's images."""
        return side_notes(self.dataset.store.size, [teacher.images.store.size for teacher in self.teachers])

    # -- the moves ----------------------------------------------------------------------------------------------
    def student(self, *, attention: bool = False, seed: int | None = None) -> Network:
        """A student with its initial weights: the same every time it is called, so that a control starts alike.

        Args:
            attention: weigh its last feature map by spatial attention.
            seed: other than the run's, for a second student that starts elsewhere.
        """
        seed = self.seed if seed is None else seed
        return self._student_network(self.settings.student.starts_pretrained, seed, attention=attention)

    def pretrained(self) -> Network:
        """The network that the teacher's settings describe, before any training, at the student's input size."""
        size = self.settings.student_data.size
        return self._teacher_network(self.settings.teacher.teacher, size, self.settings.seed)

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
        if (folder / "model.json").exists():
            return load_network(folder).to(self.device).eval()
        network = self._fitted(role, network, objective, teachers, epochs, rows, lr, class_weights, seed)
        save_network(network, folder)
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

    def teacher(
        self,
        *,
        needs: frozenset[str] = frozenset(),
        name: str | None = None,
        seed: int | None = None,
        class_weights: bool | None = None,
        mode: Literal["frozen", "finetune"] | None = None,
        size: int | None = None,
    ) -> Teacher:
        """A teacher, trained and asked: its outputs stand in the bank.

        Args:
            needs: what it is asked for besides logits, see :class:`Objective`.
            name: another network than the settings', with all else as they say.
            seed: other than the run's, for a second teacher of the same kind.
            class_weights: whether fine-tuning weighs the labels' loss by class, where not as the run's settings say.
            mode: frozen or fine-tuned, where not as the settings say.
            size: of its input, where not as the settings say.
        """
        if self._made:
            self.teachers.append(self._made[len(self.teachers)])
            return self.teachers[-1]
        seed = self.seed if seed is None else seed
        network = self.untaught(name, seed=seed, size=size)
        number = len(self.teachers) + 1
        role = "teacher" if number == 1 else f"teacher-{number}"
        if (mode or self.settings.teacher.teacher_mode) == "frozen":
            teacher = freeze(self, role, network, needs)
        else:
            tuned = fine_tune(self, role, network, seed, class_weights)
            teacher = self.asked(tuned, needs=needs, label=role)
        self.teachers.append(teacher)
        return teacher

    def untaught(self, name: str | None = None, *, seed: int | None = None, size: int | None = None) -> Network:
        """The teacher before any training, at its own input size: for what depends on its shape alone."""
        chosen = self.settings.teacher
        name = name or chosen.teacher
        size = resolve_size(name, size or chosen.teacher_size, self.settings.data.size)
        return self._teacher_network(name, size, self.settings.seed if seed is None else seed)

    def probe(self, role: str, *, pretrained: bool = True) -> Network:
        """The student's network, frozen, with a linear head that is fitted as the teacher's settings say.

        Args:
            role: the folder's name, as for :meth:`fit`.
            pretrained: with False the backbone's weights are random.
        """
        folder = self.run.path / role
        self.labels_read.update(self.data.train.tolist())
        if (folder / "model.json").exists():
            return load_network(folder).to(self.device)
        features = self.settings.teacher.features
        network = self._student_network(pretrained, self.seed, features=features)
        network = freeze(self, role, network, frozenset()).network
        save_network(network, folder)
        return network

    def asked(
        self,
        network: Network,
        *,
        needs: frozenset[str] = frozenset(),
        rows: np.ndarray | None = None,
        label: str = "teacher",
    ) -> Teacher:
        """A trained network as a teacher: it is asked once for every image and view.

        Args:
            network: frozen by this.
            needs: what it is asked for besides logits.
            rows: the only images it will teach on. Default: it is asked for all, and teaches on ``data.train``.
            label: for progress bars and the log.
        """
        network.requires_grad_(False)
        return ask(self, network, needs - {"teacher_logits"} | {"logits", "pooled"}, label, rows)

    # -- how they are made --------------------------------------------------------------------------------------
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

    def _student_network(
        self, pretrained: bool, seed: int, *, features: FeatureKind | None = None, attention: bool = False
    ) -> Network:
        chosen, classes = self.settings.student, len(self.task.classes)
        size = self.settings.student_data.size
        weights = chosen.student_weights or self.settings.teacher.weights
        network = create(
            chosen.student,
            classes=classes,
            size=size,
            pretrained=pretrained and not chosen.student_from,
            weights=weights,
            seed=seed,
            features=features,
            attention=attention,
        )
        if pretrained and chosen.student_from:
            large = create(chosen.student_from, classes=classes, size=size, pretrained=True, weights=weights)
            taken = cut_out(network, large, layers="first", elements="uniform", seed=seed)
            self.run.note(student_cut_out=taken)
        return network.to(self.device)

    def _teacher_network(self, name: str, size: int, seed: int) -> Network:
        chosen = self.settings.teacher
        return create(
            name,
            classes=len(self.task.classes),
            size=size,
            pretrained=chosen.pretrained,
            weights=chosen.weights,
            seed=seed,
            features=chosen.features,
        ).to(self.device)


def pick_device(wanted: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``mps``. Raises UsageError where the machine lacks it."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there[wanted]:
        raise UsageError(f"This machine has no {wanted} device that torch can use. Give --device cpu or auto.")
    return torch.device(wanted)
