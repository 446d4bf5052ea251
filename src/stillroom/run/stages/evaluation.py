"""Figures of every network on the test split, and the files that they can be computed from again."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.data.inference import run_over
from stillroom.evaluation.assess import STUDENT, assess, worst_mistakes
from stillroom.evaluation.roles import TEACHER
from stillroom.files.atomic import write_arrays
from stillroom.run import repeats
from stillroom.run.stage import Evidence, Stage

_FEATURE_IMAGES = 2000
_GALLERY_IMAGES = 24


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

    worst = worst_mistakes(task, found.probabilities[STUDENT], table.targets, test, _GALLERY_IMAGES)
    pictures = np.round(images.batch(worst).cpu().numpy() * 255).astype(np.uint8)
    write_arrays(run.path / "gallery.npz", {"images": pictures, "index": worst})

    evidence.networks |= {role: rival.network for role, rival in evidence.simpler.items() if rival.network}
    if teacher := bench.teacher_network():
        evidence.networks[TEACHER] = teacher
    return found.figures


STAGE = Stage("evaluate", work)
