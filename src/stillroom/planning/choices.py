"""The rules: from facts about images, networks and machine to choices, each with its reason. A pure function.

Nothing is measured, read or drawn here: what a step costs and what a network weighs is asked of ``times`` and ``shelf``.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

from stillroom.errors import UsageError
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
    SIBLINGS,
    SIDES,
    TEACHERS,
    UNTRAINED_STUDENTS,
    UNTRAINED_TEACHER,
    WITH_OWN_NETWORKS,
    Networks,
    rounded_up,
)
from stillroom.planning.sheet import GIVEN, Choice, Decision, Limits, Sheet, in_passes, trainings_of
from stillroom.planning.students import Start, starts
from stillroom.planning.teachers import FROZEN_SHARE, TEACH_SHARE, Wish, affordable, told
from stillroom.recipes import Best, Recipe
from stillroom.settings.whole import Settings
from stillroom.training.feeding import steps_of_epoch

MIN_STEPS, MIN_PASSES = 300, 3
"""A side is affordable where the student gets so many steps, in so many passes over the images that teach."""
MAX_STEPS, MAX_PASSES = 1000, 40
"""As much of both as a plan gives a pretrained network, however long the minutes..."""
LONGER_CUT, LONGER_UNTRAINED = 2, 4
"""...those that are cut out of a larger one, and random ones, get so many times as much..."""
NEEDED_CUT, NEEDED_UNTRAINED = 2, 8
"""...and need so many times as much before larger images pay: at 64 px from random weights AUC is .981 after 56 passes and
.989 after 112; 56 at 96 px, which cost as much, .985 (benchmarks/demo_parts.py plain plain-long larger-images)."""
UNTRAINED_EPOCHS = 50
"""Most epochs of a teacher that starts from random weights."""
UNTRAINED_VIEWS, ASK_SHARE = (4, 40), 0.25
"""Views of each image that such a teacher is asked about, at least and at most, and the share of its time that asking may
take: four views, seen again and again, left a student .004 and .013 AUC below a new one in each pass (demo_parts.py plain
plain-four-views)."""
UNTRAINED_RECIPE = {
    "alpha": (0.2, "weight of the labels"),
    "temperature": (4.0, "a teacher that fits what it was trained on tells little beyond the labels unless softened"),
    "feature_weight": (3.0, "a student from random weights learns faster from the teacher's features too"),
}
"""Of the recipe `best`, with such a teacher; docs/benchmarks.md, "The demonstration"."""
RESERVE = 0.03
"""Share of the minutes that is not planned for."""
FEW_IMAGES = 5000
SMALL_BATCH, LARGE_BATCH = 32, 64
LR = 2e-3
"""Of what starts from random weights; pretrained ones move at :attr:`TrainingSettings.pretrained_lr` of it."""
CROP = 0.75
"""Smallest share of an image that a view shows."""
SIDED = frozenset({"left", "right", "l", "r", "od", "os", "lateral", "laterality", "situs", "dextro", "dextrocardia"})
"""Words in the name of a class which say that a mirrored image means something else."""
IMBALANCED = 10.0
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
        self.trainings = trainings_of(given)
        self.teachings = given.evaluation.folds  # repeats share their teacher

    def plan(self) -> Decision:
        facts = self.facts
        recipe = self._recipe()
        own = recipe.name in WITH_OWN_NETWORKS
        asks = recipe.has_teacher and not self.given.teacher.teacher_answers  # a table of answers costs no time
        free = without_labels(facts, self.given.training.teach_rest) if recipe.has_teacher else 0
        images = facts.labelled + free
        batch = self._batch(images)
        self.steps_a_pass = steps_of_epoch(facts.labelled, free, batch)[0]
        shown = self.steps_a_pass * batch if free else images
        if facts.resolution is not None:
            self.put("data.resolution", facts.resolution, "the largest of this set's files at hand")
        start, side = self._student(asks, shown) if not own else self._given_student(asks, shown)
        teaching = self._teacher(recipe, start, side, images) if asks and not own else None
        if own and asks:
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
        why = "several teachers as one panel; docs/benchmarks.md says what it was worth"
        if self.given.teacher.teacher_answers:
            why = "soft targets beside the labels, which a table of answers can give"
        self.put("recipe.name", Best.name, why)
        return Best()

    def _student(self, asks: bool, images: int) -> tuple[Start, int]:
        """The first student of the list that is within the limits, and the side of its images."""
        chosen = nearest = None
        for start in starts(self.facts, self.shelf, self.limits, self.given.student, self.fixed):
            side, why_side = self._side(start, images, asks)
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

    def _given_student(self, asks: bool, images: int) -> tuple[Start, int]:
        given = self.given.student
        start = Start(given.student, given.student_pretrained, given.student_from)
        side, why = self._side(start, images, asks)
        self.put("data.size", side, why)
        return start, given.student_size or side

    # -- how large --------------------------------------------------------------------------------------------
    def _side(self, start: Start, images: int, teacher: bool) -> tuple[int, str]:
        """The largest side at which the student gets passes enough, and why."""
        if "data.size" in self.fixed:
            return self.given.data.size, GIVEN
        share = (TEACH_SHARE if self._untrained(start) else FROZEN_SHARE) if teacher else 0.0
        seconds = self.usable * (1 - share) / self.trainings
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
        needed = 1 if start.pretrained else NEEDED_CUT if start.large else NEEDED_UNTRAINED
        return max(MIN_PASSES, math.ceil(MIN_STEPS / self.steps_a_pass)) * needed

    # -- the teacher ------------------------------------------------------------------------------------------
    def _teacher(self, recipe: Recipe, start: Start, side: int, images: int) -> Teaching:
        names, own = self._teachers(start), start.large or start.name
        if self._untrained(start):
            name = names[0] if "teacher.teacher" in self.fixed else UNTRAINED_TEACHER
            return self._untrained_teacher(recipe, start, name, side, images)
        its_own = self.given.student.student_size or side
        learning = training_s(self.facts, start.name, its_own, images, self._enough(start), self.times)
        spare = max(self.usable - self.trainings * learning, 0.1 * self.usable)  # the student's steps come first
        wish = Wish(
            facts=self.facts,
            shelf=self.shelf,
            times=self.times,
            given=replace(self.given, recipe=recipe),
            fixed=self.fixed,
            names=tuple(names),
            own=own,
            side=its_own,
            images=images,
            batch=self.batch,
            seconds=tuple(min(self.usable * share, spare) / self.teachings for share in (TEACH_SHARE, FROZEN_SHARE)),
            passes=max(1, int(self.usable / (images * self.times.step(start.name, its_own)))),
        )
        found = affordable(wish)
        for name, (value, why) in told(wish, found).items():
            self.put(name, value, why)
        return found

    def _teachers(self, start: Start) -> list[str]:
        """Who may teach with pretrained weights, or who is given; strongest first."""
        if "teacher.teacher" in self.fixed:
            return [self.given.teacher.teacher]
        weights, own = self.facts.weights, start.large or start.name
        return [name for name in TEACHERS if name in weights and name != start.name] or [own] * (own in weights)

    def _untrained(self, start: Start) -> bool:
        """Whether the teacher must start from random weights."""
        random = "teacher.pretrained" in self.fixed and not self.given.teacher.pretrained
        return random or not self._teachers(start)

    def _untrained_teacher(self, recipe: Recipe, start: Start, name: str, side: int, images: int) -> Teaching:
        facts, share = self.facts, self.usable * TEACH_SHARE / self.teachings
        own_side, side = side, self.given.teacher.teacher_size or side
        views = self.given.views.views
        if "views.views" not in self.fixed:
            views = int(ASK_SHARE * share / (images * self.times.forward(name, side)))
            views = max(UNTRAINED_VIEWS[0], min(UNTRAINED_VIEWS[1], views))
            views = max(1, min(views, self._most_passes(start, own_side, images)))
        asking = teaching_s(facts, Teaching((name,), side, views), images, self.times)
        epochs = int((share - asking) / (facts.labelled * self.times.step(name, side)))
        epochs = max(1, min(UNTRAINED_EPOCHS, epochs))
        where = f"no pretrained weights are at hand: {facts.weights_from}"
        self.put("teacher.teacher", name, f"{where}; a larger network than the student")
        self.put("teacher.pretrained", False, where)
        self.put("teacher.teacher_mode", "finetune", "it starts from random weights")
        epochs = self.put("teacher.teacher_epochs", epochs, f"what {TEACH_SHARE:.0%} of the minutes allow")
        if recipe.name == Best.name and not (start.pretrained or start.large):
            for setting, (wanted, why) in UNTRAINED_RECIPE.items():
                self.put(f"recipe.{setting}", wanted, why)
        return Teaching((name,), side, views, epochs)

    def _most_passes(self, start: Start, side: int, images: int) -> int:
        """Passes over the images that the student can make beside a teacher that takes its full share, roughly."""
        if "training.epochs" in self.fixed and "training.steps" not in self.fixed:
            return self.given.training.epochs
        seconds = self.usable * (1 - TEACH_SHARE) / self.trainings
        return int(seconds / (images * self.times.step(start.name, self.given.student.student_size or side)))

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
        most = max(MAX_PASSES, math.ceil(MAX_STEPS / self.steps_a_pass)) * _longer(start)
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
        self.put("views.crop", CROP, f"a view shows {CROP:.0%} of an image at the least")
        sided = sorted(name for name in self.facts.classes if SIDED & {*re.findall("[a-z]+", name.lower())})
        why = f"a mirrored image may be of another class than {sided[0]}" if sided else "no class is named after a side"
        self.put("views.flips", not sided, why)
        if teaching is None:
            self.put("views.views", 0, "with no network to ask, every epoch has views of its own")
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


def _longer(start: Start) -> int:
    """For how many times as long this start goes on learning as a pretrained one."""
    return 1 if start.pretrained else LONGER_CUT if start.large else LONGER_UNTRAINED
