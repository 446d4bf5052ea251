"""How often figures by patient and gaps between subgroups hold the truth, and how often a gap is claimed where there is none.

    python proofs/subgroups.py [--studies 500] [--seed 0]

Answers are normal scores of two classes (or of five labels), decided at their middle, so that AUC, sensitivity and
specificity are known in closed form. Images of a patient share half of what makes them hard, and the label; where a subgroup
is of eyes, a patient is in both. Of patients: the mean of a patient's scores has a known spread, whatever the number of its
images (four, or one to seven). Of gaps: with none, how many reports claim one (5 % are meant), over all figures and columns;
with one, how often the interval of the largest gap holds the largest true one (95 % or more), how often the gap in AUC is
found, and how wide its interval is. A report with three columns parts the same images in two, three and four; one with image
quality parts them four times more in thirds, which are of the same family.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from recorded import carry_out, parser, short
from scipy.stats import norm

from stillroom.data.bands import Grouping
from stillroom.data.quality import PROPERTIES
from stillroom.evaluation.by_patient import by_patient
from stillroom.evaluation.main_figures import Answers
from stillroom.evaluation.subgroups import judge_parts
from stillroom.task import MultiClass, MultiLabel

LEAST_HELD, MOST_CLAIMED = 0.93, 0.05
BINARY, LABELS = MultiClass(("healthy", "ill")), MultiLabel(tuple("abcde"))
SHARES = (0.5, 0.4, 0.3, 0.2, 0.2)


@dataclass(frozen=True)
class Patients:
    """``patients`` of whom ``share`` are ill; ``spread``: they have one to seven images, not four. AUC of patients."""

    patients: int
    share: float
    auc: float
    spread: bool = False

    @property
    def name(self) -> str:
        images = "1 to 7" if self.spread else "4"
        return f"{self.patients} patients of {images} images, {self.share:.0%} ill, AUC {self.auc:g}"


@dataclass(frozen=True)
class Gaps:
    """Subgroups of these sizes and true AUCs; ``each``: images of a patient; ``eyes``: who is in all of them."""

    sizes: tuple[int, ...]
    areas: tuple[float, ...]
    share: float = 0.3
    each: int = 1
    eyes: bool = False
    columns: int = 1
    labels: bool = False
    quality: bool = False

    @property
    def name(self) -> str:
        parts = [
            f"subgroups of {', '.join(map(str, self.sizes))}",
            f"AUC {', '.join(f'{area:g}' for area in self.areas)}",
        ]
        parts += ["five labels"] if self.labels else [f"{self.share:.0%} ill"]
        parts += [f"patients of {self.each}"] if self.each > 1 else []
        parts += ["patients in both"] if self.eyes else []
        parts += ["three columns"] if self.columns > 1 else []
        parts += ["and image quality"] if self.quality else []
        return "; ".join(parts)


def _same(sizes: tuple[int, ...], area: float, **more) -> Gaps:
    return Gaps(sizes, (area,) * len(sizes), **more)


CASES: list[Patients | Gaps] = [
    *(Patients(n, share, auc) for n in (30, 60, 200) for share in (0.2, 0.5) for auc in (0.8, 0.95)),
    *(Patients(n, 0.3, auc, True) for n in (60, 200) for auc in (0.8, 0.95)),
    *(_same(sizes, area) for sizes in ((60, 60), (50, 100, 350), (40, 60, 100, 300)) for area in (0.75, 0.9, 0.97)),
    *(_same((160, 240), area, each=4) for area in (0.75, 0.9, 0.97)),
    *(_same((100, 100), area, each=2, eyes=True) for area in (0.75, 0.9, 0.97)),
    *(_same((600,), area, columns=3) for area in (0.75, 0.9, 0.97)),
    *(_same((150, 250), area, labels=True) for area in (0.75, 0.9)),
    *(Gaps(sizes, areas) for sizes in ((60, 60), (200, 200)) for areas in ((0.85, 0.75), (0.97, 0.87))),
    Gaps((50, 100, 350), (0.9, 0.9, 0.8)),
    Gaps((50, 100, 350), (0.95, 0.9, 0.85)),
    Gaps((160, 240), (0.9, 0.75), each=4),
    Gaps((100, 100), (0.9, 0.8), each=2, eyes=True),
    Gaps((150, 250), (0.9, 0.8), labels=True),
    *(_same(sizes, 0.75, quality=True) for sizes in ((60, 60), (150, 250))),
    _same((150, 250), 0.75, labels=True, quality=True),
    _same((600,), 0.75, columns=3, quality=True),
]


def patients_study(case: Patients, studies: int, rng: np.random.Generator) -> dict:
    """Shares of the studies whose interval holds the truth, by figure, and its mean width."""
    far = np.sqrt(2) * norm.ppf(case.auc)
    truth = {"auc": case.auc} | dict.fromkeys(("accuracy", "sensitivity", "specificity"), norm.cdf(far / 2))
    held: dict[str, list[tuple[bool, float]]] = {name: [] for name in truth}
    for _ in range(studies):
        each = rng.integers(1, 8, case.patients) if case.spread else np.full(case.patients, 4)
        ill = np.arange(case.patients) < round(case.share * case.patients)
        members = np.repeat(np.arange(case.patients), each)
        own = rng.normal(size=len(members))
        # The patient's mean has the spread 1 by construction, its images vary around it.
        own -= (np.bincount(members, weights=own) / each)[members]
        scores = (far * (ill - 0.5) + rng.normal(size=case.patients))[members] + own
        chance = 0.5 + scores / 100  # the mean of what is linear in the score ranks and decides as the mean score does
        both = np.column_stack([1 - chance, chance])
        found = by_patient(BINARY, {"student": both}, ill[members].astype(np.int64), members.astype(str))
        for name, true in truth.items():
            figure = found["figures"]["student"][name]
            held[name].append((figure["low"] <= true <= figure["high"], figure["high"] - figure["low"]))
    return {"name": case.name, "held": {name: np.mean(rows, axis=0).tolist() for name, rows in held.items()}}


def _drawn(case: Gaps, rng: np.random.Generator) -> tuple[Answers, list[Grouping]]:
    images = sum(case.sizes)
    members = np.repeat(np.arange(len(case.sizes)), case.sizes)
    patients = np.arange(images) // case.each
    if case.eyes:
        members = np.tile(np.arange(len(case.sizes)), images // len(case.sizes))
    far = np.sqrt(2) * norm.ppf(np.array(case.areas))[members]
    width = len(SHARES) if case.labels else 1
    units = int(patients.max()) + 1
    hard = rng.normal(size=(images, width))
    if case.each > 1:
        hard = (hard + rng.normal(size=(units, width))[patients]) / np.sqrt(2)
    known = patients.astype(str) if case.each > 1 else None
    if case.labels:
        truth = np.column_stack([rng.permutation(np.arange(images) < share * images) for share in SHARES])
        scores = far[:, None] * (truth - 0.5) + hard
        answers = Answers.of(LABELS, 1 / (1 + np.exp(-scores)), truth.astype(np.uint8), known)
    else:
        ill = rng.permutation(np.arange(units) < round(case.share * units))[patients]
        chance = 1 / (1 + np.exp(-(far * (ill - 0.5) + hard[:, 0])))
        answers = Answers.of(BINARY, np.column_stack([1 - chance, chance]), ill.astype(np.int64), known)
    names = tuple("abcd")
    groupings = [Grouping("site", names[: len(case.sizes)], members)]
    if case.columns > 1:
        groupings = [Grouping(f"of {k}", names[:k], rng.permutation(np.arange(images) % k)) for k in (2, 3, 4)]
    return answers, groupings


def gaps_study(case: Gaps, studies: int, rng: np.random.Generator) -> dict:
    """Shares of reports in which a gap is claimed, and in which the interval of the largest gap holds it, with its width."""
    ends = np.array(case.areas)
    decided = norm.cdf(norm.ppf(ends) / np.sqrt(2))
    truth = {"auc": np.ptp(ends), "sensitivity": np.ptp(decided), "specificity": np.ptp(decided)}
    claimed, held, widths = [], {name: [] for name in truth}, []
    sure: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(studies):
        answers, groupings = _drawn(case, rng)
        parts = {"groups": groupings}
        if case.quality:
            images = len(answers.truth)
            parts["quality"] = [
                Grouping(name, tuple("abc"), rng.permutation(np.arange(images) % 3)) for name in PROPERTIES
            ]
        columns = [column for part in judge_parts(answers, parts, "student").values() for column in part["columns"]]
        gaps = [(name, gap) for column in columns for name, gap in column["gaps"].items()]
        claimed.append(any(gap["sure"] for _, gap in gaps))
        for name, gap in gaps:
            held[name].append(gap["low"] <= truth[name] + 1e-12 and truth[name] <= gap["high"])
            sure[name].append(bool(gap["sure"]))
            widths += [gap["high"] - gap["low"]] if name == "auc" else []
    return {
        "name": case.name,
        "gap": float(truth["auc"]),
        "claimed": float(np.mean(claimed)),
        "held": {name: float(np.mean(of)) for name, of in held.items() if of},
        "sure": {name: float(np.mean(of)) for name, of in sure.items() if of},
        "width": float(np.mean(widths)) if widths else None,
        "compared": len(held["auc"]) / studies,
    }


def main() -> None:
    flags = parser(__doc__, name="subgroups", count=len(CASES))
    flags.add_argument("--studies", type=int, default=500)
    given = flags.parse_args()
    given.out /= f"{given.studies}-studies"

    def case(rng: np.random.Generator, number: int) -> dict:
        one = CASES[number]
        if isinstance(one, Patients):
            return patients_study(one, given.studies, rng)
        return gaps_study(one, given.studies, rng)

    found = list(carry_out(given, case))
    # Of so many studies a true 93 % or 5 % is missed by chance: three standard errors are allowed.
    slack = [3 * np.sqrt(p * (1 - p) / given.studies) for p in (LEAST_HELD, MOST_CLAIMED)]
    wrong = 0
    names = ("auc", "accuracy", "sensitivity", "specificity")
    print(f"| Patients | {' | '.join(names)} | width of AUC |\n| --- |{' ---: |' * 5}")
    for line in (line for line in found if "claimed" not in line):
        held = [line["held"][name][0] for name in names]
        wrong += short(min(held) < LEAST_HELD - slack[0], line["name"])
        print(f"| {line['name']} | {' | '.join(f'{each:.1%}' for each in held)} | {line['held']['auc'][1]:.3f} |")
    print("\n| Subgroups | gap in AUC | a gap is claimed | AUC held | sensitivity | specificity | found | width |")
    print(f"| --- |{' ---: |' * 7}")
    for line in (line for line in found if "claimed" in line):
        held = [line["held"].get(name, 1.0) for name in ("auc", "sensitivity", "specificity")]
        none = line["gap"] == 0
        many = none and line["claimed"] > MOST_CLAIMED + slack[1]
        wrong += short(min(held) < LEAST_HELD - slack[0] or many, line["name"])
        power = "" if none else f"{line['sure'].get('auc', 0):.0%}"
        shares = " | ".join(f"{each:.1%}" for each in held)
        width = f"{line['width'] or 0:.3f}"
        print(f"| {line['name']} | {line['gap']:.2f} | {line['claimed']:.1%} | {shares} | {power} | {width} |")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
