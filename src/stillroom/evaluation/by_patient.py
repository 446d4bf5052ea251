"""Figures of patients: a patient's answer is the mean of the calibrated probabilities of its images."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.evaluation.intervals import group_indices
from stillroom.evaluation.main_figures import Answers, main_figures, to_dict
from stillroom.shown import counted
from stillroom.task import Task

MOST_MIXED = 0.5
"""Where a larger share of patients has images of several classes, labels are of images: no figures of patients are given."""

FAVOURS = "This favours the network: such patients are likely the harder ones."
"""Of leaving out patients with images of several classes."""


def by_patient(
    task: Task, probabilities: dict[str, np.ndarray], targets: np.ndarray, patients: np.ndarray | None
) -> dict[str, Any] | None:
    """The figures by patient, ready for JSON; None where no patient is known, or each has one image.

    A patient has the class that all its images have. Patients whose images are of several classes are left out and counted:
    which one is theirs, the labels do not say. With several labels per image a label that only some of a patient's images
    have is left out for this patient, and its other labels stay. An image of unknown patient is a patient of its own.

    Args:
        probabilities: by role, ``[N, K]`` calibrated.
        targets: in the task's form.
        patients: ``[N]`` str, ``""`` where unknown.

    Returns:
        ``patients`` (that are judged), ``images``, ``left_out`` (patients; with several labels, pairs of patient and label),
        ``of`` (how many there are), ``positives`` (patients, by class), ``figures`` (by role: ``value``, ``low`` and ``high``
        by name; empty where more than half of the patients are left out) and ``notes``.
    """
    if patients is None or not (patients != "").any():
        return None
    members = group_indices(patients)
    count, images = int(members.max()) + 1, np.bincount(members)
    if count == len(members):
        return None
    truth = task.one_hot(targets)
    shown = np.stack([np.bincount(members, weights=column) for column in truth.T], axis=1)
    every, none = shown == images[:, None], shown == 0
    known = every | none
    lone = int((patients == "").sum())
    counts = "counts" if lone == 1 else "count"
    notes = [f"{counted(lone, 'image')} of unknown patient {counts} as a patient each."] if lone else []
    if task.exclusive:
        kept, mixed, of = known.all(axis=1), int((~known.all(axis=1)).sum()), count
    else:
        kept, mixed, of = known.any(axis=1), int((~known).sum()), known.size
    notes += _left_out(task, mixed, of)
    found: dict[str, Any] = {
        "patients": int(kept.sum()),
        "images": int(images[kept].sum()),
        "left_out": mixed,
        "of": of,
    }
    found |= {"positives": dict(zip(task.classes, every[kept].sum(axis=0).tolist(), strict=True)), "figures": {}}
    if mixed > MOST_MIXED * of or not kept.any():
        notes.append("That is most: labels are of images here, not of patients, and no figures by patient are given.")
        return found | {"notes": notes}
    said = every[kept].astype(np.uint8)
    absent = [task.classes[k] for k in task.scored if not said[:, k].any()]
    notes += [f"No patient is of {', '.join(absent)}: every mean leaves it out."] if absent else []
    whole = said.argmax(axis=1) if task.exclusive else said
    for role, answers in probabilities.items():
        mean = np.stack([np.bincount(members, weights=column) for column in answers.T], axis=1) / images[:, None]
        judged = Answers.of(task, mean[kept], whole, known=None if task.exclusive else known[kept])
        found["figures"][role] = to_dict(main_figures(judged))
    return found | {"notes": notes}


def _left_out(task: Task, mixed: int, of: int) -> list[str]:
    if not mixed:
        return []
    if task.exclusive:
        has, is_left = ("has", "is") if mixed == 1 else ("have", "are")
        return [f"{mixed:,} of {of:,} patients {has} images of several classes and {is_left} left out. {FAVOURS}"]
    return [
        f"Of {of:,} pairs of patient and label {mixed:,} are left out: some of the patient's images have the label, "
        f"others do not. {FAVOURS}"
    ]
