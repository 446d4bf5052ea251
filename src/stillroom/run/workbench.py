"""What a recipe works with: the moves `student`, `teacher` and `fit`, and those beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from torch import nn

from stillroom.distillation.cutting import cut_out
from stillroom.distillation.teachers import Teacher
from stillroom.errors import UsageError
from stillroom.models.answers import answer_by
from stillroom.models.network import Network
from stillroom.models.saving import load_network
from stillroom.models.taps import FeatureKind
from stillroom.models.zoo import create, resolve_size, specification
from stillroom.run import networks
from stillroom.run.answered import answered
from stillroom.run.bench import Bench
from stillroom.run.teachers import ask, fine_tune, freeze, same_as_begun
from stillroom.settings.sections import TeacherSettings

ANSWERS_TRIED = 16
"""Images by which a teacher that answers by class is tried."""


class Workbench(Bench):
    """A bench with the networks that a run is about: its student, and whoever teaches it."""

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
        size, chosen = self.settings.student_data.size, self.settings.teacher
        plain = replace(chosen, feature_layers=1, teacher_precision="32")
        return self._teacher_network(chosen.teacher, size, self.settings.seed, plain)

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
        """A teacher, trained and asked: its outputs stand in the bank. Or the settings' table of answers, without a network.

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
        number = len(self.teachers) + 1
        role = "teacher" if number == 1 else f"teacher-{number}"
        if self.settings.teacher.teacher_answers:
            self.teachers.append(answered(self, role))
            return self.teachers[-1]
        network = self.untaught(name, seed=seed, size=size)
        if not isinstance(network.by_class, nn.Identity):
            if self.settings.teacher.teacher_lora:
                raise UsageError(f"{network.name} teaches by its answers as they are: leave out --teacher-lora.")
            same_as_begun(self, role, network)
            teacher = self.asked(network, needs=needs, label=role)
        elif (mode or self.settings.teacher.teacher_mode) == "frozen":
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
        if networks.stands(self.run, role):
            return load_network(folder).to(self.device)
        chosen = self.settings.teacher
        features = chosen.features or specification(self.settings.student.student).features
        network = self._student_network(pretrained, self.seed, features=features, feature_layers=chosen.feature_layers)
        freeze(self, role, network, frozenset())
        networks.save(self.run, role, network)
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

    def _student_network(
        self,
        pretrained: bool,
        seed: int,
        *,
        features: FeatureKind | None = None,
        feature_layers: int = 1,
        attention: bool = False,
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
            feature_layers=feature_layers,
            attention=attention,
        )
        if pretrained and chosen.student_from:
            large = create(chosen.student_from, classes=classes, size=size, pretrained=True, weights=weights)
            taken = cut_out(network, large, layers="first", elements="uniform", seed=seed)
            self.run.note(student_cut_out=taken)
        return network.to(self.device)

    def _teacher_network(self, name: str, size: int, seed: int, chosen: TeacherSettings | None = None) -> Network:
        chosen, task, spec = chosen or self.settings.teacher, self.task, specification(name)
        network = create(
            name,
            classes=len(task.classes),
            size=size,
            pretrained=chosen.pretrained,
            weights=chosen.weights,
            seed=seed,
            features=chosen.features or spec.features,
            feature_layers=chosen.feature_layers,
            precision=chosen.teacher_precision,
        ).to(self.device)
        if spec.says != "features":
            images, rows = self.sides.at(size)[0], self.data.train[:ANSWERS_TRIED]
            answer_by(network, spec, task.classes, task.exclusive, images.batch(rows))
        return network
