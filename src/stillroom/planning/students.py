"""Which students a plan may take, best first, and where each starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stillroom.planning.facts import Facts
from stillroom.planning.networks import SIBLINGS, STUDENTS, UNTRAINED_STUDENTS, Networks
from stillroom.planning.sheet import Limits
from stillroom.settings.sections import StudentSettings


class Start(NamedTuple):
    """A student and where its weights come from: its own pretrained ones, those of ``large``, or neither."""

    name: str
    pretrained: bool
    large: str = ""

    @property
    def why(self) -> str:
        """Why a plan takes it, of all that are within its limits."""
        if self.pretrained:
            return "the best on ImageNet of those with pretrained weights at hand"
        if self.large:
            return f"the largest that can be cut out of a pretrained network at hand ({self.large})"
        return "it learns fast from random weights"


def starts(
    facts: Facts, shelf: Networks, limits: Limits, given: StudentSettings, fixed: frozenset[str]
) -> Iterator[Start]:
    """Students that are small enough: with pretrained weights of their own, cut out of a pretrained sibling, random.

    Args:
        facts: the weights at hand.
        shelf: what the networks weigh.
        limits: how much they may weigh; a student that is given may weigh more.
        given: holds the values of what is fixed.
        fixed: names of settings that are not the plan's to choose.
    """
    weights = facts.student_weights

    def light(name: str) -> bool:
        return limits.max_mb is None or shelf.megabytes(name) <= limits.max_mb

    if "student.student" in fixed:
        if {"student.student_pretrained", "student.student_from"} & fixed:
            yield Start(given.student, given.student_pretrained, given.student_from)
        elif given.student in weights:
            yield Start(given.student, True)
        else:
            siblings = (large for small, large in SIBLINGS if small == given.student and large in weights)
            yield Start(given.student, False, next(siblings, ""))
        return
    own = [Start(name, True) for name in STUDENTS if name in weights and light(name)]
    cut = [Start(small, False, large) for small, large in SIBLINGS if large in weights and light(small)]
    untrained = [Start(name, False) for name in UNTRAINED_STUDENTS if light(name)]
    if given.student_from:
        yield from (start for start in cut if start.large == given.student_from)
    elif "student.student_pretrained" in fixed:
        yield from own if given.student_pretrained else untrained
    else:
        yield from (*own, *cut, *untrained)
