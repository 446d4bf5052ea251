"""How often the intervals of figures and of paired differences hold the truth, and how often non-inferiority is claimed
in error, where the truth is known: answers are drawn from distributions, the truth is measured on 200,000 images of each.

    python proofs/intervals.py [--studies 500] [--seed 0] [--before 200] [--only NAME ...]

Every case is a kind of answers, so many images, a share of positives and a true AUC; the first of two networks has that
AUC less .02, which is also the margin, so that every claim of non-inferiority is an error (2.5 % are meant). Graded
answers are normal scores of two classes, decided half way between them. Weighed ones have the share of positives in their
odds as well, as a network learns it: where it is small they rarely, or never, say so. Missed ones are perfect but for
positives that look like negatives, and the second network misses none that the first finds. Patients have four images each
(or ten) that share half of what makes them hard, and one label (or, mixed, labels of their own). Four classes, five grades
and five labels have the shares of SHARES.
`--before` adds the percentile bootstrap with so many resamples.

A figure's coverage is over all studies in which it is defined; intervals that are not given (fewer than two patients) count
as held and are 1 wide.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from recorded import carry_out, parser
from scipy.stats import norm

from stillroom.evaluation.effective import difference, span
from stillroom.evaluation.figures import figures
from stillroom.evaluation.intervals import draw, percentile, resample_weights
from stillroom.evaluation.metrics import interval_ends, measure
from stillroom.task import MultiClass, MultiLabel, Task

LEAST_HELD, MOST_WRONG = 0.93, 0.025
LEAD = 0.02
BINARY = MultiClass(("healthy", "ill"))
SHARES = {
    "four classes": (0.4, 0.3, 0.2, 0.1),
    "five grades": (0.4, 0.2, 0.15, 0.15, 0.1),
    "five labels": (0.5, 0.3, 0.2, 0.1, 0.1),
}
TASKS: dict[str, Task] = {
    "four classes": MultiClass(tuple("abcd")),
    "five grades": MultiClass(tuple("abcde"), ordinal=True),
    "five labels": MultiLabel(tuple("abcde")),
}


@dataclass(frozen=True)
class Case:
    """What is drawn: ``images`` in all, ``each`` of a patient; ``truth`` is the AUC (or, of many classes, the distance)."""

    kind: str
    images: int
    positives: float
    truth: float
    each: int = 1
    mixed: bool = False
    weighed: bool = False

    @property
    def task(self) -> Task:
        return TASKS.get(self.kind, BINARY)

    @property
    def name(self) -> str:
        patients = "" if self.each == 1 else f", patients of {self.each}{' mixed' if self.mixed else ''}"
        share = f", {self.positives:.0%} positive" if self.task is BINARY else ""
        weighed = "weighed " if self.weighed else ""
        return f"{weighed}{self.kind}, {self.images} images{patients}{share}, {self.truth:g}"


CASES = [
    *(
        Case(kind, images, share, auc)
        for kind, areas in {"graded": (0.7, 0.9, 0.97, 0.995), "missed": (0.95, 0.99)}.items()
        for images in (50, 100, 500)
        for share in ((0.1, 0.2, 0.5) if images < 500 else (0.1, 0.5))
        for auc in areas
    ),
    *(
        Case(kind, images, share, auc, 4, mixed)
        for kind, mixed, images in (
            ("graded", False, 100),
            ("graded", False, 200),
            ("graded", True, 100),
            ("missed", False, 100),
        )
        for share in (0.1, 0.5)
        for auc in (0.8, 0.97)
    ),
    *(
        Case("graded", images, share, auc, 10)
        for images, share in ((100, 0.5), (200, 0.2), (200, 0.5))
        for auc in (0.8, 0.97)
    ),
    *(
        Case(kind, images, 0, far, each)
        for kind in TASKS
        for images, each in ((100, 1), (300, 1), (100, 4))
        for far in (1.5, 4)
    ),
    *(
        Case("weighed", images, share, auc)
        for images, share, areas in (
            (50, 0.1, (0.7, 0.8, 0.9, 0.95, 0.995)),
            (50, 0.2, (0.7, 0.8)),
            (50, 0.5, (0.7, 0.9)),
            (100, 0.1, (0.7, 0.8, 0.9)),
            (100, 0.2, (0.8,)),
            (300, 0.1, (0.8,)),
            (500, 0.1, (0.7, 0.8, 0.9)),
            (500, 0.5, (0.9,)),
        )
        for auc in areas
    ),
    *(Case("weighed", 200, share, auc, 4, mixed) for share, auc, mixed in ((0.1, 0.8, False), (0.2, 0.8, True))),
    *(
        Case(kind, images, 0, 1, each, weighed=True)
        for kind in TASKS
        for images, each in ((100, 1), (300, 1), (200, 4))
    ),
]


def logit_of(share: float | np.ndarray) -> np.ndarray:
    """The log odds of it."""
    return np.log(np.divide(share, np.subtract(1, share)))


def answers(case: Case, images: int, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Probabilities ``[N, K]`` of the two networks, and targets. Images of a patient stand side by side."""
    task, units = case.task, images // case.each
    classes = len(task.classes)

    def hardness(columns: int = 1) -> np.ndarray:
        own, common = (
            rng.normal(size=(images, columns)),
            np.repeat(rng.normal(size=(units, columns)), case.each, axis=0),
        )
        return own if case.each == 1 else (own + common) / np.sqrt(2)

    def labels(shares: tuple[float, ...]) -> np.ndarray:
        """Of exactly these shares, of whole patients unless they are mixed."""
        count = images if case.mixed else units
        counts = np.round(np.cumsum(shares) * count).astype(int)
        counts[-1] = count
        drawn = rng.permutation(np.searchsorted(counts, np.arange(count), side="right"))
        return drawn if case.mixed else np.repeat(drawn, case.each)

    shared = hardness(classes)
    noise = [np.sqrt(0.7) * shared + np.sqrt(0.3) * hardness(classes) for _ in range(2)]
    if task is BINARY:
        targets = labels((1 - case.positives, case.positives))
        luck = np.repeat(rng.random(units), case.each)
        made = []
        for own, auc in zip(noise, (case.truth - LEAD, case.truth), strict=True):
            if case.kind in ("graded", "weighed"):
                distance = np.sqrt(2) * norm.ppf(auc)
                logit = distance * (distance * targets + own[:, 0] - distance / 2)
                if case.kind == "weighed":
                    logit += logit_of(case.positives)
            else:
                logit = own[:, 0] - 4 + 8 * ((targets == 1) & (luck >= 2 * (1 - auc)))
            made.append(1 / (1 + np.exp(-logit)))
        return [np.column_stack([1 - chance, chance]) for chance in made], targets
    if task.exclusive:
        targets = labels(SHARES[case.kind])
        truth = task.one_hot(targets)
    else:
        truth = np.column_stack([labels((1 - share, share)) for share in SHARES[case.kind]])
        targets = truth.astype(np.uint8)
        noise = [np.sqrt(0.7) * own + np.sqrt(0.3) * shared[:, :1] for own in noise]
    made = []
    for own, far in zip(noise, (0.95 * case.truth, case.truth), strict=True):
        if case.kind == "five grades":
            latent = far / 2 * targets + own[:, 0]
            logits = -((latent[:, None] - far / 2 * np.arange(classes)) ** 2) / 2
            if case.weighed:
                logits += np.log(SHARES[case.kind])
        else:
            logits = far * (truth - 0.5) + own
            if case.weighed:
                odds = np.array(SHARES[case.kind])
                logits = far * logits + (np.log(odds) if task.exclusive else logit_of(odds))
        made.append(task.probabilities(logits))
    return made, targets


@cache
def truths(case: Case, seed: int) -> list[dict[str, float]]:
    """Figures of both networks on so many images that luck is gone; areas, and shares of missed positives, in closed form:
    counts of few errors jump, and a truth that is a little beside such a count would be missed with it."""
    rng = np.random.default_rng([seed, 1])
    made, targets = answers(case, 200_000, rng)
    found = [
        {name: float(each[0]) for name, each in figures(case.task, p, targets, np.ones((1, len(p)))).overall.items()}
        for p in made
    ]
    if case.task is BINARY:
        for one, auc in zip(found, (case.truth - LEAD, case.truth), strict=True):
            one["auc"] = auc
            if case.kind == "missed":
                one["accuracy"] = 1 - 2 * (1 - auc) * case.positives
    return found


def study(case: Case, studies: int, seed: int, resamples: int) -> dict:
    """Shares of the studies: an interval that holds the truth, by figure, with its mean width; claims in error."""
    true = truths(replace(case, images=0, each=1, mixed=False), seed)  # patients change no expectation
    rng = np.random.default_rng([seed, 2])
    patients = None if case.each == 1 else np.repeat(np.arange(case.images // case.each), case.each).astype(str)
    drawn = draw(case.images, 0, 0, patients)
    metric = case.task.selection_metric
    names = [name for name in true[0] if name != "ece"]
    margin = true[1][metric] - true[0][metric]
    rows: dict[str, list[tuple[float, float]]] = {}
    wrong: dict[str, list[bool]] = {"now": [], "before": []}

    def note(name: str, ends: tuple, truth: float, widest: float = 1.0) -> None:
        low, high = (-np.inf, np.inf) if ends[0] is None or np.isnan(ends[0]) else ends
        rows.setdefault(name, []).append((low <= truth <= high, min(widest, high - low)))

    for number in range(studies):
        made, targets = answers(case, case.images, rng)
        measured = [measure(case.task, p, targets, drawn) for p in made]
        ends = interval_ends(measured[1]).overall
        for name in names:
            if not np.isnan(measured[1].value.overall[name][0]):
                note(name, tuple(ends[name]), true[1][name])
        for name in (metric, "accuracy"):
            start, end = span(case.task, name)
            low, high, _ = difference(measured[0].moved(name), measured[1].moved(name), end - start)
            note(f"difference in {name}", (low, high), true[0][name] - true[1][name], 2.0)
            if name == metric:
                wrong["now"].append(low is not None and low > -margin)
        if resamples:
            weights = resample_weights(case.images, resamples, number, patients)
            moved = [figures(case.task, p, targets, weights).overall for p in made]
            for name in names:
                note(f"before: {name}", percentile(moved[1][name]), true[1][name])
            for name in (metric, "accuracy"):
                ends_before = percentile(moved[0][name] - moved[1][name])
                note(f"before: difference in {name}", ends_before, true[0][name] - true[1][name], 2.0)
                if name == metric:
                    wrong["before"].append(ends_before[0] is not None and ends_before[0] > -margin)
    held = {name: [float(np.mean(part)) for part in zip(*found, strict=True)] for name, found in rows.items()}
    return {"name": case.name, "held": held, "wrong": {when: float(np.mean(of)) for when, of in wrong.items() if of}}


def main() -> None:
    flags = parser(__doc__, name="intervals", count=len(CASES))
    flags.add_argument("--studies", type=int, default=500)
    flags.add_argument("--before", type=int, default=0, help="resamples of the percentile bootstrap; default none")
    flags.add_argument("--only", nargs="+", metavar="NAME", help="of these kinds; default all")
    given = flags.parse_args()
    cases = [case for case in CASES if not given.only or case.name in given.only]
    if given.only and len(cases) < len(given.only):
        flags.error(f"some of these kinds are none of {', '.join(case.name for case in CASES)}")
    given.count = min(given.count, len(cases))
    given.out /= f"{given.studies}-studies{f'-{given.before}-resamples' if given.before else ''}"
    given.out /= "-".join(str(CASES.index(case)) for case in cases) if given.only else ""

    def case(_rng: np.random.Generator, number: int) -> dict:
        return study(cases[number], given.studies, given.seed, given.before)

    found = list(carry_out(given, case))
    # Of so many studies a true 93 % or 2.5 % is missed by chance: three standard errors are allowed.
    slack = [3 * np.sqrt(p * (1 - p) / given.studies) for p in (LEAST_HELD, MOST_WRONG)]
    low = 0
    print("| Figure | Least held | in | Mean | Mean width |\n| --- | ---: | --- | ---: | ---: |")
    for name in sorted({name for line in found for name in line["held"]}):
        held = [(line["held"][name][0], line["name"], line["held"][name][1]) for line in found if name in line["held"]]
        least = min(held)
        low += least[0] < LEAST_HELD - slack[0] and not name.startswith("before")
        print(
            f"| {name} | {least[0]:.1%} | {least[1]} | {np.mean([h[0] for h in held]):.1%} | "
            f"{np.mean([h[2] for h in held]):.3f} |"
        )
    for when in found[0]["wrong"]:
        worst = max((line["wrong"][when], line["name"]) for line in found)
        low += when == "now" and worst[0] > MOST_WRONG + slack[1]
        mean = np.mean([line["wrong"][when] for line in found])
        print(
            f"\nClaims of non-inferiority in error, {when}: {mean:.2%} in the mean, most {worst[0]:.1%} ({worst[1]})."
        )
    sys.exit(bool(low))


if __name__ == "__main__":
    main()
