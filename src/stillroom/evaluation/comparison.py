"""Two models on the same images: paired intervals, tests, and a sentence that claims no more."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.evaluation.effective import difference, span
from stillroom.evaluation.intervals import LEVEL, Resamples, draw, wilson
from stillroom.evaluation.metrics import Measured, measure
from stillroom.task import Task


def compare(
    task: Task,
    first: np.ndarray,
    second: np.ndarray,
    targets: np.ndarray,
    *,
    patients: np.ndarray | None = None,
    margin: float = 0.02,
    resamples: int = 1000,
    seed: int = 0,
    names: tuple[str, str] = ("student", "teacher"),
) -> dict[str, Any]:
    """Paired comparison of two models by the task's selection metric and by accuracy, ready for JSON.

    What counts is how far each image (or patient) moves the difference, so what makes one hard for both cancels out. Few
    images on which two different models differ, or none, leave a doubt that the interval holds
    (:func:`stillroom.evaluation.effective.difference`).

    Args:
        first: ``[N, K]`` probabilities of the model under test.
        second: ``[N, K]`` probabilities of the reference.
        targets: in the task's form.
        patients: ``[N]`` str; whole patients then count. ``""`` where unknown.
        margin: non-inferiority margin, 0 or more, in units of the metric.
        resamples: without effect; there was a bootstrap.
        names: nouns for the two models, as in "the student".

    Returns:
        ``metric``; ``first`` and ``second`` (``name`` and ``value``); ``difference`` and
        ``accuracy_difference`` (first minus second, 95 % intervals); ``p_value`` and ``accuracy_p`` (two-sided, of these
        differences: below 5 % exactly where the interval leaves zero out); ``delong_p`` (AUC of tasks with one scored class
        only) and ``mcnemar_p`` (exact, on images judged right in all their labels), two tests that take images as
        independent and need not agree with the intervals; ``margin``; ``non_inferior`` (the interval
        lies above -margin); ``superior`` (it lies above 0); ``verdict`` (one of superior, non-inferior, inconclusive,
        worse, inferior, undefined); ``statement``; ``notes``. None where not defined.

    Raises:
        UsageError: no images, shapes that do not fit together, or a negative margin.
        RunError: a probability that is not a number.
    """
    drawn = draw(len(targets), 0, seed, patients)
    measured = [measure(task, model, targets, drawn) for model in (first, second)]
    return compare_measured(task, measured[0], measured[1], targets, drawn, margin=margin, names=names)


def compare_measured(
    task: Task,
    first: Measured,
    second: Measured,
    targets: np.ndarray,
    drawn: Resamples,
    *,
    margin: float,
    names: tuple[str, str],
) -> dict[str, Any]:
    """:func:`compare` of what was measured on the same resamples already."""
    if margin < 0:
        raise UsageError(f"margin must be 0 or more, got {margin}.")
    metric = task.selection_metric
    found, p_value = _difference(first, second, metric)
    accuracy, accuracy_p = _difference(first, second, "accuracy")
    values = first.moved(metric).value, second.moved(metric).value
    result: dict[str, Any] = judge(metric, names, values, found, margin) | {
        "p_value": p_value,
        "accuracy_difference": accuracy,
        "accuracy_p": accuracy_p,
        "mcnemar_p": mcnemar(*(task.correct(model.probabilities, targets) == 1 for model in (first, second))),
        "notes": [],
    }
    if len(task.scored) == 1:
        k = task.scored[0]
        result["delong_p"] = delong(first.probabilities[:, k], second.probabilities[:, k], task.one_hot(targets)[:, k])
    if drawn.units < len(targets):
        tests = "DeLong's and McNemar's tests take" if "delong_p" in result else "McNemar's test takes"
        result["notes"].append(
            f"{tests} images as independent; several images of a patient are not, so trust the intervals, "
            "which count whole patients, rather than these p-values."
        )
    return result


def judge(
    metric: str,
    names: tuple[str, str],
    values: tuple[float, float],
    difference: dict[str, float | None],
    margin: float,
) -> dict[str, Any]:
    """What an interval of a difference allows to say: a comparison's ``metric``, ``first``, ``second``, ``difference``,
    ``margin``, ``non_inferior``, ``superior``, ``verdict`` and ``statement``; see :func:`compare`.

    Args:
        names: nouns for the two models, as in "the student".
        values: their figures; NaN where not defined.
        difference: ``value``, ``low`` and ``high`` of first minus second.
    """
    result: dict[str, Any] = {
        "metric": metric,
        "first": {"name": names[0], "value": _number(values[0])},
        "second": {"name": names[1], "value": _number(values[1])},
        "difference": difference,
        "margin": margin,
        "non_inferior": difference["low"] is not None and difference["low"] > -margin,
        "superior": difference["low"] is not None and difference["low"] > 0,
        "verdict": _verdict(difference, margin),
    }
    return result | {"statement": _statement(result)}


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """Exact two-sided McNemar test that two models are right equally often, from ``[N]`` bool each."""
    from scipy.stats import binomtest

    gained = int((first_right & ~second_right).sum())
    lost = int((second_right & ~first_right).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def delong(first: np.ndarray, second: np.ndarray, truth: np.ndarray) -> float | None:
    """DeLong's two-sided p-value that two correlated AUCs are equal, by midranks (Sun and Xu, 2014).

    Args:
        first: ``[N]`` scores of one model, higher for the positive class.
        second: ``[N]`` scores of the other on the same images.
        truth: ``[N]`` of 0/1.

    Returns:
        None with fewer than two images of either class, or where no variance can be estimated.
    """
    from scipy.stats import norm, rankdata

    positive = truth > 0
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return None
    # Share of the other class on whose right side each image is ranked, for both models: [2, m] and [2, n].
    above, beneath = [], []
    for scores in (first, second):
        ranks = rankdata(scores)
        above.append((ranks[positive] - rankdata(scores[positive])) / n)
        beneath.append(1 - (ranks[~positive] - rankdata(scores[~positive])) / m)
    difference = float(np.mean(above[0]) - np.mean(above[1]))
    covariance = np.cov(above) / m + np.cov(beneath) / n
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    # Equal shares differ by rounding alone; 1e-15 is far below any variance that real ones have.
    if variance <= 1e-15:
        return 1.0 if abs(difference) < 1e-12 else None
    return float(2 * norm.sf(abs(difference) / sqrt(variance)))


def _difference(first: Measured, second: Measured, name: str) -> tuple[dict[str, float | None], float | None]:
    """Of two models in one figure: ``value``, ``low`` and ``high``, and the p-value."""
    one, other = first.moved(name), second.moved(name)
    value = _number(one.value - other.value)
    if value is not None and np.array_equal(first.probabilities, second.probabilities):
        return {"value": 0.0, "low": 0.0, "high": 0.0}, 1.0
    start, end = span(first.task, name)
    low, high, p_value = difference(one, other, end - start)
    if low is not None and high is not None:  # of few images the interval would reach beyond what can be
        low, high = max(low, start - end), min(high, end - start)
    return {"value": value, "low": low, "high": high}, p_value


def doubt(units: int) -> float:
    """How much may hide behind images on which two models never differ: none in so many still leaves some."""
    return 1 - wilson(units, units, LEVEL)[0]


def rarest(task: Task, targets: np.ndarray) -> int:
    """Images on the rarer side of the rarest scored class that has both sides; 1 where none has."""
    support = task.one_hot(targets)[:, list(task.scored)].sum(axis=0, dtype=np.int64)
    sides = np.minimum(support, len(targets) - support)
    return int(sides[sides > 0].min(initial=len(targets))) if (sides > 0).any() else 1


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _verdict(difference: dict[str, float | None], margin: float) -> str:
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return "undefined"
    if low > 0:
        return "superior"
    if low > -margin:
        return "non-inferior"
    if high < -margin:
        return "inferior"
    return "worse" if high < 0 else "inconclusive"


def _statement(result: dict[str, Any]) -> str:
    """One sentence for people; its rounding never contradicts the claim it makes."""
    first, second = result["first"], result["second"]
    metric = {"auc": "AUC", "quadratic_kappa": "quadratic kappa"}[result["metric"]]
    low, high, margin = result["difference"]["low"], result["difference"]["high"], result["margin"]
    subject = first["name"][:1].upper() + first["name"][1:]
    if first["value"] is None or second["value"] is None:
        return f"{subject} and {second['name']} cannot be compared: {metric} is not defined on these images."
    digits = 3 if low is None else _digits((low, high), (0.0, -margin))
    compared = (
        f"{subject} {metric} {first['value']:z.{digits}f} against "
        f"{second['name']} {second['value']:z.{digits}f}: "
        f"difference {result['difference']['value']:z.{digits}f}"
    )
    if low is None:
        return f"{compared}; no interval could be computed, so nothing can be claimed."
    claim = {
        "superior": f"the {first['name']} is better.",
        "non-inferior": f"the {first['name']} is non-inferior: "
        + ("it is worse, but " if high < 0 else "if it is worse at all, it is ")
        + f"by less than the margin of {margin:g}.",
        "inconclusive": f"neither a difference nor non-inferiority by a margin of {margin:g} can be claimed.",
        "worse": f"the {first['name']} is worse, and non-inferiority by a margin of {margin:g} cannot be claimed.",
        "inferior": f"the {first['name']} is inferior: it is worse by more than the margin of {margin:g}.",
    }[result["verdict"]]
    return f"{compared} (95 % interval {low:z.{digits}f} to {high:z.{digits}f}); {claim}"


def _digits(ends: tuple[float, float], bounds: tuple[float, float]) -> int:
    """Fewest decimals, 3 to 6, that show every end on its true side of every bound."""
    for digits in range(3, 6):
        if all((round(end, digits) > bound) == (end > bound) for end in ends for bound in bounds):
            return digits
    return 6
