"""Is the student worth deploying? The plain command's students against what a good engineer has in the same minutes.

    stillroom bench benchmarks/worth.yaml --out runs/worth --workers 1     # runs, each by its own plan; resumes
    python benchmarks/worth.py runs/worth                                  # rivals of each run, then the tables; resumes

Beside every finished run of the grid stand its rivals (``plain_fine_tuning.py``): the same network from the same start
fine-tuned in the minutes that the plan gave teaching and training, and a logistic regression on the frozen teacher. Every
difference is paired: same split, same labels, same test images. Intervals hold the luck of training and of the images:
per set the variance of the mean over trainings, plus that of the mean when the set's images are drawn again (one draw for all
trainings, by image, since test splits of several seeds overlap); pooled figures give every set the same weight.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from queue import Queue

import numpy as np
import pandas as pd
import yaml
from scipy.stats import t

from stillroom import Run
from stillroom.evaluation.intervals import Ranking, resample_weights
from stillroom.files.atomic import write_atomically

RESAMPLES = 1000
RIVALS = ("fine-tuned", "probe", "control", "teacher")
NAMES = {
    "student": "student",
    "fine-tuned": "plain fine-tuning",
    "probe": "logistic regression on the frozen teacher",
    "control": "control",
    "teacher": "teacher",
}
MARGIN = 0.01


@dataclass(frozen=True)
class Cell:
    """One run with its rivals: probabilities ``[n, K]`` of its test images by role."""

    data: str
    megabytes: float
    fraction: float
    network: str
    ids: np.ndarray
    targets: np.ndarray
    probabilities: dict[str, np.ndarray]


@dataclass(frozen=True)
class Parts:
    """A mean over one or more sets with the two parts of its variance, and the trainings' degrees of freedom."""

    mean: float
    of_images: float
    of_trainings: float
    freedom: float

    @property
    def interval(self) -> tuple[float, float]:
        total = self.of_images + self.of_trainings
        if total < 1e-18:
            return self.mean, self.mean
        freedom = total**2 / (self.of_trainings**2 / self.freedom) if self.of_trainings > 0 else 1e6
        half = float(t.ppf(0.975, freedom)) * sqrt(total)
        return self.mean - half, self.mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="output folder of `stillroom bench`")
    parser.add_argument("--jobs", type=int, default=1, help="rivals at a time, each on cores of its own")
    parser.add_argument("--threads", type=int, default=2, help="cores of each")
    parser.add_argument(
        "--no-rivals", action="store_true", help="take the rivals that are there (follow_plans.py made them)"
    )
    arguments = parser.parse_args()
    runs = [path for path in sorted((arguments.out / "cells").iterdir()) if (path / "report.html").exists()]
    if not arguments.no_rivals:
        make_rivals(runs, arguments.jobs, arguments.threads)
    cells = [read_cell(path) for path in runs if rivals_of(path).exists()]
    if not cells:
        sys.exit(f"No finished run with rivals stands in {arguments.out / 'cells'}.")
    text = tables(cells)
    write_atomically(arguments.out / "worth.md", lambda target: target.write_text(text, encoding="utf-8"))
    print(text)


def rivals_of(run: Path) -> Path:
    return run.with_name(f"{run.name}-rivals.parquet")


def budget(run: Path) -> dict[str, float]:
    """The minutes and the megabytes that the run's plan was made for."""
    return yaml.safe_load((run / "plan.yaml").read_text(encoding="utf-8"))["budget"]


def make_rivals(runs: list[Path], jobs: int, threads: int) -> None:
    """Train what is missing, ``jobs`` at a time; on Linux each is pinned to its own cores."""
    free: Queue[int] = Queue()
    for number in range(jobs):
        free.put(number)

    def one(path: Path) -> None:
        slot = free.get()
        script = Path(__file__).with_name("plain_fine_tuning.py")
        command = [sys.executable, str(script), str(path), "--threads", str(threads)]
        command += ["--minutes", str(budget(path)["minutes"])]
        cores = (
            sorted(os.sched_getaffinity(0))[slot * threads : (slot + 1) * threads] if shutil.which("taskset") else []
        )
        if len(cores) == threads:
            command = ["taskset", "-c", ",".join(map(str, cores)), *command]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        print(done.stdout.strip() if done.returncode == 0 else f"{path.name} FAILED\n{done.stderr}", flush=True)
        free.put(slot)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, [path for path in runs if not rivals_of(path).exists()]))


def read_cell(path: Path) -> Cell:
    run = Run.open(path)
    frame, rivals, classes = run.predictions(), pd.read_parquet(rivals_of(path)), list(run.task.classes)
    test = frame[frame["split"] == "test"].merge(
        rivals.drop(columns="target"), on="id", how="left", validate="one_to_one"
    )
    roles = [role for role in ("student", *RIVALS) if f"{role}:{classes[0]}" in test]
    return Cell(
        data=Path(run.settings.source).name,
        megabytes=budget(path)["max_mb"] or float("inf"),
        fraction=run.settings.training.label_fraction,
        network=run.settings.student.student,
        ids=test["id"].to_numpy(),
        targets=test["target"].map(classes.index).to_numpy(),
        probabilities={role: test[[f"{role}:{name}" for name in classes]].to_numpy() for role in roles},
    )


# ---- figures ---------------------------------------------------------------------------------------------------
def auc(probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``[R]`` macro one-against-rest under ``[R, n]`` weights, over the classes that a resample holds."""
    areas = [
        Ranking.of(probabilities[:, k], (targets == k).astype(float)).auc_and_ap(weights)[0]
        for k in range(probabilities.shape[1])
    ]
    return np.nanmean(np.stack(areas), axis=0)


def accuracy(probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``[R]`` under ``[R, n]`` weights."""
    return weights @ (probabilities.argmax(axis=1) == targets) / weights.sum(axis=1)


FIGURES = {"AUC": auc, "accuracy": accuracy}


def of_set(cells: list[Cell], figure: str, first: str, second: str | None) -> Parts:
    """A role's figure, or the difference of two, over the trainings of one set."""
    everyone = np.unique(np.concatenate([cell.ids for cell in cells]))
    drawn = resample_weights(len(everyone), RESAMPLES, 0).astype(np.float64)
    values, moved = [], []
    for cell in cells:
        columns = np.searchsorted(everyone, cell.ids)
        weights = np.concatenate([np.ones((1, len(columns))), drawn[:, columns]])
        found = FIGURES[figure](cell.probabilities[first], cell.targets, weights)
        if second is not None:
            found = found - FIGURES[figure](cell.probabilities[second], cell.targets, weights)
        values.append(found[0])
        moved.append(found[1:])
    many = len(values) > 1
    return Parts(
        mean=float(np.mean(values)),
        of_images=float(np.nanvar(np.mean(moved, axis=0), ddof=1)),
        of_trainings=float(np.var(values, ddof=1)) / len(values) if many else 0.0,
        freedom=len(values) - 1 if many else 1,
    )


def pooled(parts: list[Parts]) -> Parts:
    """The mean over sets, each with the same weight."""
    count = len(parts)
    of_trainings = sum(one.of_trainings for one in parts) / count**2
    spread = sum((one.of_trainings / count**2) ** 2 / one.freedom for one in parts)
    return Parts(
        mean=float(np.mean([one.mean for one in parts])),
        of_images=sum(one.of_images for one in parts) / count**2,
        of_trainings=of_trainings,
        freedom=of_trainings**2 / spread if spread > 0 else 1,
    )


# ---- tables ----------------------------------------------------------------------------------------------------
def tables(cells: list[Cell]) -> str:
    groups: dict[tuple[float, float], dict[str, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        groups[cell.megabytes, cell.fraction][cell.data].append(cell)
    found = []
    for (megabytes, fraction), sets in sorted(groups.items(), reverse=True):
        labels = "all labels" if fraction == 1 else f"{fraction:.0%} of the labels"
        found.append(f"### At most {megabytes:g} MB, {labels}\n")
        found += [_levels(sets), "", _differences(sets), ""]
    return "\n".join(found)


def _levels(sets: dict[str, list[Cell]]) -> str:
    roles = [role for role in NAMES if all(role in cell.probabilities for cells in sets.values() for cell in cells)]
    lines = [
        f"| set | trainings | network | {' | '.join(NAMES[role] for role in roles)} |",
        "|---" * (3 + len(roles)) + "|",
    ]
    for name, cells in sets.items():
        networks = ", ".join(sorted({cell.network for cell in cells}))
        figures = [" / ".join(f"{of_set(cells, figure, role, None).mean:.3f}" for figure in FIGURES) for role in roles]
        lines.append(f"| {name} | {len(cells)} | {networks} | {' | '.join(figures)} |")
    return "AUC / accuracy on test images:\n\n" + "\n".join(lines)


def _differences(sets: dict[str, list[Cell]]) -> str:
    lines = ["| student over | figure | " + " | ".join(sets) + " | **pooled** | |", "|---" * (len(sets) + 4) + "|"]
    for rival in RIVALS:
        if any(rival not in cell.probabilities for cells in sets.values() for cell in cells):
            continue
        for figure in FIGURES:
            parts = [of_set(cells, figure, "student", rival) for cells in sets.values()]
            whole = pooled(parts)
            low, high = whole.interval
            said = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
            if figure == "AUC" and low > -MARGIN:
                said += f", not inferior by {MARGIN:g}"
            cells_text = " | ".join(_text(one) for one in [*parts, whole])
            lines.append(f"| {NAMES[rival]} | {figure} | {cells_text} | {said} |")
    return "Differences with 95 % intervals:\n\n" + "\n".join(lines)


def _text(parts: Parts) -> str:
    low, high = parts.interval
    return f"{parts.mean:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "\N{MINUS SIGN}")


if __name__ == "__main__":
    main()
