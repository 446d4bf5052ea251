"""What is simpler than distilling, made in seconds and judged beside it: linear probes, and always the commonest class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.distillation.bank import build_bank
from stillroom.distillation.linear_head import HeadData, fit_by_lbfgs
from stillroom.errors import UsageError
from stillroom.evaluation.intervals import group_indices
from stillroom.evaluation.roles import MAJORITY, PROBE_OF_STUDENT, PROBE_OF_TEACHER
from stillroom.models.network import Network
from stillroom.models.saving import load_network
from stillroom.models.weights import weights_digest
from stillroom.run import networks
from stillroom.run.workbench import Workbench
from stillroom.task import Task

_NEVER = 1e-6
"""The share of a class that no training image has, so that its logit is finite."""


@dataclass(frozen=True)
class Rival:
    """A simple rival.

    Attributes:
        logits: ``[N, K]`` its answer to every row.
        network: what gives that answer; None for the majority, which sees no image.
    """

    logits: np.ndarray
    network: Network | None


def make(bench: Workbench) -> dict[str, Rival]:
    """The rivals by role: ``probe_of_teacher``, ``probe_of_student`` and ``majority``, where there is one.

    Of a panel the first member counts that is not the student's own start, which has a probe anyway.

    The pretrained teacher, frozen, is a rival where the teacher is not that already; the student's start, frozen, where it
    is pretrained or cut out of a pretrained network. The control, the third, is trained by the recipe.
    """
    recipe, settings = bench.settings.recipe, bench.settings
    found: dict[str, Rival | None] = {}
    inputs = recipe.teacher_inputs(settings)
    if recipe.has_start(settings):  # the same probe twice says nothing new
        side = settings.student.student_size or settings.data.size
        start = settings.student.student_from or settings.student.student, side
        inputs = tuple((name, size) for name, size in inputs if (name, size or side) != start)
    first = inputs[0] if inputs else ("", None)
    probes = [teacher for teacher in bench.teachers if teacher.head is not None and teacher.name == first[0] != ""]
    if probes and len(bench.teachers) > 1:  # the panel holds it already
        probe, rows = probes[0], np.arange(len(bench.data.images))
        found[PROBE_OF_TEACHER] = Rival(probe.logits(rows, None).numpy(), probe.network)
    elif inputs and settings.teacher.pretrained and not probes:
        found[PROBE_OF_TEACHER] = _probe(bench, PROBE_OF_TEACHER, bench.untaught(first[0], size=first[1]))
    if recipe.has_start(settings):
        found[PROBE_OF_STUDENT] = _probe(bench, PROBE_OF_STUDENT, recipe.start(bench))
    logits = np.tile(majority_logits(bench.task, bench.data.targets[bench.data.train]), (len(bench.data.images), 1))
    return {role: rival for role, rival in found.items() if rival} | {MAJORITY: Rival(logits, None)}


def majority_logits(task: Task, targets: np.ndarray) -> np.ndarray:
    """``[K]`` logits whose probabilities are the classes' shares of these targets."""
    share = task.one_hot(targets).mean(axis=0, dtype=np.float64).clip(_NEVER, 1 - _NEVER)
    return (np.log(share) if task.exclusive else np.log(share) - np.log1p(-share)).astype(np.float32)


def _probe(bench: Workbench, role: str, network: Network) -> Rival | None:
    """``network`` as it is with a linear head for its features; None, with a note why, where it has no such head."""
    try:
        classifier = network.classifier()
    except UsageError as reason:
        bench.run.note(rivals_left_out=bench.run.manifest.get("rivals_left_out", {}) | {role: str(reason)})
        return None
    bench.labels_read.update(bench.data.train.tolist())
    network.requires_grad_(False).eval()
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)  # so that the bank's name depends on the backbone alone

    def pooled(images: Tensor) -> dict[str, Tensor]:
        return {"pooled": network.pooled(images)}

    data, folder = bench.seen_by(network), bench.run.path / role
    with bench.run.stage(role.replace("_", " ")):
        rows = np.arange(len(data.images))
        bank = build_bank(
            network,
            weights_digest(network),
            data.images,
            rows,
            [None],
            pooled,
            asks="pooled",
            label=role.replace("_", " "),
            show_progress=bench.show_progress,
        )
        features = bank.at("pooled", rows, None)
        if networks.stands(bench.run, role):
            network = load_network(folder).to(data.images.device)
        else:
            train, val, patients = data.train, data.val, bench.dataset.table.patients
            groups = None if patients is None else group_indices(patients[train])
            known = HeadData(features[train], data.targets[train], features[val], data.targets[val], groups)
            fitted = fit_by_lbfgs(bench.task, known)
            classifier.load_state_dict(fitted.linear.state_dict())
            value = fitted.value if math.isfinite(fitted.value) else None  # validation may hold one class only
            bench.run.note(**{role: {"network": network.name, "chosen": fitted.chosen, "validation": value}})
            networks.save(bench.run, role, network)
        with torch.no_grad():
            logits = network.classifier().cpu()(torch.from_numpy(features)).numpy()
    return Rival(logits, network.to(data.images.device))
