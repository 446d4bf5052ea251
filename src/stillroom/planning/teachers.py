"""Who teaches in the minutes that there are: a fine-tuned panel, or frozen networks with heads of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from stillroom.planning.costs import Teaching, Times, teaching_s, without_labels
from stillroom.planning.facts import Facts
from stillroom.planning.networks import DINOV2_SIDES, SIDES, Networks, rounded_up
from stillroom.planning.sheet import GIVEN
from stillroom.recipes import Best
from stillroom.settings.whole import Settings
from stillroom.training.feeding import steps_of_epoch

TEACH_SHARE, FROZEN_SHARE = 0.5, 0.3
"""Share of the minutes that the teachers may take: with a fine-tuned one among them, and frozen ones alone."""
FEWEST_VIEWS, PANEL_VIEWS, MOST_VIEWS = 5, 8, 16
"""Views of each image that a teacher is asked about, and before frozen networks join a fine-tuned one; fewer where the
student makes few passes."""
FINE_TUNE_STEPS, LEAST_STEPS, FINE_TUNE_PASSES = 300, 200, 2
"""A pretrained teacher is fine-tuned for so many steps, or at the least, in so many passes over the labels."""
MOST_SEEDS = 3
"""Copies of the fine-tuned network that differ in luck."""
FROZEN_SIDE = 96
"""Frozen networks are shown small images enlarged to at least this side: they were made for 224 px, and knew less of 64
on BreastMNIST (docs/benchmarks.md, "Which teachers...")."""
LARGEST_FROZEN_SIDE = 160
"""Of networks that join a panel frozen."""
TUNED_ALPHA, FROZEN_ALPHA = 0.2, 0.5
"""Weight of the labels beside a panel with a fine-tuned teacher, and beside frozen ones alone."""


@dataclass(frozen=True)
class Wish:
    """What a teacher is looked for by.

    Attributes:
        facts: the images, the weights at hand.
        shelf: what the networks are like.
        times: what they cost here.
        given: the settings so far, the recipe among them; holds the values of what is fixed.
        fixed: names of settings that are not the plan's to choose.
        names: of the teachers to choose from, strongest first.
        own: the pretrained network that the student starts from.
        side: of the student's input, in pixels.
        images: that are taught.
        batch: images of a step.
        seconds: that teaching may take, with a fine-tuned teacher and without one.
        passes: over the images that the student would make if it had all the minutes.
    """

    facts: Facts
    shelf: Networks
    times: Times
    given: Settings
    fixed: frozenset[str]
    names: tuple[str, ...]
    own: str
    side: int
    images: int
    batch: int
    seconds: tuple[float, ...]
    passes: int

    @property
    def tunes(self) -> bool | None:
        """Whether the teacher has to be fine-tuned; None where the minutes decide."""
        if "teacher.teacher_mode" in self.fixed:
            return self.given.teacher.teacher_mode == "finetune"
        if not all(map(self.shelf.trains, self.names)):
            return False
        recipe = self.given.recipe
        copies = isinstance(recipe, Best) and "recipe.teacher_seeds" in self.fixed and recipe.teacher_seeds > 1
        return True if copies else None  # frozen copies would all say the same

    def views(self, teaching: Teaching) -> int:
        """Of each image, at the least."""
        if "views.views" in self.fixed:
            return self.given.views.views
        fewest = PANEL_VIEWS if teaching.epochs and teaching.frozen else FEWEST_VIEWS
        return max(2, min(fewest, math.ceil(self.passes / 3)))

    def epochs(self, steps: int) -> int:
        """Of fine-tuning for so many steps."""
        if self.given.teacher.teacher_epochs:
            return self.given.teacher.teacher_epochs
        return max(FINE_TUNE_PASSES, round(steps / steps_of_epoch(self.facts.labelled, 0, self.batch)[0]))


def affordable(wish: Wish) -> Teaching:
    """The first teaching, best first, that answers views enough in its seconds.

    Frozen networks have fewer seconds than fine-tuned ones; where these are too few for any, as many; where these are too
    few as well, it is the one that comes nearest.
    """
    most = max(wish.seconds)
    found = [
        (teaching, most if teaching.epochs else wish.seconds[1], wish.views(teaching)) for teaching in _teachings(wish)
    ]
    last = [(teaching, wanted) for teaching, _, wanted in found if wish.tunes or not teaching.epochs]
    last = last or [(teaching, wanted) for teaching, _, wanted in found]  # none may be frozen alone
    found += [(teaching, most, min(2, wanted)) for teaching, wanted in last]
    nearest: tuple[float, Teaching] | None = None
    for teaching, seconds, wanted in found:
        views = _views(wish, teaching, seconds)
        if views >= wanted:
            break
        if any(teaching is one for one, _ in last) and (nearest is None or views > nearest[0]):
            nearest = views, teaching
    else:
        assert nearest is not None
        views, teaching = nearest
    if "views.views" in wish.fixed:
        return replace(teaching, views=wish.given.views.views)
    return replace(teaching, views=max(1, min(MOST_VIEWS, int(views))))


def _views(wish: Wish, teaching: Teaching, seconds: float) -> float:
    """How many views of each image there are seconds for."""
    bare = teaching_s(wish.facts, teaching, wish.images, wish.times)
    a_view = teaching_s(wish.facts, replace(teaching, views=1), wish.images, wish.times) - bare
    return (seconds - bare) / a_view


def _teachings(wish: Wish) -> Iterator[Teaching]:
    """What may teach, best first, without views yet."""
    recipe = wish.given.recipe
    panel, given = isinstance(recipe, Best), _given_frozen(wish)
    more = recipe.teachers if isinstance(recipe, Best) else ()
    if wish.tunes is not False:
        for name in _tuned(wish):
            lengths = [(seeds, FINE_TUNE_STEPS) for seeds in _seeds(wish)]
            for seeds, steps in (*lengths, (min(_seeds(wish)), LEAST_STEPS)):
                for side in _tuned_sides(wish, name):
                    tuned = Teaching((name, *more) * seeds, side, 0, wish.epochs(steps))
                    if panel:
                        yield from _with_frozen(wish, tuned, (*wish.names[:1], wish.own))
                    if not given:
                        yield tuned
    if wish.tunes:
        return
    for name in wish.names:
        if name in given and "teacher.teacher" not in wish.fixed:
            continue  # it is in the panel already
        beside = given or ((wish.own,) if panel and wish.own != name and wish.own in wish.facts.weights else ())
        for others in (beside,) if given else dict.fromkeys((beside, ())):
            for side in sorted(_frozen_sides(wish, name), reverse=True):
                sides = _sides_of_group(wish, others)
                same = not sides or side in sides
                yield Teaching((name, *more), side, 0, frozen=others, frozen_side=side if same else max(sides))


def _given_frozen(wish: Wish) -> tuple[str, ...]:
    """The frozen members that are not the plan's to choose."""
    recipe = wish.given.recipe
    return recipe.frozen_teachers if isinstance(recipe, Best) and "recipe.frozen_teachers" in wish.fixed else ()


def _sides_of_group(wish: Wish, names: tuple[str, ...]) -> set[int]:
    """The sides at which all of these networks may be asked frozen; empty for none of them."""
    recipe = wish.given.recipe
    if isinstance(recipe, Best) and "recipe.frozen_size" in wish.fixed and recipe.frozen_size:
        return {recipe.frozen_size}
    if not names:
        return set()
    common = set.intersection(*({*_frozen_sides(wish, name)} for name in names))
    return common or set.intersection(*({*_taken(wish, name)} for name in names)) or {wish.shelf.native(names[0])}


def _tuned(wish: Wish) -> tuple[str, ...]:
    """Networks to fine-tune. In a panel the student's own start: it costs the least, and taught as well as a larger one."""
    if isinstance(wish.given.recipe, Best) and "teacher.teacher" not in wish.fixed and wish.own in wish.facts.weights:
        return (wish.own,)
    return wish.names


def _seeds(wish: Wish) -> tuple[int, ...]:
    if not isinstance(wish.given.recipe, Best):
        return (1,)
    if "recipe.teacher_seeds" in wish.fixed:
        return (wish.given.recipe.teacher_seeds,)
    return tuple(range(MOST_SEEDS, 0, -1))


def _tuned_sides(wish: Wish, name: str) -> list[int]:
    """The student's own side; where another network is fine-tuned, also the larger ones that the images have."""
    if "teacher.teacher_size" in wish.fixed and wish.given.teacher.teacher_size:
        return [wish.given.teacher.teacher_size]
    if name == wish.own:
        return [wish.side]
    true = max(rounded_up(wish.facts.side), wish.side)
    return sorted((side for side in _taken(wish, name) if wish.side <= side <= true), reverse=True) or [
        wish.shelf.native(name)
    ]


def _with_frozen(wish: Wish, tuned: Teaching, names: tuple[str, ...]) -> Iterator[Teaching]:
    """The fine-tuned teaching with frozen networks beside it, as many and as large as the minutes allow."""
    everyone = tuple(dict.fromkeys(name for name in names if name in wish.facts.weights))
    given = _given_frozen(wish)
    for group in dict.fromkeys((given,) if "recipe.frozen_teachers" in wish.fixed else (everyone, everyone[:1])):
        if not group:
            continue
        sides = _sides_of_group(wish, group)
        small = {side for side in sides if side <= max(LARGEST_FROZEN_SIDE, wish.side)} or {min(sides)}
        for side in sorted(small, reverse=True):
            yield replace(tuned, frozen=group, frozen_side=side)


def _frozen_sides(wish: Wish, name: str) -> list[int]:
    if "teacher.teacher_size" in wish.fixed and wish.given.teacher.teacher_size:
        return [wish.given.teacher.teacher_size]
    largest = max(rounded_up(wish.facts.side), wish.side, FROZEN_SIDE)
    sides = _taken(wish, name)
    return [side for side in sides if FROZEN_SIDE <= side <= largest] or sides[:1] or [wish.shelf.native(name)]


def _taken(wish: Wish, name: str) -> list[int]:
    listed = DINOV2_SIDES if "dinov2" in name else SIDES
    return [side for side in listed if side <= wish.shelf.native(name) and wish.shelf.takes(name, side)]


# ---- in words --------------------------------------------------------------------------------------------------
def told(wish: Wish, found: Teaching) -> dict[str, tuple[Any, str]]:
    """The settings of the teaching that was found, each with its reason."""
    name, weights = found.names[0], wish.facts.weights_from
    if "teacher.teacher" in wish.fixed:
        why = GIVEN
    elif found.epochs and name == wish.own and isinstance(wish.given.recipe, Best):
        why = "the student's own network, pretrained and fine-tuned on the labels first: it costs little and knows as much"
    elif name == wish.own:
        why = "no other network has weights at hand"
    else:
        why = f"the strongest with weights at hand ({weights}) that the minutes allow"
    choices: dict[str, tuple[Any, str]] = {"teacher.teacher": (name, why)}
    labelled, share = wish.facts.labelled, f"{TEACH_SHARE:.0%} of the minutes"
    if found.epochs:
        choices["teacher.teacher_mode"] = "finetune", f"fine-tuned on {labelled} labels, within {share}"
        steps = found.epochs * steps_of_epoch(labelled, 0, wish.batch)[0]
        choices["teacher.teacher_epochs"] = found.epochs, f"{steps} steps; about {FINE_TUNE_STEPS} are enough"
    else:
        why = f"a linear head on its features: fine-tuning takes more than {share}, or more than the student can spare"
        if not all(map(wish.shelf.trains, found.names)):
            why = "it cannot be fine-tuned: it is a file, or answers by class already"
        choices["teacher.teacher_mode"] = "frozen", why
    choices["teacher.teacher_size"] = found.side, _why_side(wish, found.names, found.side, found)
    if isinstance(wish.given.recipe, Best):
        choices |= _panel(wish, found)
    return choices


def _why_side(wish: Wish, names: tuple[str, ...], side: int, found: Teaching) -> str:
    asked = wish.facts.images + found.views * wish.images
    forward = sum(wish.times.forward(name, side) for name in names)
    own = f", the network's own {wish.shelf.native(names[0])} px" if len({*names}) == 1 else ""
    return (
        f"{asked} questions of {1000 * forward:.1f} ms each take {asked * forward / 60:.1f} min; the images' shorter side "
        f"is {wish.facts.side} px{own}"
    )


def _panel(wish: Wish, found: Teaching) -> dict[str, tuple[Any, str]]:
    """Who else answers, and how much the labels weigh beside them."""
    choices: dict[str, tuple[Any, str]] = {}
    copies = found.names.count(found.names[0])
    if copies > 1:
        why = "copies that differ in luck alone: their mean is right more often than any one of them"
        choices["recipe.teacher_seeds"] = copies, why
    if found.frozen:
        other = "a fine-tuned network does" if found.epochs else "one network alone"
        why = f"their heads on frozen features take seconds, and err on other images than {other}"
        choices["recipe.frozen_teachers"] = found.frozen, why
        if found.frozen_side != found.side:
            choices["recipe.frozen_size"] = found.frozen_side, _why_side(wish, found.frozen, found.frozen_side, found)
    if found.epochs:
        alpha, why = TUNED_ALPHA, "a fine-tuned panel knows more than they tell"
    elif without_labels(wish.facts, wish.given.training.teach_rest):
        alpha, why = FROZEN_ALPHA, "frozen networks also teach what has no label"
    else:
        alpha, why = FROZEN_ALPHA, "frozen networks see much, but are not made for these images"
    choices["recipe.alpha"] = alpha, f"weight of the labels: {why}"
    return choices
