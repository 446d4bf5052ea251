"""How much explaining a run affords: less than its training took. Counted in passes, so that it is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stillroom.explanation.controls import TRIVIAL
from stillroom.explanation.evidence import COMPARED
from stillroom.explanation.faithfulness import SHARES
from stillroom.explanation.heat_maps import BY_GRADIENT, Method
from stillroom.explanation.judging import BASELINES, ROAD_SIDE, sanity_images
from stillroom.explanation.rise import MASKS
from stillroom.explanation.score_cam import asked_for

PASSES_OF_A_STEP = 3
"""What an image costs in training, in passes that only ask: one forward, and about two backward."""

_ROAD_PASSES = 8


@dataclass(frozen=True)
class Effort:
    """What is done.

    Attributes:
        images: how many are explained.
        drawn: the roles whose maps are drawn.
        judged: those whose maps are also measured for faithfulness.
    """

    images: int
    drawn: tuple[str, ...]
    judged: tuple[str, ...]


def efforts(roles: Sequence[str], needed: Sequence[str], most: int, fewest: int) -> list[Effort]:
    """What may be done, from everything to the least that still gives a verdict.

    Given up are, in turn, the faithfulness of one network after the other from the end, images, and the others' maps.

    Args:
        roles: of the networks, ``needed`` ones first.
        needed: whose maps must be judged.
        most: images wanted.
        fewest: images that a verdict needs.
    """
    every, least = tuple(roles), tuple(needed)
    few = min(most, fewest)
    judging = [Effort(most, every, every[:count]) for count in range(len(every), len(least) - 1, -1)]
    return [*judging, Effort(few, every, least), Effort(few, least, least)]


def affordable(choices: Sequence[Effort], cost: Callable[[Effort], float], budget: float) -> Effort:
    """The first that costs no more than the budget, or the last."""
    return next((choice for choice in choices if cost(choice) <= budget), choices[-1])


def spared(effort: Effort, wanted: Effort) -> list[str]:
    """What was given up of what was wanted, in a sentence; none where nothing was."""
    parts = []
    if effort.images < wanted.images:
        parts.append(f"{effort.images} images are explained, not {wanted.images}")
    if undrawn := [role for role in wanted.drawn if role not in effort.drawn]:
        parts.append(f"no maps of the {' and the '.join(undrawn)} are drawn")
    if unjudged := [role for role in effort.drawn if role not in effort.judged]:
        parts.append(f"maps of the {' and the '.join(unjudged)} are drawn and compared, but not judged")
    if not parts:
        return []
    return [
        f"So that explaining takes no longer than training: {'; '.join(parts)}. --explain {wanted.images} does all."
    ]


def passes(images: int, side: int, method: Method, channels: int, *, judged: bool, compared: bool = True) -> int:
    """How often a network is asked about an image.

    Args:
        images: how many are explained.
        side: of an image, in pixels.
        method: the heat map.
        channels: of the layer it is made of.
        judged: with the measures of faithfulness, not the maps alone.
        compared: a judged Score-CAM is also compared with its fast or exact form.
    """
    one = _passes_of_a_map(method, channels)
    if not judged:
        return images * one
    other = {"score_cam": "score_cam_fast", "score_cam_fast": "score_cam"}.get(method)
    beside = min(images, COMPARED.get(method, 0)) * _passes_of_a_map(other, channels) if other and compared else 0
    maps = 1 + len(TRIVIAL)
    measured = len(BASELINES) * (2 * maps * len(SHARES) + 2) + 1 + maps + (_ROAD_PASSES if side <= ROAD_SIDE else 0)
    return images * (one + measured) + sanity_images(images) * one + beside


def _passes_of_a_map(method: str, channels: int) -> int:
    if method in BY_GRADIENT:
        return 1 + PASSES_OF_A_STEP
    if method == "rise":
        return MASKS
    return 1 if method == "eigen_cam" else 1 + asked_for(channels, fast=method == "score_cam_fast")
