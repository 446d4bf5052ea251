"""What several readers' votes are worth as soft targets: phantoms, and simulated readers whose skill is known.

    OMP_NUM_THREADS=1 python benchmarks/readers.py --out runs/readers

Five readers see every training and validation image. Reader r is right with probability sigmoid(a_r - d), where the
difficulty d of an image is normal and shared by all readers, and a_r is set so that r is right as often as SKILLS says.
Who errs calls the class's lookalike two times of three, else any other class. The same student, steps, views, order and
initial weights in every arm; labels of training and validation are the readers' majority (ties by lot), but for `truth`.
Test labels are the truth. Each seed has phantoms, readers and luck of its own. Arms that are done are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t

from stillroom import Baseline, Best, DataSettings, Recipe, Settings, StudentSettings, TeacherSettings, ViewSettings
from stillroom.data.inference import run_over
from stillroom.data.load import Dataset, load_data
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench
from stillroom.settings.sections import TrainingSettings

SKILLS = (0.6, 0.66, 0.72, 0.78, 0.85)
SPREAD = 1.5
"""Standard deviation of the difficulty, in logits."""
LOOKALIKE = {0: 1, 1: 0, 2: 3, 3: 2}
"""normal and nodule, consolidation and effusion."""

SOFT = Best(alpha=0.0, temperature=1.0)
ARMS: dict[str, tuple[Recipe, str, bool]] = {
    "majority": (Baseline(), "equal", False),
    "share of votes": (SOFT, "equal", False),
    "by confidence": (SOFT, "confidence", False),
    "share of votes, half the labels": (Best(alpha=0.5, temperature=1.0), "equal", False),
    "truth": (Baseline(), "equal", True),
}
"""Recipe, weights of the readers, and whether the true labels are learnt from."""
FIGURES = ("auc", "accuracy", "log loss")


def read(targets: np.ndarray, seed: int) -> np.ndarray:
    """``[R, N]`` the readers' votes."""
    rng = np.random.default_rng([seed, 11])
    difficulty, votes = rng.normal(0, SPREAD, len(targets)), []
    grid = np.random.default_rng(0).normal(0, SPREAD, 100_000)
    for skill in SKILLS:
        ease = brentq(lambda a, skill=skill: (1 / (1 + np.exp(grid - a))).mean() - skill, -10, 10)
        right = rng.random(len(targets)) < 1 / (1 + np.exp(difficulty - ease))
        lookalike = np.array([LOOKALIKE[target] for target in targets])
        other = (targets + rng.integers(1, 4, len(targets))) % 4
        wrong = np.where(rng.random(len(targets)) < 2 / 3, lookalike, other)
        votes.append(np.where(right, targets, wrong))
    return np.stack(votes)


def majority(votes: np.ndarray, seed: int) -> np.ndarray:
    """``[N]`` the commonest vote, ties by lot."""
    counts = (votes[..., None] == np.arange(4)).sum(axis=0)
    return (counts + np.random.default_rng([seed, 12]).random(counts.shape) / 2).argmax(axis=1)


def write(votes: np.ndarray, dataset: Dataset, path: Path) -> None:
    """The table of answers: training and validation images alone."""
    seen, classes = np.flatnonzero(dataset.table.splits != "test"), dataset.table.task.classes
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "reader", "vote"])
        for reader, said in enumerate(votes):
            lines.writerows([dataset.table.ids[row], f"R{reader + 1}", classes[said[row]]] for row in seen)


def figures(settings: Settings, dataset: Dataset, out: Path) -> dict[str, float]:
    """Train a student and test it; the test's labels are the data set's own."""
    done = out / "figures.json"
    if not done.exists():
        bench = Workbench(Run.create(out, settings), dataset, show_progress=False)
        student, task, rows = settings.recipe.run(bench), dataset.table.task, dataset.table.indices("test")
        logits = run_over(student, bench.data.images, rows)
        said, truth = task.probabilities(logits), dataset.table.targets[rows]
        found = (task.select(said, truth), task.correct(said, truth).mean(), task.nll(logits, truth))
        done.write_text(json.dumps(dict(zip(FIGURES, map(float, found), strict=True))), encoding="utf-8")
    return json.loads(done.read_text(encoding="utf-8"))


def one_seed(seed: int, out: Path, images: int, steps: int, size: int) -> dict[str, dict[str, float]]:
    data = DataSettings(size=size, test_fraction=0.4)
    whole = load_data(f"phantoms:{images}", data, seed=seed, show_progress=False)
    truth, out = whole.table.targets, out / f"seed-{seed}"
    votes = read(truth, seed)
    out.mkdir(parents=True, exist_ok=True)
    write(votes, whole, out / "votes.csv")
    agreed = np.where(whole.table.splits == "test", truth, majority(votes, seed))
    seen = whole.table.splits != "test"
    print(
        f"seed {seed}: the majority is right on {(agreed == truth)[seen].mean():.3f} of {seen.sum()} images", flush=True
    )
    found = {}
    for name, (recipe, weights, true) in ARMS.items():
        taught = recipe.has_teacher
        settings = Settings(
            f"phantoms:{images}",
            recipe,
            data,
            ViewSettings(views=0, flips=True, crop=0.75),
            TeacherSettings(teacher_answers=out / "votes.csv", reader_weights=weights) if taught else TeacherSettings(),
            StudentSettings("test_resnet"),
            TrainingSettings(steps=steps, batch_size=32, lr=2e-3),
            seed=seed,
            device="cpu",
        )
        table = replace(whole.table, targets=truth if true else agreed)
        found[name] = figures(settings, replace(whole, table=table), out / name.replace(" ", "-").replace(",", ""))
        print(f"  {name}: {', '.join(f'{key} {value:.3f}' for key, value in found[name].items())}", flush=True)
    return found


def against(first: np.ndarray, second: np.ndarray) -> str:
    """Mean paired difference with its 95 % t-interval."""
    apart = first - second
    reach = t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else np.nan
    return f"{apart.mean():+.3f} ({apart.mean() - reach:+.3f} to {apart.mean() + reach:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/readers"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(12)))
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=48)
    chosen = parser.parse_args()
    runs = [one_seed(seed, chosen.out, chosen.images, chosen.steps, chosen.size) for seed in chosen.seeds]
    arms = {name: {key: np.array([run[name][key] for run in runs]) for key in FIGURES} for name in ARMS}
    print(f"\n| labels and targets | {' | '.join(f'{key} | − majority' for key in FIGURES)} |")
    print(f"|---{'|---|---' * len(FIGURES)}|")
    for name, found in arms.items():
        cells = [f"{found[key].mean():.3f} | {against(found[key], arms['majority'][key])}" for key in FIGURES]
        print(f"| {name} | {' | '.join(cells)} |")
    weighed = [against(arms["by confidence"][key], arms["share of votes"][key]) for key in FIGURES]
    print("\nby confidence − share of votes: " + "; ".join(map(" ".join, zip(FIGURES, weighed, strict=True))))


if __name__ == "__main__":
    main()
