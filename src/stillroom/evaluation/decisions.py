"""Intervals of figures of decisions that are made of several shares: balanced accuracy, means over classes, F1 and MCC.

A network that rarely gives an answer is moved by few images, or by none, where the next ones would move it: who calls none of
five ill images ill, and none of 45 well ones, has a balanced accuracy of .5 that no image moves. Not known of it is what is
not known of its shares, whose intervals are exact; so its interval is made of theirs (MOVER; Zou and Donner 2008): each end
lies as far away as the root of the sum of squares of how far the shares' ends do. The MCC of two classes is a function of
sensitivity and specificity, and takes its smallest and largest value on the ellipse through these ends, which for a sum is
the same. F1 is ``2 J / (1 + J)`` of a share ``J``: of the images that are of the class or called it, those that are both.

What patients or labels share is in the variance of the whole, so that the interval made of that is kept where it is wider.
"""

from __future__ import annotations

import numpy as np

from stillroom.evaluation.figures import Averaged, Figures
from stillroom.evaluation.intervals import divide
from stillroom.task import Task

MEANS = ("balanced_accuracy", "sensitivity", "specificity", "precision", "f1")
APART = ("balanced_accuracy", "sensitivity", "precision")
"""Of classes that exclude each other every image counts in one of their sensitivities, and in one of their precisions."""
Ends = dict[str, np.ndarray]

_ANGLES = np.linspace(0, 2 * np.pi, 721)


def jaccard(f1: np.ndarray) -> np.ndarray:
    """The share of the images with the class or the answer that have both, from F1."""
    return f1 / (2 - f1)


def f1_of(jaccard: np.ndarray) -> np.ndarray:
    """F1 from that share."""
    return 2 * jaccard / (1 + jaccard)


def jaccard_slope(f1: np.ndarray) -> np.ndarray:
    """How far the share moves with F1."""
    return 2 / (2 - f1) ** 2


def of_mean(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Ends of the mean of ``[C]`` figures with ``[C, 2]`` ends of their own."""
    reach = np.sqrt(((ends - values[:, None]) ** 2).sum(axis=0)) / len(values)
    return values.mean() + np.array([-1.0, 1.0]) * reach


def filled(ends: np.ndarray) -> np.ndarray:
    """``[C, 2]`` ends of shares; a class too small for an interval may have any."""
    return np.where(np.isnan(ends), [0.0, 1.0], ends)


def chosen(whole: np.ndarray, made: np.ndarray, apart: bool) -> np.ndarray:
    """``[2]`` ends of a figure from those by the variance of the whole and those made of its shares; NaN where it has none.

    Args:
        apart: whether the shares rest on images that have nothing in common.
    """
    if np.isnan(whole).any() or np.isnan(made).any():
        return np.full(2, np.nan)
    return made if apart else np.array([min(whole[0], made[0]), max(whole[1], made[1])])


def mcc(share: float, sensitivity: np.ndarray, specificity: np.ndarray) -> np.ndarray:
    """Matthews' coefficient of two classes, ``share`` of the images being of one; NaN where one answer alone is given."""
    called = share * sensitivity + (1 - share) * (1 - specificity)
    spread = np.sqrt(share * (1 - share) * np.maximum(called * (1 - called), 0))
    return divide(share * (1 - share) * (sensitivity + specificity - 1), spread)


def of_mcc(share: float, values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Ends of the MCC of two classes.

    Args:
        share: of the images that are of one of them, in (0, 1).
        values: ``[2]`` sensitivity and specificity.
        ends: ``[2, 2]`` of these.
    """
    around = np.array([np.cos(_ANGLES), np.sin(_ANGLES)])
    far = np.where(around < 0, (values - ends[:, 0])[:, None], (ends[:, 1] - values)[:, None])
    found = mcc(share, *np.clip(values[:, None] + around * far, 0, 1))
    # At a corner where one answer alone is given there is none: it is as near to its neighbours' as one likes.
    return np.array([np.nanmin(found), np.nanmax(found)])


def composed(
    task: Task, averaged: Averaged, sizes: np.ndarray, value: Figures, of_class: Ends, whole: Ends, patients: bool
) -> Ends:
    """Ends of the overall figures that are made of several shares, by name; each ``[2]``, NaN for none.

    Args:
        sizes: ``[K]`` share of the images that are of each class.
        value: the figures.
        of_class: name of a figure to ``[K, 2]`` of each class.
        whole: name to ``[2]`` by the variance of the whole.
        patients: whether images have patients in common.
    """

    def shares(*parts: tuple[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.concatenate([value.per_class[name][0, over] for name, over in parts]),
            filled(np.concatenate([of_class[name][over] for name, over in parts])),
        )

    apart = task.exclusive and not patients
    found = {}
    for name in MEANS:
        if parts := [part for part in averaged.parts(task, name) if len(part[1])]:
            one = sum(len(over) for _, over in parts) == 1
            made = of_class[parts[0][0]][parts[0][1][0]] if one else of_mean(*shares(*parts))
            found[name] = chosen(whole[name], made, one or (apart and name in APART))
    # Of two classes that exclude each other one tells all, of labels each; with more classes errors have places as well.
    told = len(averaged.contrasted) if not task.exclusive else int(len(sizes) == 2)
    sides = [
        (sizes[k], *shares(("sensitivity", np.array([k])), ("specificity", np.array([k]))))
        for k in averaged.contrasted[:told]
    ]
    if sides:
        each = np.array([mcc(share, *values) for share, values, _ in sides])
        found["mcc"] = chosen(whole["mcc"], of_mean(each, np.array([of_mcc(*side) for side in sides])), apart)
    return found
