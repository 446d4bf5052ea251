"""What is said of calibration, where the truth is known: errors, their intervals, the test, and the verdicts.

Confidences are drawn around a skill, outcomes by a truth that is the confidence itself (calibrated), flatter (overconfident:
the log odds halve), shifted (right less often than stated) or right in 80 % whatever is stated. Outcomes and confidences of
one patient depend on each other (latent correlation .5).

    python proofs/calibration.py [--studies 1000] [--seed 0]

Exits with 1 where a calibrated classifier is called in need of recalibration, or its p-value is below .05, in more than 6.5 %
of a row's studies, one that states 99 % and is right in 80 % is not in 95 %, or an interval holds the true error in less than
93 %.
"""

from __future__ import annotations

import sys
from math import log

import numpy as np
from recorded import carry_out, parser
from scipy.special import expit, ndtri

from stillroom.evaluation.calibration import expected_calibration_error
from stillroom.evaluation.calibration_error import NEEDED, NOT_SHOWN, calibration_error
from stillroom.task import MultiClass

TASK = MultiClass(("benign", "malignant"))
SURE = "states .99"
SKILLS = {"accuracy .81": (1.5, 1.5), "accuracy .95": (4.0, 2.0), SURE: (8.0, 3.0)}
TRUTHS = {
    "calibrated": (1.0, 0.0),
    "slightly off": (0.8, 0.0),
    "overconfident": (0.5, 0.0),
    "shifted": (1.0, -0.7),
    "right in .80": (0.0, log(4)),
}
IMAGES = {
    "50": [1] * 50, "100": [1] * 100, "500": [1] * 500, "120 of 107": [1] * 94 + [2] * 13, "100 of 25": [4] * 25,
    "200 of 50": [4] * 50, "500 of 50": [10] * 50,
}  # fmt: skip
COLUMNS = (
    "Truth", "Network", "Images (patients)", "True error", "Found", "Held", "Width", "p < .05", "Needed", "Not shown", "ECE",
    "ECE if calibrated",
)  # fmt: skip
MOST_ALARMS, LEAST_FOUND, LEAST_HELD = 0.065, 0.95, 0.93


def study(
    rng: np.random.Generator, sizes: list[int], skill: tuple[float, float], truth: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``[N, 2]`` probabilities, ``[N]`` targets and patients, and the true share of each stated confidence ``[N]``."""
    images, patients = sum(sizes), np.repeat(np.arange(len(sizes)), sizes)

    def latent() -> np.ndarray:
        common = 0.5 if len(sizes) < images else 0.0
        own, shared = rng.normal(size=images), rng.normal(size=len(sizes))[patients]
        return np.sqrt(common) * shared + np.sqrt(1 - common) * own

    odds = np.abs(skill[0] + skill[1] * latent())
    stated, true = expit(odds), expit(truth[0] * odds + truth[1])
    right = (latent() < ndtri(true)).astype(np.int64)
    return np.column_stack([1 - stated, stated]), right, patients.astype(str), true


def studied(row: tuple[str, str, str], studies: int, seed: int) -> dict[str, float]:
    """What came of many studies of one kind."""
    skill, truth, size = row
    found = []
    for number in range(studies):
        rng = np.random.default_rng([seed, number])
        probabilities, targets, patients, true = study(rng, IMAGES[size], SKILLS[skill], TRUTHS[truth])
        given = patients if "of" in size else None
        said = calibration_error(TASK, probabilities, targets, given, seed=number)
        wanted = float(np.sqrt(((true - probabilities[:, 1]) ** 2).mean()))
        error = said["error"]
        found.append(
            {
                "true": wanted,
                "squared": said["brier"]["miscalibration"],
                "held": error["low"] <= wanted <= error["high"],
                "width": error["high"] - error["low"],
                "alarm": said["p_value"] < 0.05,
                "needed": said["verdict"] == NEEDED,
                "open": said["verdict"] == NOT_SHOWN,
                "ece": expected_calibration_error(TASK, probabilities, targets),
                "ece_if_calibrated": said["ece_if_calibrated"],
            }
        )
    mean = {name: float(np.mean([line[name] for line in found])) for name in found[0]}
    return mean | {"error": float(np.sign(mean["squared"]) * np.sqrt(abs(mean["squared"])))}


def asked(skill: str, truth: str) -> bool:
    """A network that is nearly always sure is calibrated, or far from it."""
    return truth == "calibrated" or (skill == SURE) == (truth == "right in .80")


def main() -> None:
    rows = [(skill, truth, size) for truth in TRUTHS for skill in SKILLS for size in IMAGES if asked(skill, truth)]
    flags = parser(__doc__, name="calibration", count=len(rows))
    flags.add_argument("--studies", type=int, default=1000)
    given = flags.parse_args()
    given.out /= f"{given.studies}-studies"
    bad = 0
    print(f"| {' | '.join(COLUMNS)} |")
    print("| --- | --- | --- |" + " ---: |" * 9)
    for (skill, truth, size), line in zip(
        rows, carry_out(given, lambda _, number: studied(rows[number], given.studies, given.seed)), strict=False
    ):
        bad += line["held"] < LEAST_HELD or (truth == "calibrated" and max(line["alarm"], line["needed"]) > MOST_ALARMS)
        bad += skill == SURE and truth != "calibrated" and line["needed"] < LEAST_FOUND
        print(
            f"| {truth} | {skill} | {size} | {line['true']:.3f} | {line['error']:.3f} | {line['held']:.1%} "
            f"| {line['width']:.3f} | {line['alarm']:.1%} | {line['needed']:.1%} | {line['open']:.1%} | {line['ece']:.3f} "
            f"| {line['ece_if_calibrated']:.3f} |",
            flush=True,
        )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
