"""What a recipe works with: the data, the device, and the moves `teacher`, `student` and `fit`.

Every move leaves its result in the run folder and, when the result is there already, takes it from there. That is all
that resuming is: the recipe runs again, and finished moves return at once.
"""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillroom.data.images import Images
from stillroom.data.load import Dataset
from stillroom.data.views import view_numbers
from stillroom.distillation.bank import Ask, Bank, build_bank
from stillroom.distillation.linear_head import HeadData, fit_by_adam, fit_by_lbfgs
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.distillation.step import Objective
from stillroom.distillation.teachers import Teacher
from stillroom.errors import UsageError
from stillroom.files import write_atomically
from stillroom.models.network import Network
from stillroom.models.saving import load_network, save_network
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create, resolve_size
from stillroom.run import Run
from stillroom.training import TrainingData, fit


class Workbench:
    """The workbench of one run.

    Attributes:
        run: the run folder.
        settings: the run's settings.
        task: what the labels mean, as the recipe trains it.
        data: images, targets and split rows.
        teachers: every teacher made so far, in order.
    """

    def __init__(self, run: Run, dataset: Dataset, *, show_progress: bool = True) -> None:
        self.run, self.settings, self.dataset = run, run.settings, dataset
        self.show_progress = show_progress
        self.task = self.settings.recipe.adapt(dataset.table.task)
        device = pick_device(self.settings.device)
        images = Images(dataset.store, device, self.settings.views, self.settings.seed)
        table = dataset.table
        self.data = TrainingData(images, table.targets, self.task, table.indices("train"), table.indices("val"))
        self.teachers: list[Teacher] = []

    # -- the moves ----------------------------------------------------------------------------------------------
    def student(self) -> Network:
        """A student with its initial weights: the same every time it is called, so that a control starts alike."""
        chosen = self.settings.student
        return create(
            chosen.student,
            classes=len(self.task.classes),
            size=chosen.student_size or self.settings.data.size,
            pretrained=chosen.student_pretrained,
            weights=chosen.student_weights or self.settings.teacher.weights,
            seed=self.settings.seed,
        ).to(self.data.images.device)

    def fit(
        self,
        role: str,
        network: Network,
        objective: Objective,
        *,
        teachers: Sequence[Teacher] = (),
        epochs: int | None = None,
    ) -> Network:
        """Train ``network`` on the run's budget; the best epoch's weights are saved under the role's name.

        Args:
            role: ``student``, ``control``, ``teacher`` or a name of the recipe's own; also the folder's name.
            network: trained in place.
            objective: what is minimised.
            teachers: who is asked.
            epochs: another number of epochs than the run's.
        """
        if self.task.kind not in objective.kinds:
            supported = ", ".join(sorted(objective.kinds))
            raise UsageError(f"{type(objective).__name__} supports {supported} tasks; this one is {self.task.kind}.")
        for teacher in teachers:
            unanswered = objective.needs - {"teacher_logits"} - set(teacher.plain.arrays)
            if unanswered:
                raise UsageError(
                    f"{type(objective).__name__} needs the teacher's {' and '.join(sorted(unanswered))}, which the bank of "
                    f"a {self.settings.teacher.teacher_mode} teacher does not hold; it holds "
                    f"{' and '.join(sorted(teacher.plain.arrays))}."
                )
        folder = self.run.path / role
        if (folder / "model.json").exists():
            return load_network(folder).to(self.data.images.device).eval()
        training = self.settings.training
        training = replace(training, epochs=epochs) if epochs else training
        checkpoints = self.run.path / "checkpoints" / role
        with self.run.stage(f"train {role}"):
            network = fit(
                network,
                objective,
                self.data,
                training,
                folder=checkpoints,
                role=role,
                teachers=teachers,
                seed=self.settings.seed,
                log=self.run.log,
                show_progress=self.show_progress,
            )
        save_network(network, folder)
        shutil.rmtree(checkpoints, ignore_errors=True)
        with contextlib.suppress(OSError):
            checkpoints.parent.rmdir()
        return network

    def teacher(self) -> Teacher:
        """The teacher that the settings describe, trained and asked: its outputs stand in the bank."""
        chosen = self.settings.teacher
        network = create(
            chosen.teacher,
            classes=len(self.task.classes),
            size=resolve_size(chosen.teacher, chosen.teacher_size, self.settings.data.size),
            pretrained=chosen.pretrained,
            weights=chosen.weights,
            seed=self.settings.seed,
            features=chosen.features,
        ).to(self.data.images.device)
        make = self._frozen if chosen.teacher_mode == "frozen" else self._fine_tuned
        self.teachers.append(make(network))
        return self.teachers[-1]

    # -- how teachers are made ----------------------------------------------------------------------------------
    def _frozen(self, network: Network) -> Teacher:
        """A frozen backbone: its features are stored once, and the linear head is fitted on them."""
        network.requires_grad_(False).eval()
        classifier = network.classifier()
        for parameter in classifier.parameters():
            nn.init.zeros_(parameter)  # so that the bank's name depends on the backbone alone
        kind = self.settings.teacher.features

        def ask(images: Tensor) -> dict[str, Tensor]:
            return {"features": network.backbone_features(images, kind)}

        with self.run.stage("ask teacher"):
            plain, views = self._banks(network, ask, asks=f"features {kind}")
        file = self.run.path / "teacher" / "head.safetensors"
        if not file.exists():
            with self.run.stage("fit teacher's head"):
                fitted = self._fit_head(plain)
            write_atomically(file, lambda target: save_file(fitted.state_dict(), target))
        classifier.load_state_dict(load_file(file))
        return Teacher(network, plain, views, ask, self.data.images, copy.deepcopy(classifier).cpu())

    def _fit_head(self, plain: Bank) -> nn.Linear:
        data, chosen = self.data, self.settings.teacher
        found = HeadData(
            plain.at("features", data.train, None),
            data.targets[data.train],
            plain.at("features", data.val, None),
            data.targets[data.val],
        )
        if chosen.head_solver == "lbfgs":
            fitted = fit_by_lbfgs(self.task, found)
        else:
            epochs = chosen.teacher_epochs or self.settings.training.epochs
            fitted = fit_by_adam(self.task, found, epochs=epochs, seed=self.settings.seed)
        value = fitted.value if math.isfinite(fitted.value) else None  # validation may hold one class only
        self.run.note(teacher_head={"chosen": fitted.chosen, "validation": value})
        return fitted.linear

    def _fine_tuned(self, network: Network) -> Teacher:
        tuned = self.fit("teacher", network, LabelLoss(), epochs=self.settings.teacher.teacher_epochs)

        def ask(images: Tensor) -> dict[str, Tensor]:
            found = tuned.outputs(images)
            return {"logits": found.logits, "pooled": found.pooled}

        with self.run.stage("ask teacher"):
            plain, views = self._banks(tuned, ask, asks="logits pooled")
        return Teacher(tuned.requires_grad_(False), plain, views, ask, self.data.images)

    def _banks(self, network: Network, ask: Ask, *, asks: str) -> tuple[Bank, Bank | None]:
        """Every image as it is, and the training images' views, if epochs share any."""
        images, digest = self.data.images, weights_digest(network)

        def bank(rows: np.ndarray, views: Sequence[int | None], label: str) -> Bank:
            return build_bank(
                network,
                digest,
                images,
                rows,
                views,
                ask,
                asks=asks,
                label=label,
                show_progress=self.show_progress,
            )

        plain = bank(np.arange(len(images)), [None], "teacher, as is")
        numbers = view_numbers(self.settings.views)
        if numbers == [None]:
            return plain, plain
        return plain, bank(self.data.train, numbers, "teacher, views") if numbers else None


def pick_device(wanted: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``mps``. Raises UsageError where the machine lacks it."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there[wanted]:
        raise UsageError(f"This machine has no {wanted} device that torch can use. Give --device cpu or auto.")
    return torch.device(wanted)
