"""How often the intervals for the luck of training and images hold the truth, where the truth is known: no difference.

Two procedures that differ in nothing but luck are "trained" K times and compared by `stillroom.evaluation.luck`. A 95 %
interval should hold zero in 95 % of the studies. K = 1 is what the comparison says of the first training alone.

    python proofs/luck.py [--studies 1000] [--seed 0]

Repeats: 100 test images of 50 patients. Every image has a difficulty of its own, for both procedures and for each;
trainings differ in skill (AUC by .02 to .03) and in their answers. Folds: 150 images of 20 features, of which each procedure
sees another half; it learns a nearest-mean rule with noise, in K parts or in K random cuts with a fifth for the test.
"""

from __future__ import annotations

import sys

import numpy as np
from recorded import carry_out, parser

from stillroom.evaluation.comparison import compare
from stillroom.evaluation.luck import Training, luck
from stillroom.task import MultiClass

TASK = MultiClass(("benign", "malignant"))
ROLES = ("student", "control")
LEAST_HELD = 0.93
"""Share of studies in which an interval of several trainings must hold zero; the script exits with 1 below it."""


def repeats(count: int, rng: np.random.Generator) -> list[Training]:
    """Trainings of two procedures on one split, equally good in truth."""
    patients = np.repeat(np.arange(50), 2)
    targets = np.repeat(rng.integers(2, size=50), 2)

    def hardness(scale: float) -> np.ndarray:
        """Of images, half of it common to a patient's."""
        own, common = rng.normal(size=100), rng.normal(size=50)[patients]
        return scale * (own + common) / np.sqrt(2)

    shared = hardness(1.0)
    own = {role: hardness(0.6) for role in ROLES}

    def scores(role: str) -> np.ndarray:
        return rng.normal(2.0, 0.3) * targets + shared + own[role] + rng.normal(0, 0.5, 100)

    return [
        _training({role: scores(role) for role in ROLES}, targets, np.arange(100), 300, patients) for _ in range(count)
    ]


def folds(count: int, rng: np.random.Generator, *, parts: bool) -> list[Training]:
    """Trainings of two procedures on cuts of one data set, equally good in truth: ``parts`` tests every image once."""
    images, size = 150, 20
    targets = np.arange(images) % 2
    features = rng.normal(size=(images, size)) + 0.45 * targets[:, None]
    seen = dict(zip(ROLES, np.split(rng.permutation(size), 2), strict=True))
    order = rng.permutation(images)
    trainings = []
    for cut in range(count):
        test = order[cut::count] if parts else rng.permutation(images)[: images // 5]
        train = np.setdiff1d(order, test)
        train = rng.permutation(train)[: round(0.85 * len(train))]
        scores = {}
        for role in ROLES:
            own = features[:, seen[role]]
            rule = own[train][targets[train] == 1].mean(axis=0) - own[train][targets[train] == 0].mean(axis=0)
            scores[role] = own[test] @ (rule + rng.normal(0, 0.2, len(rule)))
        trainings.append(_training(scores, targets[test], test, len(train), None))
    return trainings


def coverage(kind: str, count: int, studies: int, seed: int) -> tuple[float, float]:
    """Share of studies (``repeats``, ``parts`` or ``cuts``) whose interval holds zero, and the interval's mean width.

    Of ``count`` 1, that of one training's comparison, which holds the luck of the images alone.
    """
    held, widths = [], []
    for study in range(studies):
        rng = np.random.default_rng([seed, study])
        made = repeats(count, rng) if kind == "repeats" else folds(max(count, 3), rng, parts=kind == "parts")
        how = {"margin": 0.02}
        if count == 1:
            first, second = (made[0].probabilities[role] for role in ROLES)
            found = compare(TASK, first, second, made[0].targets, patients=made[0].patients, **how)
        else:
            asked = "repeats" if kind == "repeats" else "folds"
            found = luck(TASK, asked, made, **how)["comparison"]["student_vs_control"]
        low, high = found["difference"]["low"], found["difference"]["high"]
        held.append(low is None or low <= 0 <= high)
        widths.append(np.nan if low is None else high - low)
    return float(np.mean(held)), float(np.nanmean(widths))


def _training(
    scores: dict, targets: np.ndarray, ids: np.ndarray, train_images: int, patients: np.ndarray | None
) -> Training:
    chance = {role: 1 / (1 + np.exp(-(values - values.mean()))) for role, values in scores.items()}
    return Training(
        probabilities={role: np.column_stack([1 - values, values]) for role, values in chance.items()},
        targets=targets,
        patients=None if patients is None else patients.astype(str),
        ids=ids.astype(str),
        train_images=train_images,
        validation={},
    )


def main() -> None:
    names = {"repeats": "Repeats on one split", "parts": "Folds: K parts", "cuts": "Folds: K random cuts"}
    rows = [(kind, trainings) for kind in names for trainings in (1, 3, 5, 10)]
    flags = parser(__doc__, name="luck", count=len(rows))
    flags.add_argument("--studies", type=int, default=1000)
    given = flags.parse_args()
    given.out /= f"{given.studies}-studies"

    def case(_rng: np.random.Generator, number: int) -> dict:
        held, width = coverage(*rows[number], given.studies, given.seed)
        return {"held": held, "width": width}

    low = 0
    print("| What | K | Holds zero | Mean width |\n| --- | ---: | ---: | ---: |")
    for (kind, trainings), line in zip(rows, carry_out(given, case), strict=False):
        name = names[kind] if trainings > 1 else "One training alone"
        low += trainings > 1 and line["held"] < LEAST_HELD
        print(f"| {name} | {trainings} | {line['held']:.1%} | {line['width']:.3f} |", flush=True)
    sys.exit(bool(low))


if __name__ == "__main__":
    main()
