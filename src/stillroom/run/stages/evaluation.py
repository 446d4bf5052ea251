"""Figures of every network on the test split, and the files that they can be computed from again."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.data.duplicates import duplicate_groups, find_pairs
from stillroom.data.inference import run_over
from stillroom.data.store import Store
from stillroom.evaluation.assess import STUDENT, assess, worst_mistakes
from stillroom.evaluation.roles import TEACHER
from stillroom.files.atomic import write_arrays
from stillroom.run import repeats
from stillroom.run.stage import Evidence, Stage

_FEATURE_IMAGES = 2000
_GALLERY_IMAGES = 24
_LOOKED_THROUGH = 240  # wrong answers, among which copies of a picture are looked for


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
    worst, copies = _each_once(bench.dataset.store, wrong[:_LOOKED_THROUGH])
    worst, copies = worst[:_GALLERY_IMAGES], copies[:_GALLERY_IMAGES]
    pictures = np.round(images.batch(worst).cpu().numpy() * 255).astype(np.uint8)
    write_arrays(run.path / "gallery.npz", {"images": pictures, "index": worst, "copies": copies})

    evidence.networks |= {role: rival.network for role, rival in evidence.simpler.items() if rival.network}
    if teacher := bench.teacher_network():
        evidence.networks[TEACHER] = teacher
    return found.figures


def _each_once(store: Store, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of every picture, and how many more of ``rows`` show it again: the same or nearly so."""
    if not len(rows):
        return rows, np.zeros(0, np.int64)
    pairs = find_pairs(store.digests[rows], store.thumbnails[rows])
    _, first, number = np.unique(duplicate_groups(pairs, len(rows)), return_index=True, return_counts=True)
    order = np.argsort(first)
    return rows[first[order]], number[order] - 1


STAGE = Stage("evaluate", work)
