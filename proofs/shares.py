"""How often the intervals of what a run says besides its figures hold the truth, where it is known.

    python proofs/shares.py [--studies 1000] [--seed 0]

*share* is any share of images: of sets that hold the truth, of images refused. *of a part*: a share among part of the
images, such as the accuracy of sets of one class. *mean size* is that of sets of one to five classes. *AUROC* tells foreign
images from the run's own, *map, pointing* is the pointing game, *map, heat* the share of heat on a lesion, *map, correlation*
that of two maps. *repeats* is the AUC over three trainings, and *difference* that of two procedures that are equally good.
Patients have four images that share half of what decides them. *Bootstrap* is the percentile bootstrap (Wilson where all
resamples agree), which stood there before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from recorded import carry_out, parser
from scipy.special import ndtr, ndtri

from stillroom.evaluation.estimates import Estimate, ratio
from stillroom.evaluation.intervals import divide, percentile, resample_weights, wilson
from stillroom.evaluation.luck import Training, luck
from stillroom.evaluation.ood import auroc
from stillroom.explanation.means import mean_with_interval
from stillroom.task import MultiClass

LEAST_HELD = 0.93
RESAMPLES = 200
TASK = MultiClass(("healthy", "ill"))
Drawn = tuple[Estimate, tuple[float | None, float | None] | None, float]
"""The interval now, that of before, and the truth."""
Case = Callable[[np.random.Generator, int, int], Drawn]


def latent(rng: np.random.Generator, images: int, each: int) -> np.ndarray:
    """``[N]`` normal values, half of them shared by a patient's images."""
    own = rng.normal(size=images)
    if each == 1:
        return own
    return (own + np.repeat(rng.normal(size=images // each), each)) / np.sqrt(2)


def members(images: int, each: int) -> np.ndarray | None:
    return None if each == 1 else np.repeat(np.arange(images // each), each)


def names(images: int, each: int) -> np.ndarray | None:
    return None if each == 1 else np.repeat(np.arange(images // each), each).astype(str)


def before(
    above: np.ndarray, below: np.ndarray, groups: np.ndarray | None, share: bool = True
) -> tuple[float | None, float | None]:
    weights = resample_weights(len(above), RESAMPLES, 0, groups).astype(np.float64)
    low, high = percentile(divide(weights @ above, weights @ below))
    if share and low is not None and low == high:
        units = int((below > 0).sum()) if groups is None else len(np.unique(groups[below > 0]))
        low, high = wilson(low * units, units)
    return low, high


def share(truth: float) -> Case:
    def case(rng: np.random.Generator, images: int, each: int) -> Drawn:
        hit, ones = (latent(rng, images, each) < ndtri(truth)).astype(float), np.ones(images)
        return ratio(hit, ones, members(images, each)), before(hit, ones, names(images, each)), truth

    return case


def of_a_part(truth: float) -> Case:
    def case(rng: np.random.Generator, images: int, each: int) -> Drawn:
        part = (latent(rng, images, each) < 0.5).astype(float)
        hit = part * (latent(rng, images, each) < ndtri(truth))
        return ratio(hit, part, members(images, each)), before(hit, part, names(images, each)), truth

    return case


def mean_size(shift: float) -> Case:
    edges = np.array([0.0, 0.8, 1.6, 2.4]) + shift
    truth = 1 + float((1 - ndtr(edges)).sum())

    def case(rng: np.random.Generator, images: int, each: int) -> Drawn:
        sizes, ones = 1.0 + (latent(rng, images, each)[:, None] > edges).sum(axis=1), np.ones(images)
        found = ratio(sizes, ones, members(images, each), (1.0, 5.0))
        return found, before(sizes, ones, names(images, each), share=False), truth

    return case


def foreign(truth: float) -> Case:
    def case(rng: np.random.Generator, images: int, each: int) -> Drawn:
        scores = [latent(rng, images, each), latent(rng, images, each) + np.sqrt(2) * ndtri(truth)]
        groups = names(images, each)
        return auroc(*scores, groups=groups, outside_groups=groups), None, truth

    return case


def of_maps(kind: str, truth: float) -> Case:
    """``truth`` is where the middle of the values lies."""

    def values(rng: np.random.Generator, images: int, each: int) -> np.ndarray:
        if kind == "pointing":
            return (latent(rng, images, each) < ndtri(truth)).astype(float)
        middle = np.arctanh(truth) if kind == "correlation" else np.log(truth / (1 - truth))
        moved = middle + 0.7 * latent(rng, images, each)
        return np.tanh(moved) if kind == "correlation" else 1 / (1 + np.exp(-moved))

    true = truth if kind == "pointing" else float(values(np.random.default_rng(9), 400_000, 1).mean())
    ends = (-1.0, 1.0) if kind == "correlation" else (0.0, 1.0)

    def case(rng: np.random.Generator, images: int, each: int) -> Drawn:
        found, groups = values(rng, images, each), names(images, each)
        return mean_with_interval(found, groups, ends), before(found, np.ones(images), groups, kind == "pointing"), true

    return case


def repeats(truth: float, *, differ: bool) -> Case:
    """Three trainings of two procedures that are equally good; trainings differ in answers to single images."""

    def case(rng: np.random.Generator, images: int, each: int) -> Drawn:
        groups = names(images, each)
        targets = np.repeat(rng.permutation(np.arange(images // each) < images // each // 5), each).astype(np.int64)
        shared, own = latent(rng, images, each), [latent(rng, images, each) for _ in range(2)]
        distance = np.sqrt(2) * ndtri(truth)

        def chance(role: int) -> np.ndarray:
            noise = np.sqrt(0.6) * shared + np.sqrt(0.2) * own[role] + np.sqrt(0.2) * rng.normal(size=images)
            ill = 1 / (1 + np.exp(-distance * (distance * targets + noise - distance / 2)))
            return np.column_stack([1 - ill, ill])

        roles = ("student", "control") if differ else ("student",)
        trainings = [
            Training(
                probabilities={role: chance(number) for number, role in enumerate(roles)},
                targets=targets, patients=groups, ids=np.arange(images).astype(str), train_images=300, validation={},
            )
            for _ in range(3)
        ]  # fmt: skip
        found = luck(TASK, "repeats", trainings, margin=0.02)
        if differ:
            return found["comparison"]["student_vs_control"]["difference"], None, 0.0
        return found["figures"]["student"]["auc"], None, truth

    return case


LARGE = [(50, 1), (100, 1), (300, 1), (100, 4)]
SMALL = [(12, 1), (24, 1), (48, 1), (48, 4)]
CASES: list[tuple[str, Case, list[tuple[int, int]]]] = [
    *((f"share {truth:g}", share(truth), LARGE) for truth in (0.02, 0.05, 0.5, 0.9, 0.97)),
    *((f"of a part {truth:g}", of_a_part(truth), LARGE) for truth in (0.85, 0.97)),
    *((f"mean size, {name}", mean_size(shift), LARGE) for name, shift in {"small": 1.5, "middle": 0.0}.items()),
    *((f"AUROC {truth:g}", foreign(truth), LARGE) for truth in (0.9, 0.97, 0.995)),
    *((f"map, pointing {truth:g}", of_maps("pointing", truth), SMALL) for truth in (0.5, 0.9)),
    *((f"map, heat {truth:g}", of_maps("heat", truth), SMALL) for truth in (0.05, 0.3)),
    *((f"map, correlation {truth:g}", of_maps("correlation", truth), SMALL) for truth in (0.2, 0.9)),
    *((f"repeats, AUC {truth:g}", repeats(truth, differ=False), LARGE) for truth in (0.8, 0.97, 0.99)),
    *((f"repeats, difference at {truth:g}", repeats(truth, differ=True), LARGE) for truth in (0.8, 0.97, 0.99)),
]
ROWS = [(name, case, *size) for name, case, sizes in CASES for size in sizes]


def studied(number: int, studies: int, seed: int) -> dict[str, float | None]:
    """Shares of the studies whose interval holds the truth, and mean widths; no interval counts as held and as 1 wide."""
    _, case, images, each = ROWS[number]
    now, then = [], []
    for study in range(studies):
        found, old, truth = case(np.random.default_rng([seed, number, study]), images, each)
        now.append(judged((found["low"], found["high"]), truth))
        if old is not None:
            then.append(judged(old, truth))
    held, width = np.mean(now, axis=0).tolist()
    old_held, old_width = np.mean(then, axis=0).tolist() if then else (None, None)
    return {"held": held, "width": width, "before": old_held, "width_before": old_width}


def judged(ends: tuple[float | None, float | None], truth: float) -> tuple[bool, float]:
    low, high = ends
    if low is None or high is None:
        return True, 1.0
    return low - 1e-12 <= truth <= high + 1e-12, high - low


def main() -> None:
    flags = parser(__doc__, name="shares", count=len(ROWS))
    flags.add_argument("--studies", type=int, default=1000)
    given = flags.parse_args()
    given.out /= f"{given.studies}-studies"
    slack = 3 * np.sqrt(LEAST_HELD * (1 - LEAST_HELD) / given.studies)
    low = 0
    print("| What | Images | Bootstrap holds | width | Now holds | width |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for (name, _, images, each), line in zip(
        ROWS, carry_out(given, lambda _, number: studied(number, given.studies, given.seed)), strict=False
    ):
        low += line["held"] < LEAST_HELD - slack
        size = f"{images}" if each == 1 else f"{images} of {images // each}"
        old = " | " if line["before"] is None else f"{line['before']:.1%} | {line['width_before']:.3f}"
        print(f"| {name} | {size} | {old} | {line['held']:.1%} | {line['width']:.3f} |", flush=True)
    sys.exit(bool(low))


if __name__ == "__main__":
    main()
