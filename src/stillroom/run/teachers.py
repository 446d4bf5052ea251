"""How the workbench makes teachers: a frozen backbone with a fitted head, or a fine-tuned network; then it is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stillroom.data.images import Images
from stillroom.data.views import view_numbers
from stillroom.distillation.bank import Bank, build_bank
from stillroom.distillation.linear_head import FittedHead, HeadData, fit_by_adam, fit_by_lbfgs
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.distillation.teachers import Teacher, question
from stillroom.distillation.tuned import keep, recall
from stillroom.errors import RunError, UsageError
from stillroom.evaluation.intervals import group_indices
from stillroom.files.atomic import write_atomically
from stillroom.files.cache import fingerprint
from stillroom.files.digests import stands
from stillroom.models.adapters import adapt
from stillroom.models.network import Network
from stillroom.models.weights import weights_digest
from stillroom.run import networks

if TYPE_CHECKING:
    from stillroom.run.bench import Bench

_TRAINING_VERSION = 2
"""Raised whenever a change of the loop alters what training gives: teachers kept from before are then not found."""


def freeze(bench: Bench, role: str, network: Network, needs: frozenset[str]) -> Teacher:
    """A frozen backbone: its features are stored once, and the linear head is fitted on them."""
    bench.labels_read.update(bench.data.train.tolist())
    network.requires_grad_(False).eval()
    classifier = network.classifier()
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)  # so that the bank's name depends on the backbone alone
    digest = same_as_begun(bench, role, network)
    asked = ask(bench, network, needs - {"teacher_logits"} | {"pooled"}, role, digest=digest)
    head = fitted_head(bench, role, asked.banks[0])
    classifier.load_state_dict(head.state_dict())
    return replace(asked, head=head, unlabelled=asked.unlabelled and replace(asked.unlabelled, head=head))


def same_as_begun(bench: Bench, role: str, network: Network) -> str:
    """The digest of a teacher's weights as they came, written into the manifest when it is first asked.

    Raises:
        RunError: it is another one than when the run began: two teachers would have taught one student.
    """
    digest, begun = weights_digest(network), bench.run.manifest.get("teachers_as_they_came", {})
    if begun.get(role, digest) != digest:
        raise RunError(
            f"The {role} {network.name} is not the one that {bench.run.path} began with: its weights, or the code or "
            "settings that read them, have changed. Bring the old ones back, or start a new run."
        )
    bench.run.note(teachers_as_they_came=begun | {role: digest})
    return digest


def fitted_head(bench: Bench, role: str, plain: Bank) -> nn.Linear:
    """The linear head of the pooled features in a bank, on the CPU; fitted once, then read from the run folder."""
    file = bench.run.path / role / "head.safetensors"
    if not stands(file):
        with bench.run.stage(f"fit {role}'s head"):
            fitted = _fit_head(bench, plain)
        value = fitted.value if math.isfinite(fitted.value) else None  # validation may hold one class only
        bench.run.note(**{f"{role}_head": {"chosen": fitted.chosen, "validation": value}})
        write_atomically(file, lambda target: save_file(fitted.linear.state_dict(), target))
    weights = load_file(file)
    head = nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
    head.load_state_dict(weights)
    return head


def fine_tune(bench: Bench, role: str, network: Network, seed: int, class_weights: bool | None) -> Network:
    """The network trained on the labels; taken from the cache where an equal one was trained before."""
    chosen, data = bench.settings.teacher, bench.seen_by(network)
    if network.precision != "32":
        raise UsageError("--teacher-precision bf16 is for a frozen teacher, and this one is fine-tuned: leave it out.")
    training = replace(
        bench.settings.training,
        epochs=chosen.teacher_epochs or bench.epochs(data.train),
        steps=None,
        lr=chosen.teacher_lr or bench.settings.training.lr,
        class_weights=bench.settings.training.class_weights if class_weights is None else class_weights,
    )
    name = fingerprint(
        (_TRAINING_VERSION, torch.__version__, timm.__version__, data.images.device.type),
        same_as_begun(bench, role, network),
        data.images.store.fingerprint,
        bench.task.describe(),
        data.targets.tolist(),
        [rows.tolist() for rows in (data.train, data.val, data.rest)],
        replace(training, unlabelled=None),
        (bench.settings.views, data.images.policy, seed),
        *((("lora", chosen.teacher_lora),) if chosen.teacher_lora else ()),
    )
    folder = bench.run.path / role

    def tell(history: list[dict[str, Any]]) -> None:
        for line in history:
            bench.run.log(line | {"role": role})
        bench.run.note(**{f"{role}_from_cache": name})

    if not networks.stands(bench.run, role):
        recall(name, folder, tell)
    if chosen.teacher_lora:
        adapt(network, chosen.teacher_lora, seed)
    network = bench.fit(
        role,
        network,
        LabelLoss(),
        epochs=training.epochs,
        lr=training.lr,
        class_weights=training.class_weights,
        seed=seed,
    )
    keep(name, folder, [line for line in bench.run.history() if line["role"] == role])
    return network


def ask(
    bench: Bench,
    network: Network,
    names: frozenset[str],
    label: str,
    rows: np.ndarray | None = None,
    digest: str | None = None,
) -> Teacher:
    """The network with its answers to every image, and to the views it teaches on, in banks; at its own input side.

    Args:
        names: which outputs, see :func:`~stillroom.distillation.teachers.question`.
        label: for progress bars and the log.
        rows: the only images that are asked for. Default: all as they are, and the views of those that are taught.
        digest: of its weights, where it is known already.
    """
    # The most epochs that a student could be taught: where teachers alone tell about more images, they are fewer.
    epochs = bench.epochs(bench.data.train if rows is None else rows)
    question_, views = question(network, names), view_numbers(bench.settings.views, epochs)
    digest, asks = digest or weights_digest(network), " ".join(sorted(names))

    def bank(images: Images, rows: np.ndarray, views: Sequence[int | None], what: str) -> Bank:
        return build_bank(
            network,
            digest,
            images,
            rows,
            views,
            question_,
            asks=asks,
            label=f"{label}, {what}",
            show_progress=bench.show_progress,
        )

    images, more = bench.sides.at(network.input_size[0])
    with bench.run.stage(f"ask {label}"):
        banks = [bank(images, np.arange(len(images)) if rows is None else rows, [None], "as is")]
        if views and views != [None]:
            taught = np.union1d(bench.data.train, bench.data.rest) if rows is None else rows
            banks.append(bank(images, taught, views, "views"))
        unlabelled = None
        if more is not None:
            also = (bank(more, np.arange(len(more)), views, "unlabelled"),) if views else ()
            unlabelled = Teacher(network, also, question_, more)
    return Teacher(network, tuple(banks), question_, images, unlabelled=unlabelled)


def _fit_head(bench: Bench, plain: Bank) -> FittedHead:
    data, chosen, patients = bench.data, bench.settings.teacher, bench.dataset.table.patients
    found = HeadData(
        plain.at("pooled", data.train, None),
        data.targets[data.train],
        plain.at("pooled", data.val, None),
        data.targets[data.val],
        None if patients is None else group_indices(patients[data.train]),
    )
    if chosen.head_solver == "lbfgs":
        return fit_by_lbfgs(bench.task, found)
    epochs = chosen.teacher_epochs or bench.epochs(data.train)
    return fit_by_adam(bench.task, found, epochs=epochs, seed=bench.settings.seed)
