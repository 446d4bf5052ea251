"""Simulated readers whose truth is known: how often a test with readers errs, and how often its intervals hold the truth.

Scores are drawn as Roe and Metz (Acad Radiol 1997;4:298) drew them: an image's own difficulty, common to all readers; how it
changes with help; how each reader sees it; and how good each reader is, without and with help. The true AUC over all readers
and images, that of each reader, the true sensitivity and the true ratio of times follow from the variances. Scores are cut to
the scale of the page. Where help changes nothing, p < .05 should come in 5 % of the studies; a 95 % interval should hold the
truth in 95 %.

    python proofs/readers.py [--studies 2000] [--seed 0]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from recorded import carry_out, parser, short
from scipy.stats import norm

from stillroom.evaluation import mrmc

MOST_ERRORS = 0.085
"""Share of studies without a difference that may find one, which three readers do in 7.5 % where help does very different
things to them; the script exits with 1 above it."""
LEAST_HELD = 0.91
"""The same of the interval of the difference: near an AUC of .96 it holds the truth in 92 % with 40 images."""
IMAGE, CHANGE, EYE, REST = 0.3, 0.2, 0.2, 0.3
"""Variances of a score: of the image, of the image under help, of the image for a reader, and the rest; together 1."""


@dataclass(frozen=True)
class World:
    """What is simulated.

    Attributes:
        readers: how many.
        images: how many, half of them with the finding.
        auc: without help, over all readers and images.
        gain: what help adds to it.
        spread: variance of how good readers are, and, half of it, of what help does to each.
    """

    readers: int
    images: int
    auc: float
    gain: float
    spread: float


def distance(auc: float, spread: float) -> float:
    """How far apart the two kinds of image lie in the mean, for this AUC over readers."""
    return float(norm.ppf(auc)) * np.sqrt(2 * (1 + 1.5 * spread))


def study(world: World, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores ``[2, J, N]``, truth ``[N]``, each reader's true AUC ``[2, J]``, and over all readers ``[2]``."""
    readers, images = world.readers, world.images
    truth = np.repeat([0, 1], [images - images // 2, images // 2])
    aucs = np.array([world.auc, world.auc + world.gain])
    apart = np.array([distance(auc, world.spread) for auc in aucs])

    def normal(variance: float, *shape: int) -> np.ndarray:
        return np.sqrt(variance) * rng.normal(size=shape)

    good = normal(world.spread, 1, readers, 2) + normal(world.spread / 2, 2, readers, 2)  # for either kind of image
    seen = (
        normal(IMAGE, 1, 1, images)
        + normal(CHANGE, 2, 1, images)
        + normal(EYE, 1, readers, images)
        + normal(REST, 2, readers, images)
    )
    scores = apart[:, None, None] * truth + good[:, :, truth] + seen
    own = norm.cdf((apart[:, None] + good[:, :, 1] - good[:, :, 0]) / np.sqrt(2))
    return np.clip(np.round(scores * 10), -20, 40), truth, own, aucs


def judged(world: World, rng: np.random.Generator) -> dict[str, float]:
    """What one study says, against the truth."""
    scores, truth, own, aucs = study(world, rng)
    figures = mrmc.auc(scores, truth)
    found = mrmc.compare(figures)
    wrong = {"found": float(found["p"] is not None and found["p"] < 0.05)}
    if world.gain == 0:
        return wrong
    alone, ratio = mrmc.each(figures), 0.8
    logs = rng.normal(size=(1, world.readers, 1)) * 0.3 + rng.normal(size=(2, world.readers, world.images)) * 0.5
    logs[1] += np.log(ratio) + rng.normal(size=(world.readers, 1)) * 0.15
    times = mrmc.time_ratio(np.exp(logs))
    return wrong | {
        "held": _holds(found["difference"], world.gain),
        "with": _holds(found["with"], aucs[1]),
        "width": (found["difference"]["high"] or np.nan) - (found["difference"]["low"] or np.nan),
        "own": float(np.mean([_holds(one["difference"], own[1, j] - own[0, j]) for j, one in enumerate(alone)])),
        "own_with": float(np.mean([_holds(one["with"], own[1, j]) for j, one in enumerate(alone)])),
        "times": _holds(times, ratio),
    }


def many(world: World, studies: int, seed: int) -> dict[str, float]:
    """Means over studies."""
    lines = [judged(world, np.random.default_rng([seed, number])) for number in range(studies)]
    return {key: float(np.nanmean([line[key] for line in lines])) for key in lines[0]}


def _holds(figure: dict[str, float | None], truth: float) -> float:
    return float(figure["low"] is None or figure["low"] <= truth <= figure["high"])


WORLDS = [
    World(readers, images, auc, 0.0, spread)
    for auc, spread in ((0.75, 0.02), (0.75, 0.1), (0.9, 0.05))
    for readers in (2, 3, 5, 10)
    for images in (40, 120)
]


def main() -> None:
    flags = parser(__doc__, name="readers", count=len(WORLDS))
    flags.add_argument("--studies", type=int, default=2000)
    given = flags.parse_args()
    given.out /= f"{given.studies}-studies"

    def case(_rng: np.random.Generator, number: int) -> dict:
        world = WORLDS[number]
        gained = World(world.readers, world.images, world.auc, 0.06, world.spread)
        return {"none": many(world, given.studies, given.seed), "gain": many(gained, given.studies, given.seed)}

    wrong = False
    heads = (
        "AUC",
        "Spread",
        "Readers",
        "Images",
        "Errs",
        "Holds the gain",
        "Finds it",
        "Width",
        "Holds the AUC with help",
    )
    heads += ("One reader's gain", "One reader's AUC", "Ratio of times")
    print(f"| {' | '.join(heads)} |\n|{' ---: |' * len(heads)}")
    for world, line in zip(WORLDS, carry_out(given, case), strict=False):
        none, gain = line["none"], line["gain"]
        wrong |= short(none["found"] > MOST_ERRORS or gain["held"] < LEAST_HELD, world)
        print(
            f"| {world.auc} | {world.spread} | {world.readers} | {world.images} | {none['found']:.1%} | {gain['held']:.1%} | "
            f"{gain['found']:.0%} | {gain['width']:.3f} | {gain['with']:.1%} | {gain['own']:.1%} | {gain['own_with']:.1%} | "
            f"{gain['times']:.1%} |",
            flush=True,
        )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
