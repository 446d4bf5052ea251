"""How long the evaluation of many images takes and how much memory, part by part: figures, calibration, comparisons, sets of
classes and refusals, without the networks' own answers.

    python benchmarks/large_evaluation.py [--images 100000] [--labels 14] [--networks 3] [--each 1]

Each part is run in this order in one process on invented logits; memory is the most that the process has held, its imports
and the logits included. With --each 4 patients have four images each. The promise is 100,000 images with 14 labels in less
than two minutes and 2 GiB on two cores.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from stillroom.data.table import Table
from stillroom.evaluation.assess import assess
from stillroom.evaluation.conformal import coverage_report, fit_conformal
from stillroom.evaluation.ood import energy, fit_foreign_rule, foreign_report, refusal_report
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.task import MultiLabel

ROLES = ("student", "control", "teacher", "majority", "probe_of_teacher")
MOST_S, MOST_GIB = 120.0, 2.0


def gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(name: str, work: Callable[[], Any]) -> Any:
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    passed = time.perf_counter() - start, time.process_time() - cpu
    print(f"| {name} | {passed[0]:.1f} | {passed[1]:.1f} | {gib():.2f} |", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--each", type=int, default=1, help="images of a patient")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    task = MultiLabel(tuple(f"finding {k}" for k in range(given.labels)))
    images, val = given.images, given.images // 10
    everything = images + val
    prevalence = np.geomspace(0.01, 0.3, given.labels)
    targets = (rng.random((everything, given.labels)) < prevalence).astype(np.uint8)
    shared = rng.normal(size=targets.shape).astype(np.float32)
    logits = {
        role: (1.5 * targets - 2 + shared + rng.normal(0, 0.5, size=targets.shape)).astype(np.float32)
        for role in ROLES[: given.networks]
    }
    patients = None if given.each == 1 else np.char.add("p", (np.arange(everything) // given.each).astype(str))
    table = Table(
        name="invented",
        task=task,
        ids=np.arange(everything).astype(str),
        targets=targets,
        splits=np.repeat(["test", "val"], [images, val]),
        patients=patients,
        rows=np.arange(everything),
        reader=None,  # type: ignore[arg-type]
        source="invented",
    )
    print("| Part | Seconds | of processor time | GiB at most |\n|---|---:|---:|---:|")
    start, cpu = time.perf_counter(), time.process_time()
    timed("figures, calibration, comparisons", lambda: assess(task, table, logits, EvaluationSettings(), 0))
    own, test = logits["student"], slice(0, images)
    known = None if patients is None else patients[:images]
    rule = fit_conformal(task, own[images:], targets[images:], coverage=0.9, class_conditional=True)
    timed("sets of classes", lambda: coverage_report(task, rule, own[test], targets[test], patients=known))
    scores = energy(task, own[test]), rng.normal(size=images)
    foreign = fit_foreign_rule(energy(task, own[images:]), rng.normal(size=val), 0.05)
    timed("refusals", lambda: refusal_report(foreign, *scores, patients=known))
    outside = scores[0][:256] + 2, scores[1][:256] + 2
    timed("foreign images", lambda: foreign_report(foreign, scores, outside, "noise", patients=known))
    passed = time.perf_counter() - start, time.process_time() - cpu
    print(f"| **all** | {passed[0]:.1f} | {passed[1]:.1f} | {gib():.2f} |")
    sys.exit(passed[1] > MOST_S or gib() > MOST_GIB)


if __name__ == "__main__":
    main()
