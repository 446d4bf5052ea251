"""Figures of every network on the test split, and the files that they can be computed from again."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.data.contrast import squeezed
from stillroom.data.duplicates import duplicate_groups, find_pairs
from stillroom.data.inference import run_over
from stillroom.data.splits import joined
from stillroom.data.store import Store
from stillroom.data.table import Table
from stillroom.evaluation.assess import STUDENT, assess, worst_mistakes
from stillroom.evaluation.roles import TEACHER
from stillroom.files.atomic import write_arrays
from stillroom.run import repeats
from stillroom.run.stage import Evidence, Stage

_FEATURE_IMAGES = 2000
_GALLERY_IMAGES = 24
_LOOKED_THROUGH = 1000  # the surest wrong answers, among which those of one patient or picture are looked for
_BESIDE = 500  # test images that tell what all pictures of the set have in common
_MUCH_ALIKE = 0.95
"""Least correlation of two pictures that a gallery shows once: also the next frame of a film, which is no copy."""


def work(evidence: Evidence) -> dict[str, Any]:
    """Writes predictions.parquet, features.npz and gallery.npz."""
    run, bench, student = evidence.run, evidence.bench, evidence.student
    images, table, task = bench.data.images, bench.dataset.table, bench.task
    test = table.indices("test")
    evidence.logits = repeats.logits_of(bench, evidence.networks, evidence.simpler)
    evidence.assessment = found = assess(task, table, evidence.logits, run.settings.evaluation, run.settings.seed)
    repeats.write_predictions(run, bench, found.probabilities)

    shown = np.sort(np.random.default_rng(0).permutation(test)[:_FEATURE_IMAGES])
    features = {
        "student": run_over(student, images, shown, ask=lambda batch: student.outputs(batch).pooled),
        "index": shown,
    }
    by_class = any(teacher["mode"] == "as_is" for teacher in run.manifest["taught_by"])  # its answers are no features
    alone = len(bench.teachers) == 1 and not by_class
    if alone and "pooled" in bench.teachers[0].holds and bench.teachers[0].answers(shown):
        features["teacher"] = bench.teachers[0].output("pooled", shown, None).numpy()
    write_arrays(run.path / "features.npz", features)

    wrong = worst_mistakes(task, found.probabilities[STUDENT], table.targets, test)
    first, more = _each_once(table, bench.dataset.store, wrong[:_LOOKED_THROUGH], test)
    worst, more = first[:_GALLERY_IMAGES], more[:_GALLERY_IMAGES]
    pictures = np.round(images.batch(worst).cpu().numpy() * 255).astype(np.uint8)
    write_arrays(run.path / "gallery.npz", {"images": pictures, "index": worst, "left_out": more})

    evidence.networks |= {role: rival.network for role, rival in evidence.simpler.items() if rival.network}
    if teacher := bench.teacher_network():
        evidence.networks[TEACHER] = teacher
    return found.figures


def _each_once(table: Table, store: Store, wrong: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of ``wrong`` of every patient, or of every picture where patients are unknown, and how many more there are.

    Pictures are compared among test images, because what all have in common counts for nothing.
    """
    beside = np.setdiff1d(test, wrong)[: max(0, _BESIDE - len(wrong))]
    rows = np.concatenate([wrong, beside])
    pairs = find_pairs(store.digests[rows], store.thumbnails[rows], near=squeezed(store) is None, similar=_MUCH_ALIKE)
    alike = duplicate_groups(pairs, len(rows))[: len(wrong)]
    _, first, number = np.unique(joined(table.take(wrong), alike), return_index=True, return_counts=True)
    order = np.argsort(first)
    return wrong[first[order]], number[order] - 1


STAGE = Stage("evaluate", work)
