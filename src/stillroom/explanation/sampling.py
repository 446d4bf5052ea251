"""Which images are explained: mostly those decided positive, and every class alike."""

from __future__ import annotations

import numpy as np

_POSITIVE = 3  # for each of the others


def sampling_order(decided: np.ndarray, positive: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of all images in the order in which they are taken, ``[n]``: whatever is cut off, the first are a fair sample.

    Three of four images are decided positive, as long as there are any, because the verdict on heat maps rests on these;
    among those and the others, classes take turns. Within a class luck decides.

    Args:
        decided: ``[n]`` int, the class decided for.
        positive: ``[n]`` bool, whether that is positive.
        seed: of what luck decides.
    """
    shuffled = np.random.default_rng(seed).permutation(len(decided))
    turns = np.empty(len(decided))
    for kind, step in ((True, 1 / _POSITIVE), (False, 1.0)):
        chosen = shuffled[positive[shuffled] == kind]
        queue = _by_turns(decided[chosen])
        turns[chosen[queue]] = (np.arange(len(queue)) + 0.5) * step
    return np.argsort(turns, kind="stable")


def _by_turns(classes: np.ndarray) -> np.ndarray:
    """The places of ``[n]`` classes, first one of each, then a second of each and so on."""
    number = np.empty(len(classes), dtype=np.int64)
    for name in np.unique(classes):
        own = np.flatnonzero(classes == name)
        number[own] = np.arange(len(own))
    return np.argsort(number, kind="stable")
