"""Does the demonstration's student keep up with its teacher, and pass its control? `stillroom demo` with several seeds.

    python benchmarks/demo_seeds.py --out runs/demo-seeds --seeds 0 1 2 3 4
    python benchmarks/demo_seeds.py --out runs/demo-seeds --seeds 5 6 7 8 9 --plan runs/demo-seeds/1/plan.yaml

Every seed draws phantoms of its own, plans and trains; figures are of the test images. Differences are paired; their
intervals are Student's t over the seeds. Seeds whose report is there are not run again. The machine must have nothing else
to do, because a plan times its steps; with ``--plan`` every seed follows the choices of one plan instead and explains and
times nothing, so that other work does not matter.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import t

from stillroom import Run, distill, read_plan
from stillroom.cli.demo import run_demo

ROLES = ("student", "control", "teacher")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--plan", type=Path, help="follow the choices of this plan.yaml")
    arguments = parser.parse_args()
    planned = read_plan(arguments.plan) if arguments.plan else None
    found = []
    for seed in arguments.seeds:
        path = arguments.out / str(seed)
        if not (path / "report.html").exists():
            begun = time.monotonic()
            if planned:
                untimed = replace(planned.settings.evaluation, latency=False, explain=0)
                settings = replace(planned.settings, seed=seed, evaluation=untimed)
                distill(replace(planned, settings=settings), path, show_progress=False)
            else:
                run_demo(path, seed=seed, show_progress=False)
            print(f"seed {seed}: {time.monotonic() - begun:.0f} s", flush=True)
        run = Run.open(path)
        test = run.metrics["test"]
        found.append([[test[role][figure]["value"] for figure in ("auc", "accuracy")] for role in ROLES])
    figures = np.array(found)  # seeds, roles, figures
    print("\n| seed | " + " | ".join(ROLES) + " |\n|---|---|---|---|")
    for seed, row in zip(arguments.seeds, figures, strict=True):
        print(f"| {seed} | " + " | ".join(f"{auc:.3f} / {accuracy:.3f}" for auc, accuracy in row) + " |")
    print("| mean | " + " | ".join(f"{auc:.3f} / {accuracy:.3f}" for auc, accuracy in figures.mean(0)) + " |\n")
    for number, figure in enumerate(("AUC", "accuracy")):
        for other in (1, 2):
            apart = figures[:, 0, number] - figures[:, other, number]
            half = t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
            low, high = apart.mean() - half, apart.mean() + half
            print(f"{figure}, student - {ROLES[other]}: {apart.mean():+.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
