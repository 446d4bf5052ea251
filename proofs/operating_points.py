"""How often thresholds keep what they promise, and how often intervals of net benefit hold it, where the truth is known.

Scores are normal in two classes a known distance apart. Images of one patient share half of what makes them hard (or nearly
all of it), and one label. Points: a threshold is chosen on so many validation images with the finding, and its true
sensitivity is read off the normal distribution; beside it the plain rule, the highest threshold that reaches what is wanted
on validation. Curves: probabilities are the true ones, and net benefits follow from normal tails. Of use to nobody: networks
whose answers go with nothing but vary; whatever is claimed of them is an error.

    python proofs/operating_points.py [--studies 500] [--seed 0]

Exits with 1 where fewer than 95 % of thresholds reach what they promise, or than 93 % of intervals hold the truth (in the
mean over thresholds), or more than 5 % of useless networks are called surely better at any threshold (three standard errors
are allowed for luck).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from recorded import carry_out, parser, short
from scipy.special import expit, logit
from scipy.stats import norm

from stillroom.evaluation.net_benefit import THRESHOLDS, curve
from stillroom.evaluation.operating_points import fit_points
from stillroom.task import MultiClass

TASK = MultiClass(("healthy", "ill"))
LEAST_KEPT, LEAST_HELD, MOST_CLAIMED = 0.95, 0.93, 0.05
SHARES = {"": 0.0, "half shared": 0.5, "nearly all shared": 0.95}
"""By the kind of patients the correlation of their images."""
DISTANCE = 2.0
"""Of the scores of images without the finding, of which a validation set has as many."""
CASES: list[dict[str, Any]] = [
    *(
        {"part": "points", "wanted": wanted, "images": images, "patients": patients}
        for wanted in (0.8, 0.9, 0.95)
        for images in (20, 60, 100, 200, 500)
        for patients in SHARES
    ),
    *(
        {"part": "curves", "images": images, "each": each, "share": share, "auc": auc}
        for images, each in ((50, 1), (100, 1), (500, 1), (200, 4), (400, 10))
        for share in (0.1, 0.3)
        for auc in (0.7, 0.9, 0.97)
    ),
    *(
        {"part": "useless", "images": images, "each": each, "share": share, "spread": spread}
        for images, each in ((50, 1), (500, 1), (200, 4))
        for share in (0.1, 0.5)
        for spread in (0.1, 1.0)
    ),
]


def latent(rng: np.random.Generator, images: int, each: int, common: float) -> np.ndarray:
    """``[images]`` standard normal, those of one patient side by side with this correlation."""
    own, shared = rng.normal(size=images), np.repeat(rng.normal(size=images // each), each)
    return np.sqrt(common) * shared + np.sqrt(1 - common) * own


def points(case: dict[str, Any], studies: int, seed: int) -> dict[str, float]:
    """Shares of studies whose threshold truly reaches what is promised, and what is wanted."""
    rng, images, wanted = np.random.default_rng([seed, 1]), case["images"], case["wanted"]
    each = 4 if case["patients"] else 1
    patients = np.repeat(np.arange(2 * images // each), each).astype(str) if each > 1 else None
    targets, found = np.repeat([1, 0], images), []
    for _ in range(studies):
        score = latent(rng, images, each, SHARES[case["patients"]])
        chance = expit(np.concatenate([score, latent(rng, images, each, SHARES[case["patients"]]) - DISTANCE]))
        probabilities = np.column_stack([1 - chance, chance])
        (point,) = fit_points(TASK, probabilities, targets, patients, [(0, "sensitivity", wanted)])
        true = norm.sf(logit(point.threshold))
        missed = int(np.floor((1 - wanted) * images + 1e-9))
        plain = norm.sf(np.sort(score)[missed])
        found.append((point.promised, true >= point.promised, true >= wanted, true, plain >= wanted))
    names = ("promised", "kept", "reached", "sensitivity", "plain")
    return dict(zip(names, map(float, np.mean(found, axis=0)), strict=True))


def images_of(rng: np.random.Generator, case: dict[str, Any], distance: float) -> tuple[np.ndarray, ...]:
    """``[N]`` true probabilities and bool labels, and patients as numbers (None for one image each)."""
    images, each, share = case["images"], case["each"], case["share"]
    ill = np.repeat(rng.random(images // each) < share, each)
    score = latent(rng, images, each, 0.5 if each > 1 else 0.0) + distance * ill
    members = np.repeat(np.arange(images // each), each) if each > 1 else None
    return expit(distance * score - distance**2 / 2 + logit(share)), ill, members


def true_benefits(share: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """``[T]`` net benefit, and the gain over acting on every image, of true probabilities; from normal tails."""
    price = THRESHOLDS / (1 - THRESHOLDS)
    place = (logit(THRESHOLDS) - logit(share) + distance**2 / 2) / distance
    benefit = share * norm.sf(place - distance) - price * (1 - share) * norm.sf(place)
    return benefit, benefit - (share - price * (1 - share))


def curves(case: dict[str, Any], studies: int, seed: int) -> dict[str, float]:
    """Shares of intervals that hold the truth: of the net benefit and of the gain, in the mean over thresholds and least."""
    rng, distance = np.random.default_rng([seed, 2]), float(np.sqrt(2) * norm.ppf(case["auc"]))
    benefit, gain = true_benefits(case["share"], distance)
    held = []
    for _ in range(studies):
        found = curve(*images_of(rng, case, distance))
        inside = (found.low <= benefit) & (benefit <= found.high), (found.gain_low <= gain) & (gain <= found.gain_high)
        held.append((*inside, found.high - found.low, found.better))
    of_benefit, of_gain, width, better = np.mean(held, axis=0)
    return {
        "held": float(of_benefit.mean()),
        "held_gain": float(of_gain.mean()),
        "least": float(min(of_benefit.min(), of_gain.min())),
        "width": float(width[len(width) // 2]),
        "better": float(better.mean()),
    }


def useless(case: dict[str, Any], studies: int, seed: int) -> dict[str, float]:
    """Share of studies in which a network that knows nothing is called surely better at any threshold."""
    rng, claimed = np.random.default_rng([seed, 3]), []
    for _ in range(studies):
        _, ill, members = images_of(rng, case, 1.0)
        chance = expit(logit(case["share"]) + case["spread"] * rng.normal(size=len(ill)))
        claimed.append(curve(chance, ill, members).better.any())
    return {"claimed": float(np.mean(claimed))}


def main() -> None:
    flags = parser(__doc__, name="operating_points", count=len(CASES))
    flags.add_argument("--studies", type=int, default=500)
    given = flags.parse_args()
    given.out /= f"{given.studies}-studies"

    def slack(share: float) -> float:
        return 3 * float(np.sqrt(share * (1 - share) / given.studies))

    def case(_rng: np.random.Generator, number: int) -> dict[str, Any]:
        wanted = CASES[number]
        part = {"points": points, "curves": curves, "useless": useless}[wanted["part"]]
        return {"name": wanted, **part(wanted, given.studies, given.seed)}

    bad, part = 0, ""
    heads = {
        "points": "| Wanted | Images with the finding | Promised | Kept | Wanted is reached | Mean sensitivity | Plain rule "
        "reaches it |\n| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
        "curves": "| Images | With the finding | AUC | Benefit held | Gain held | Least | Width at .50 | Surely better |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "useless": "| Images | With the finding | Spread | Surely better at any |\n| --- | ---: | ---: | ---: |",
    }
    for line in carry_out(given, case):
        name = line["name"]
        if name["part"] != part:
            part = name["part"]
            print(f"\n{heads[part]}")
        each = name.get("each", 4 if name.get("patients") else 1)
        size = f"{name['images']}" + (f" of {name['images'] // each}" if each > 1 else "")
        size += ", nearly alike" if "nearly" in name.get("patients", "") else ""
        if part == "points":
            bad += short(line["kept"] < LEAST_KEPT - slack(LEAST_KEPT), name)
            print(
                f"| {name['wanted']:g} | {size} | {line['promised']:.3f} | {line['kept']:.1%} | "
                f"{line['reached']:.1%} | {line['sensitivity']:.3f} | {line['plain']:.1%} |"
            )
            continue
        if part == "curves":
            bad += short(min(line["held"], line["held_gain"]) < LEAST_HELD, name)
            print(
                f"| {size} | {name['share']:.0%} | {name['auc']:g} | {line['held']:.1%} | {line['held_gain']:.1%} | "
                f"{line['least']:.1%} | {line['width']:.3f} | {line['better']:.0%} |"
            )
        else:
            bad += short(line["claimed"] > MOST_CLAIMED + slack(MOST_CLAIMED), name)
            print(f"| {size} | {name['share']:.0%} | {name['spread']:g} | {line['claimed']:.1%} |")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
