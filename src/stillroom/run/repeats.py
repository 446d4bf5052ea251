"""The trainings of a run: its own, and the repeats or folds by which luck is measured. Each stands in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import nn

from stillroom.data.inference import run_over
from stillroom.data.load import Dataset
from stillroom.evaluation.assess import predictions_frame
from stillroom.evaluation.calibration import fit_temperature
from stillroom.evaluation.roles import CONTROL, STUDENT
from stillroom.files.atomic import write_atomically
from stillroom.files.digests import stands
from stillroom.models.network import Network
from stillroom.run import probes
from stillroom.run.folder import Run
from stillroom.run.probes import Rival
from stillroom.run.taught_by import taught_by
from stillroom.run.workbench import Workbench
from stillroom.task import Task

if TYPE_CHECKING:
    from stillroom.evaluation.luck import Training

Probabilities = dict[str, np.ndarray]
"""Role to ``[N, K]`` calibrated probabilities of every row."""


@dataclass(frozen=True)
class Trained:
    """One training: its bench, and its networks by role, the student first."""

    bench: Workbench
    networks: dict[str, nn.Module]


def train(bench: Workbench, taught: Callable[[Network], None] = lambda student: None) -> Trained:
    """The student, its control and the networks on the way. ``taught`` is given the student before its control is trained."""
    run, recipe = bench.run, bench.settings.recipe
    student = recipe.run(bench)
    networks: dict[str, nn.Module] = {STUDENT: student}
    run.note(labels_read=len(bench.labels_read), training_images=len(bench.training_rows))
    taught(student)
    if recipe.has_control and bench.settings.evaluation.control:
        networks[CONTROL] = recipe.control(bench)
    run.note(
        teachers=[teacher.name for teacher in bench.teachers if teacher.network],
        taught_by=taught_by(bench),
        sides={"student": bench.dataset.store.size, "teachers": [t.images.store.size for t in bench.teachers]},
    )
    return Trained(bench, networks | bench.milestones)


def repeat(first: Trained) -> list[Trained]:
    """The run's own training and its repeats, in order."""
    bench, count = first.bench, first.bench.settings.evaluation.repeats
    if count == 1:
        return [first]
    with bench.run.stage("repeats"):
        return [first, *(train(bench.again(number)) for number in range(2, count + 1))]


def logits_of_networks(bench: Workbench, networks: dict[str, nn.Module]) -> dict[str, np.ndarray]:
    """``[N, K]`` of every row by role."""
    everything = np.arange(len(bench.dataset.table))
    return {role: run_over(network, bench.seen_by(network).images, everything) for role, network in networks.items()}


def logits_of(bench: Workbench, networks: dict[str, nn.Module], simpler: dict[str, Rival]) -> dict[str, np.ndarray]:
    """``[N, K]`` of every row by role. Several teachers count as one, the mean of their logits, and also stand alone.

    A teacher that is a table of answers is left out where it does not answer every row.
    """
    everything = np.arange(len(bench.dataset.table))
    logits = logits_of_networks(bench, networks)
    said = [teacher.logits(everything, None).numpy() for teacher in bench.teachers if teacher.answers(everything)]
    if said:
        logits["teacher"] = np.mean(said, axis=0)
    if len(said) > 1:
        logits |= {f"teacher_{number}": values for number, values in enumerate(said, 1)}
    return logits | {role: rival.logits for role, rival in simpler.items()}


def passes(run: Run) -> dict[str, int]:
    """How many images the student was shown on its whole way, and how many its control, an image counted at every pass.

    Searches are left out: both are given as many trials.
    """
    shown = {STUDENT: 0, CONTROL: 0}
    for line in run.history():
        role = line["role"]
        if not role.startswith(("teacher", "tuning")):
            shown[CONTROL if role == CONTROL else STUDENT] += line.get("images", 0)
    return shown


def write_predictions(run: Run, bench: Workbench, probabilities: Probabilities) -> None:
    """predictions.parquet in the folder of ``run``."""
    frame = predictions_frame(bench.task, bench.dataset.table, bench.dataset.store.digests, probabilities)
    write_atomically(run.path / "predictions.parquet", lambda target: frame.to_parquet(target, index=False))


def of_repeats(trainings: Sequence[Trained], said: Probabilities) -> list[Training]:
    """What luck is judged by: each repeat's student and control beside what all repeats share.

    Args:
        trainings: from :func:`repeat`.
        said: the run's own probabilities, of which teachers and rivals are taken.
    """
    found = []
    for number, training in enumerate(trainings, start=1):
        bench = training.bench
        part = bench.run if number > 1 else bench.run.part("repeats/1")  # the run's own file is of what is exported
        if not stands(part.path / "predictions.parquet"):
            own = {role: network for role, network in training.networks.items() if role in (STUDENT, CONTROL)}
            shared = {role: values for role, values in said.items() if role not in training.networks}
            write_predictions(part, bench, _calibrated(bench, logits_of_networks(bench, own)) | shared)
        found.append(_training(part, bench.task, len(bench.data.train)))
    return found


def of_folds(bench: Workbench, fold: Callable[[int], Dataset]) -> list[Training]:
    """What luck is judged by: every fold with trainings of its own; the first is the run itself, which is done.

    Args:
        bench: of the first fold.
        fold: gives the data set with the fold of a number, from 2, as its test split.
    """
    run = bench.run
    found = [_training(run, bench.task, len(bench.data.train))]
    with run.stage("folds"):
        for number in range(2, bench.settings.evaluation.folds + 1):
            part = run.part(f"folds/{number}")
            again = Workbench(part, fold(number), number=number, show_progress=bench.show_progress)
            if not stands(part.path / "predictions.parquet"):
                trained = train(again)
                simpler = probes.make(again) if bench.settings.evaluation.rivals else {}
                logits = logits_of(again, trained.networks, simpler)
                write_predictions(part, again, _calibrated(again, logits))
            found.append(_training(part, again.task, len(again.data.train)))
    return found


def luck_of(bench: Workbench, trainings: Sequence[Training]) -> dict[str, Any]:
    """The part ``luck`` of metrics.json."""
    from stillroom.evaluation.luck import Kind, luck

    wanted = bench.settings.evaluation
    kind: Kind = "folds" if wanted.folds > 1 else "repeats"
    return luck(bench.task, kind, trainings, margin=wanted.margin)


def _calibrated(bench: Workbench, logits: dict[str, np.ndarray]) -> Probabilities:
    task, val, targets = bench.task, bench.data.val, bench.data.targets
    return {
        role: task.probabilities(said, fit_temperature(task, said[val], targets[val])) for role, said in logits.items()
    }


def _training(part: Run, task: Task, train_images: int) -> Training:
    """A training as its predictions.parquet tells it."""
    from stillroom.evaluation.luck import Training

    frame = part.predictions()
    roles = list(dict.fromkeys(name.partition(":")[0] for name in frame.columns[5:]))
    test, val = (frame[frame["split"] == split] for split in ("test", "val"))

    def said(rows: pd.DataFrame) -> Probabilities:
        return {role: rows[[f"{role}:{name}" for name in task.classes]].to_numpy() for role in roles}

    patients = test["patient"].to_numpy(dtype=str)
    truth = task.parse(val["target"].tolist())
    return Training(
        probabilities=said(test),
        targets=task.parse(test["target"].tolist()),
        patients=patients if (patients != "").any() else None,
        ids=test["id"].to_numpy(dtype=str),
        train_images=train_images,
        validation={role: task.select(values, truth) for role, values in said(val).items()},
    )
