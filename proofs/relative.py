"""What corruptions cost, as a ratio and as a difference, where the truth is known.

Two networks answer the same test images, as they are and under 16 corruptions. Whether an answer is wrong is a coin whose
chance depends on the network, the corruption and how hard the image is, so that the true errors are known. Counted is how
often the 95 % intervals of Stillroom hold the truth, how often rBE is given, and how wide it is, beside the mean of all
ratios as it was given before. Run `python proofs/relative.py [--studies N]`.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import expit

from stillroom.evaluation.intervals import percentile, resample_weights
from stillroom.evaluation.robustness import divisible, relative_error

CORRUPTIONS, RESAMPLES = 16, 400
HARDNESS = 1.5
KINDS = {"slight": (0.0, 0.03), "mixed": (0.0, 0.3), "marked": (0.08, 0.4)}
"""The reference's true rises on the log-odds scale run from nothing to this share of what would make every answer wrong."""


def chances(places: np.ndarray, images: np.ndarray) -> np.ndarray:
    """``[Q, n]`` chance of a wrong answer: by corruption (log-odds) and hardness of the image."""
    return expit(places[:, None] + HARDNESS * images[None])


def truth(places: np.ndarray) -> np.ndarray:
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return chances(places, nodes) @ weights / weights.sum()


def study(kind: str, n: int, rng: np.random.Generator) -> dict[str, tuple[bool, float] | None]:
    """For each figure whether its interval holds the truth and how wide it is; None where it is not given."""
    low, high = KINDS[kind]
    shares = np.linspace(low, high, CORRUPTIONS)
    reference = np.concatenate([[-2.5], -2.5 + 6 * shares])
    own = np.concatenate([[-2.2], -2.2 + 6 * (shares + 0.02)])
    images = rng.normal(size=n)
    wrong = [rng.random((CORRUPTIONS + 1, n)) < chances(places, images) for places in (reference, own)]
    weights = np.concatenate([np.ones((1, n)), resample_weights(n, RESAMPLES, int(rng.integers(2**31)))])
    errors = [(one @ weights.T) / weights.sum(axis=1) for one in wrong]
    rises = [one[1:] - one[0] for one in errors]
    true = [(one[1:] - one[0]) for one in (truth(reference), truth(own))]
    difference = (rises[1] - rises[0]).mean(axis=0)
    every = np.where(rises[0] > 1e-9, rises[1] / np.where(rises[0] > 1e-9, rises[0], 1), np.nan)
    usable = divisible(rises[0])
    ratio = relative_error(rises[1], rises[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = true[1] / true[0]
    return {
        "difference": _held(difference, float((true[1] - true[0]).mean())),
        "rBE": None if np.isnan(ratio[0]) else _held(ratio, float(ratios[usable].mean())),
        "all ratios": _held(
            np.nanmean(every[:, (every == every).any(axis=0)], axis=0), float(ratios[true[0] > 1e-9].mean())
        ),
    }


def _held(samples: np.ndarray, true: float) -> tuple[bool, float]:
    low, high = percentile(samples[1:])
    return low <= true <= high, high - low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{arguments.studies} studies each, seed {arguments.seed}\n")
    print("| the reference's rises | images | figure | given | holds the truth | median width | widest of 20 |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        for n in (150, 600):
            rng = np.random.default_rng([arguments.seed, n, len(kind)])
            found = [study(kind, n, rng) for _ in range(arguments.studies)]
            for name in ("difference", "rBE", "all ratios"):
                given = [one[name] for one in found if one[name] is not None]
                share = f"{len(given) / len(found):.0%}"
                if not given:
                    print(f"| {kind} | {n} | {name} | {share} |  |  |  |")
                    continue
                held, widths = np.array([one[0] for one in given]), np.array([one[1] for one in given])
                print(
                    f"| {kind} | {n} | {name} | {share} | {held.mean():.1%} | {np.median(widths):.3f} |"
                    f" {np.quantile(widths, 0.95):.3f} |"
                )


if __name__ == "__main__":
    main()
