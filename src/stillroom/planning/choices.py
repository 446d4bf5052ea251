"""The rules: from facts about images, networks and machine to choices, each with its reason. A pure function.

Nothing is measured, read or drawn here: what a step costs and what a network weighs is asked of ``times`` and ``shelf``.
"""

from __future__ import annotations

import math
from dataclasses import replace

from stillroom.errors import UsageError
from stillroom.feeding import steps_of_epoch
from stillroom.planning.costs import (
    STEP_OVERHEAD,
    Teaching,
    Times,
    afterwards_s,
    teaching_s,
    training_s,
    without_labels,
)
from stillroom.planning.facts import Facts
from stillroom.planning.networks import (
    DINOV2_SIDES,
    SIBLINGS,
    SIDES,
    TEACHERS,
    UNTRAINED_STUDENTS,
    UNTRAINED_TEACHER,
    WITH_OWN_NETWORKS,
    Networks,
    rounded_up,
)
from stillroom.planning.sheet import GIVEN, Choice, Decision, Limits, Sheet, in_passes
from stillroom.planning.students import Start, starts
from stillroom.recipes import Best, Recipe
from stillroom.settings import Settings

MIN_STEPS, MIN_PASSES = 250, 5
"""A side is affordable where the student gets so many steps, in so many passes over the images that teach."""
MAX_STEPS, MAX_PASSES = 500, 30
"""More of both teach a pretrained network nothing new (docs/benchmarks.md, "Which start...")..."""
LONGER_UNTRAINED = 4
"""...others go on learning for so many times as long."""
TEACH_SHARE, FROZEN_SHARE = 0.5, 0.2
"""Share of the minutes that the teachers may take: a fine-tuned panel, and frozen ones alone."""
MIN_VIEWS, MAX_VIEWS = 4, 16
"""Views of each image that a teacher is asked about."""
FINE_TUNE_STEPS, FINE_TUNE_PASSES = 250, 3
"""A pretrained teacher is fine-tuned for so many steps, in so many passes over the labels, where the minutes allow it."""
UNTRAINED_EPOCHS = 30
"""Most epochs of a teacher that starts from random weights."""
RESERVE = 0.03
"""Share of the minutes that is not planned for."""
FEW_IMAGES = 5000
SMALL_BATCH, LARGE_BATCH = 32, 64
LR = 2e-3
"""Of what starts from random weights; pretrained ones move at :attr:`TrainingSettings.pretrained_lr` of it."""
TUNED_ALPHA, FROZEN_ALPHA, FEW_LABELS_ALPHA = 0.2, 0.8, 0.5
"""Weight of the labels beside a panel with a fine-tuned teacher, beside frozen ones alone, and where these also teach images
without labels. Frozen networks know less than a student that may learn: at 0.5 they held it back (docs/benchmarks.md)."""
IMBALANCED = 1.5
"""Classes are weighed from so many images of the commonest for one of the rarest."""


def choose(
    facts: Facts, shelf: Networks, times: Times, limits: Limits, given: Settings, fixed: frozenset[str]
) -> Decision:
    """Plan a run.

    Args:
        facts: the images, the weights at hand, the machine.
        shelf: what the networks are like.
        times: what they cost here.
        limits: minutes, size and latency.
        given: holds the values of what is fixed.
        fixed: names of settings that are not the plan's to choose, such as ``data.size`` or ``recipe.alpha``.

    Raises:
        UsageError: no network is within the limits.
    """
    return _Planner(facts, shelf, times, limits, given, fixed).plan()


class _Planner:
    def __init__(
        self, facts: Facts, shelf: Networks, times: Times, limits: Limits, given: Settings, fixed: frozenset[str]
    ) -> None:
        self.facts, self.shelf, self.times, self.limits = facts, shelf, times, limits
        self.given, self.fixed = given, fixed
        self.sheet = Sheet(given, fixed)
        self.put = self.sheet.put
        self.usable = 60 * limits.minutes * (1 - RESERVE)
        self.trainings = max(given.evaluation.repeats, given.evaluation.folds)
        self._given_views = "views.views" in fixed
        self.teachings = given.evaluation.folds  # repeats share their teacher

    def plan(self) -> Decision:
        facts = self.facts
        recipe = self._recipe()
        own = recipe.name in WITH_OWN_NETWORKS
        free = without_labels(facts, self.given.training.teach_rest) if recipe.has_teacher else 0
        images = facts.labelled + free
        batch = self._batch(images)
        self.steps_a_pass = steps_of_epoch(facts.labelled, free, batch)[0]
        shown = self.steps_a_pass * batch if free else images
        if facts.resolution is not None:
            self.put("data.resolution", facts.resolution, "the largest of this set's files at hand")
        start, side = self._student(recipe, shown) if not own else self._given_student(shown)
        teaching = self._teacher(recipe, start, side, images) if recipe.has_teacher and not own else None
        if isinstance(recipe, Best) and teaching:
            self._panel(teaching)
        if own and recipe.has_teacher:
            names = recipe.teacher_names(self.given)
            teaching = Teaching(names, self.given.teacher.teacher_size or side, self.given.views.views)
        teach_s = self.teachings * teaching_s(facts, teaching, images, self.times) if teaching else 0.0
        passes = self._training(start, side, shown, teach_s, teaching)
        self._views(passes, teaching)
        self._rest()
        train_s = training_s(facts, start.name, side, shown, passes, self.times) * self.trainings
        expected = {"teach": teach_s} if teaching else {}
        expected["student"] = train_s
        if recipe.has_control and self.given.evaluation.control:
            expected["control"] = train_s
        asked_for, seen = replace(self.given, recipe=recipe), shown * passes
        expected |= afterwards_s(facts, asked_for, (start.name, side), seen, teaching, self.times)
        return Decision(self.sheet.close(), {stage: round(seconds, 1) for stage, seconds in expected.items()})

    # -- who --------------------------------------------------------------------------------------------------
    def _recipe(self) -> Recipe:
        if any(name.startswith("recipe.") for name in self.fixed):
            self.sheet.choices["recipe.name"] = Choice(self.given.recipe.name, GIVEN)
            return self.given.recipe
        self.put("recipe.name", Best.name, "several teachers as one panel; docs/benchmarks.md says what it was worth")
        return Best()

    def _student(self, recipe: Recipe, images: int) -> tuple[Start, int]:
        """The first student of the list that is within the limits, and the side of its images."""
        chosen = nearest = None
        for start in starts(self.facts, self.shelf, self.limits, self.given.student, self.fixed):
            side, why_side = self._side(start, images, recipe.has_teacher)
            its_own = self.given.student.student_size or side
            latency = None if self.limits.max_ms is None else self.times.latency_ms(start.name, its_own)
            if latency is None or self.limits.max_ms is None or latency <= self.limits.max_ms:
                chosen = start
                break
            if nearest is None or latency < nearest[0]:
                nearest = (latency, start.name, side)
        if chosen is None and nearest is not None:
            raise UsageError(
                f"No student answers within {self.limits.max_ms:g} ms: the nearest is {nearest[1]} with {nearest[0]:.1f} ms "
                f"at {nearest[2]} px on one thread of this machine. Give a larger --max-ms, or a smaller --size."
            )
        if chosen is None:
            smallest = min((*UNTRAINED_STUDENTS, *(small for small, _ in SIBLINGS)), key=self.shelf.megabytes)
            raise UsageError(
                f"No network that the plan knows has at most {self.limits.max_mb:g} MB: the smallest is {smallest} with "
                f"{self.shelf.megabytes(smallest):.2f} MB. Give a larger --max-mb, or name a --student; "
                "`stillroom models --max-mb` lists more."
            )
        self.put("data.size", side, why_side)
        within = f"{self.shelf.megabytes(chosen.name):.1f} MB"
        if self.limits.max_mb is not None:
            within += f" of the {self.limits.max_mb:g} allowed"
        if latency is not None:
            within += f" and {latency:.1f} ms of {self.limits.max_ms:g}"
        self.put("student.student", chosen.name, f"{within}; {chosen.why}")
        if chosen.large:
            why = f"there are no weights of {chosen.name} at {self.facts.weights_from}, but of its larger sibling"
            self.put("student.student_from", chosen.large, why)
        else:
            why = f"its weights are at hand: {self.facts.weights_from}"
            if not chosen.pretrained:
                why = f"no weights for it, nor of a larger sibling to cut it out of: {self.facts.weights_from}"
            self.put("student.student_pretrained", chosen.pretrained, why)
        return chosen, its_own

    def _given_student(self, images: int) -> tuple[Start, int]:
        given = self.given.student
        start = Start(given.student, given.student_pretrained, given.student_from)
        side, why = self._side(start, images, self.given.recipe.has_teacher)
        self.put("data.size", side, why)
        return start, given.student_size or side

    # -- how large --------------------------------------------------------------------------------------------
    def _side(self, start: Start, images: int, teacher: bool) -> tuple[int, str]:
        """The largest side at which the student gets passes enough, and why."""
        if "data.size" in self.fixed:
            return self.given.data.size, GIVEN
        seconds = self.usable * (1 - TEACH_SHARE * teacher) / self.trainings
        wanted = self._enough(start)
        true = rounded_up(self.facts.side)
        sides = [side for side in SIDES if side <= true and self.shelf.takes(start.name, side)]
        if not sides:
            native = self.shelf.native(start.name)
            return native, f"{start.name} takes images of {native} px"
        side, passes = sides[0], seconds / (images * self.times.step(start.name, sides[0]) * STEP_OVERHEAD)
        for larger in sides[1:]:
            expected = seconds / (images * self.times.step(start.name, larger) * STEP_OVERHEAD)
            if expected < wanted:
                why = f"{in_passes(passes)} over {images} images in the minutes; at {larger} px only {expected:.0f}"
                return side, f"{why}, of at least {wanted}"
            side, passes = larger, expected
        of = f"the images' shorter side is {self.facts.side} px in the median"
        if self.facts.side < SIDES[0]:
            of += f", enlarged to the {SIDES[0]} px that networks need"
        enough = "fewer than" if passes < wanted else "of at least"
        return side, f"{of}; the minutes give {in_passes(passes)} over {images} images, {enough} {wanted}"

    def _enough(self, start: Start) -> int:
        """Passes that a student needs at the least."""
        return max(MIN_PASSES, math.ceil(MIN_STEPS / self.steps_a_pass)) * (1 if start.pretrained else LONGER_UNTRAINED)

    # -- the teacher ------------------------------------------------------------------------------------------
    def _teacher(self, recipe: Recipe, start: Start, side: int, images: int) -> Teaching:
        given, weights = self.given.teacher, self.facts.weights
        if "teacher.teacher" in self.fixed:
            names, why = [given.teacher], GIVEN
        else:
            names = [name for name in TEACHERS if name in weights and name != start.name]
            why = f"the strongest with weights at hand ({self.facts.weights_from}) that the minutes allow"
            if not names and start.name in weights:
                names, why = [start.name], "no other network has weights at hand"
        if not names or ("teacher.pretrained" in self.fixed and not given.pretrained):
            return self._untrained_teacher(
                names[0] if "teacher.teacher" in self.fixed else UNTRAINED_TEACHER, side, images
            )
        beside = self._beside(recipe, start)
        found = self._affordable(names, beside, start, side, images)
        name = found.names[0]
        asked = self.facts.images + found.views * images
        forward = sum(self.times.forward(member, found.side) for member in (name, *found.frozen))
        self.put("teacher.teacher", name, why)
        self._mode(found.epochs)
        self.put(
            "teacher.teacher_size",
            found.side,
            f"{asked} questions of {1000 * forward:.1f} ms each take {asked * forward / 60:.1f} min; the images' shorter "
            f"side is {self.facts.side} px, the network's own {self.shelf.native(name)} px",
        )
        return found

    def _beside(self, recipe: Recipe, start: Start) -> tuple[str, ...]:
        """Networks that can join a panel at little cost: the student's own pretrained start, with a head of its own."""
        if not isinstance(recipe, Best) or "recipe.frozen_teachers" in self.fixed:
            return recipe.frozen_teachers if isinstance(recipe, Best) else ()
        return tuple(name for name in (start.large or start.name,) if name in self.facts.weights)

    def _affordable(self, names: list[str], beside: tuple[str, ...], start: Start, side: int, images: int) -> Teaching:
        """The first of the teachers that answers views enough in its share of the minutes.

        Fine-tuned where that fits in, with its frozen self and those ``beside`` it in a panel if they fit in too;
        else frozen; as many pixels as possible.
        """
        its_own = self.given.student.student_size or side
        learning = training_s(self.facts, start.name, its_own, images, self._enough(start), self.times)
        spare = max(self.usable - self.trainings * learning, 0.1 * self.usable)  # the student's steps come first
        share, cheapest = min(self.usable * TEACH_SHARE, spare) / self.teachings, None
        wanted = self.given.views.views if self._given_views else MIN_VIEWS
        for name in names:
            sides = sorted(self._teacher_sides(name, side), reverse=True)
            panels = dict.fromkeys((tuple(dict.fromkeys((name, *beside))) if beside else (), ()))
            seeing = [s for s in sides if s >= its_own] or sides[:1]  # no fewer pixels than its student has
            if self._tunes() is not False:
                tuned = [Teaching((name,), s, wanted, self._tuning_epochs(), panel) for s in seeing for panel in panels]
                fitting = (found for found in tuned if teaching_s(self.facts, found, images, self.times) <= share)
                if found := next(fitting, tuned[-1] if self._tunes() else None):
                    return found
            share = min(share, self.usable * FROZEN_SHARE / self.teachings)
            for its_side in sides:
                for others in dict.fromkeys((tuple(member for member in beside if member != name), ())):
                    frozen = Teaching((name,), its_side, 0, frozen=others)
                    left = share - teaching_s(self.facts, frozen, images, self.times)
                    views = left / (images * sum(self.times.forward(member, its_side) for member in (name, *others)))
                    if views >= wanted:
                        return replace(frozen, views=wanted if self._given_views else min(MAX_VIEWS, int(views)))
                    if cheapest is None or views > cheapest[0]:
                        fewer = wanted if self._given_views else max(1, int(views))
                        cheapest = (views, replace(frozen, views=fewer))
        assert cheapest is not None
        return cheapest[1]

    def _teacher_sides(self, name: str, side: int) -> list[int]:
        if "teacher.teacher_size" in self.fixed and self.given.teacher.teacher_size:
            return [self.given.teacher.teacher_size]
        native, true = self.shelf.native(name), max(rounded_up(self.facts.side), side)
        listed = DINOV2_SIDES if "dinov2" in name else SIDES
        sides = [s for s in listed if s <= native and self.shelf.takes(name, s)]
        return [s for s in sides if s <= true] or sides[:1] or [native]

    def _tunes(self) -> bool | None:
        """Whether the teacher has to be fine-tuned; None where the minutes decide."""
        if "teacher.teacher_mode" in self.fixed:
            return self.given.teacher.teacher_mode == "finetune"
        return None

    def _tuning_epochs(self) -> int:
        if self.given.teacher.teacher_epochs:
            return self.given.teacher.teacher_epochs
        steps = steps_of_epoch(self.facts.labelled, 0, self.batch)[0]
        return max(FINE_TUNE_PASSES, math.ceil(FINE_TUNE_STEPS / steps))

    def _mode(self, epochs: int) -> None:
        labelled, share = self.facts.labelled, f"{TEACH_SHARE:.0%} of the minutes"
        why = f"a linear head on its features: fine-tuning it on {labelled} labels takes more than {share}"
        if not epochs:
            self.put("teacher.teacher_mode", "frozen", why)
            return
        self.put("teacher.teacher_mode", "finetune", f"fine-tuned on {labelled} labels, within {share}")
        steps = epochs * steps_of_epoch(labelled, 0, self.batch)[0]
        self.put("teacher.teacher_epochs", epochs, f"{steps} steps; about {FINE_TUNE_STEPS} are enough")

    def _panel(self, teaching: Teaching) -> None:
        """Who else answers, and how much the labels weigh beside them."""
        if teaching.frozen:
            why = "their heads on frozen features take seconds, and err on other images than a fine-tuned network does"
            self.put("recipe.frozen_teachers", teaching.frozen, why)
        if teaching.epochs:
            alpha, why = TUNED_ALPHA, "a fine-tuned panel knows more than they tell"
        elif without_labels(self.facts, self.given.training.teach_rest):
            alpha, why = FEW_LABELS_ALPHA, "frozen networks also teach what has no label"
        else:
            alpha, why = FROZEN_ALPHA, "frozen networks know less than a student that learns"
        self.put("recipe.alpha", alpha, f"weight of the labels: {why}")

    def _untrained_teacher(self, name: str, side: int, images: int) -> Teaching:
        facts, share = self.facts, self.usable * TEACH_SHARE / self.teachings
        side = self.given.teacher.teacher_size or side
        asking = teaching_s(facts, Teaching((name,), side, MIN_VIEWS), images, self.times)
        epochs = int((share - asking) / (facts.labelled * self.times.step(name, side)))
        epochs = max(1, min(UNTRAINED_EPOCHS, epochs))
        where = f"no pretrained weights are at hand: {facts.weights_from}"
        self.put("teacher.teacher", name, f"{where}; a larger network than the student")
        self.put("teacher.pretrained", False, where)
        self.put("teacher.teacher_mode", "finetune", "it starts from random weights")
        epochs = self.put("teacher.teacher_epochs", epochs, f"what {TEACH_SHARE:.0%} of the minutes allow")
        views = self.given.views.views if "views.views" in self.fixed else MIN_VIEWS
        return Teaching((name,), side, views, epochs)

    def _batch(self, images: int) -> int:
        few = images < FEW_IMAGES
        size = SMALL_BATCH if few else LARGE_BATCH
        why = f"{images} images teach, which is {'few' if few else 'many'}"
        self.batch = self.put("training.batch_size", size, why)
        return self.batch

    # -- how long ---------------------------------------------------------------------------------------------
    def _training(self, start: Start, side: int, images: int, teach_s: float, teaching: Teaching | None) -> int:
        """Steps and rates; returns the passes."""
        seconds = (self.usable - teach_s) / self.trainings
        if "training.epochs" in self.fixed and "training.steps" not in self.fixed:
            passes = self.given.training.epochs
        else:
            passes, why = self._passes_within(seconds, start, side, images)
            after = " after teaching" if teaching else ""
            why = f"{in_passes(passes)} over {images} images in {max(seconds, 0) / 60:.1f} min{after}{why}"
            passes = max(1, round(self.put("training.steps", passes * self.steps_a_pass, why) / self.steps_a_pass))
        why = "for random weights" if not start.pretrained else "for the head; pretrained weights move more slowly"
        self.put("training.lr", LR, why)
        return passes

    def _passes_within(self, seconds: float, start: Start, side: int, images: int) -> tuple[int, str]:
        """How many passes fit, at least one, and what else there is to say."""
        most = max(MAX_PASSES, math.ceil(MAX_STEPS / self.steps_a_pass)) * (1 if start.pretrained else LONGER_UNTRAINED)
        name = start.name
        cost = {n: training_s(self.facts, name, side, images, n, self.times) for n in range(1, most + 1)}
        fitting = sum(cost[n] <= seconds for n in cost)
        if not fitting:
            return 1, f"; it takes {cost[1] / 60:.1f} min, more than there is"
        if fitting == most:
            return most, "; there is time for more, but these images have then taught what they can"
        step = 1000 * self.times.step(name, side)
        return fitting, f", at {step:.1f} ms for each image"

    def _views(self, passes: int, teaching: Teaching | None) -> None:
        self.put(
            "views.augment", "light", "shifts, scales, small turns and other light, as between two takes of an image"
        )
        if teaching is None:
            self.put("views.views", 0, "without a teacher to ask, every epoch has views of its own")
        else:
            views = max(1, min(teaching.views, passes))
            why = f"of {in_passes(passes)}; the teacher is asked once about each"
            self.put("views.views", views, why)

    def _rest(self) -> None:
        imbalance = self.facts.imbalance
        if self.facts.kind != "multilabel":
            uneven = imbalance > IMBALANCED
            compared = "above" if uneven else "at most"
            why = f"{imbalance:.1f} images of the commonest class for one of the rarest, {compared} {IMBALANCED}"
            self.put("training.class_weights", uneven, why)
        if self.trainings == 1 and self.given.evaluation.control:
            why = "student, control or a linear probe: what validation finds likeliest to be right is handed over"
            self.put("evaluation.keep", "best", why)
        if self.limits.max_mb is not None:
            self.put("evaluation.max_mb", self.limits.max_mb, "the largest that `--keep best` may hand over")
