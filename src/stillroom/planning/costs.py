"""How long the stages of a run take, from what a step and a question cost on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stillroom.planning.facts import Facts
from stillroom.settings.whole import Settings

HEAD_S = 3.0
"""Seconds to fit a linear head."""
STEP_OVERHEAD = 1.06
"""What a step of distillation takes for one that was timed: reading images and answers, and the objective."""
LOOKS = 30
"""Times that validation is asked during a training, at most."""
LOOK_S = 0.1
"""Seconds of a look besides asking: checkpoint and log."""
STATISTICS = 1024
"""Images over which batch norm is estimated anew."""
EVALUATE_S, SCORE_S = 1.0, 6e-7
"""Seconds of evaluation, and of scoring for each network, test image and class."""
ROLES = 5
"""Networks and rivals that are scored."""
EXPLAIN_PASSES = 450
"""Questions to each network, student, control and teacher, for each image that is explained by RISE."""
EXPLAINED, LEAST_EXPLAINED, PASSES_OF_A_STEP = 32, 20 * 300, 3
"""Images that are explained where training took long enough; the fewest questions otherwise; what an image costs in training,
in questions. See :mod:`stillroom.explanation.effort`."""
TIMED, LEAST_TIMED, TIMED_S, TIMED_BATCH = 52, 12, 2.0, 32
"""Calls of a network that is timed, at most and at the least; seconds after which the least will do; images in a call."""
LONGEST_S, PATIENT = 20.0, 5
"""Seconds after which even fewer calls will do, and how many, those to warm up counted."""
ELSEWHERE_S = 14.0
"""Seconds to time all networks where the run computes on an accelerator: it is the processor that is timed."""
ALONE_S = 0.3
"""Seconds to time it with one image in a call."""
CORRUPTED_PASSES = 75
"""Corruptions times severities."""


class Times(Protocol):
    """What :class:`~stillroom.planning.timing.Stopwatch` answers; made-up times will do as well."""

    def step(self, name: str, side: int) -> float:
        """Seconds of a training step for each image of its batch."""
        ...

    def forward(self, name: str, side: int) -> float:
        """Seconds to ask about an image."""
        ...

    def latency_ms(self, name: str, side: int) -> float:
        """Milliseconds for one image alone on one thread."""
        ...

    def export(self, name: str) -> float:
        """Seconds to export a network twice, before its control is trained and at the end, and to check the file."""
        ...


@dataclass(frozen=True)
class Teaching:
    """The teacher as far as its cost goes.

    Attributes:
        names: of the networks that are asked, once for each copy.
        side: of their input, in pixels.
        views: how many views of each image they are asked about.
        epochs: of fine-tuning; 0 for a frozen one.
        frozen: more networks that are asked frozen, as a panel with the others.
        frozen_side: of the input of those.
    """

    names: tuple[str, ...]
    side: int
    views: int
    epochs: int = 0
    frozen: tuple[str, ...] = ()
    frozen_side: int = 0

    @property
    def asked(self) -> list[tuple[str, int]]:
        """Every network that is asked, with its side."""
        return [(name, self.side) for name in self.names] + [(name, self.frozen_side) for name in self.frozen]


def without_labels(facts: Facts, rest: bool) -> int:
    """Images that a teacher alone tells about; of the training images outside the labelled share only with ``rest``."""
    return (facts.training - facts.labelled if rest else 0) + facts.unlabelled


def teaching_s(facts: Facts, teaching: Teaching, images: int, times: Times) -> float:
    """Seconds to fit or fine-tune the teacher and to ask it: once about every image, and about each view of ``images``."""
    asked = facts.images + teaching.views * images
    seconds = 0.0
    for name in teaching.names:
        seconds += asked * times.forward(name, teaching.side)
        if teaching.epochs:
            seconds += facts.labelled * teaching.epochs * times.step(name, teaching.side)
        else:
            seconds += HEAD_S
    for name in teaching.frozen:
        seconds += asked * times.forward(name, teaching.frozen_side) + HEAD_S
    return seconds


def training_s(facts: Facts, name: str, side: int, images: int, passes: int, times: Times) -> float:
    """Seconds to train the student for so many passes, each of which shows it ``images``."""
    looks = min(LOOKS, passes)
    ends = min(images, STATISTICS) * times.forward(name, side)  # batch norm is estimated anew
    return (
        passes * images * times.step(name, side) * STEP_OVERHEAD
        + looks * (facts.validation * times.forward(name, side) + LOOK_S)
        + ends
    )


def afterwards_s(
    facts: Facts, settings: Settings, student: tuple[str, int], seen: int, teaching: Teaching | None, times: Times
) -> dict[str, float]:
    """Seconds of what comes after training, by stage.

    Args:
        facts: what is known of the images.
        settings: what is asked for.
        student: its name and the side of its input.
        seen: how many images its training shows it; explaining is bounded by that.
        teaching: who teaches, or None.
        times: of a step and a question.
    """
    wanted, ask = settings.evaluation, times.forward(*student)
    ask_teacher = sum(times.forward(name, side) for name, side in teaching.asked) if teaching else 0.0
    networks = 1 + (settings.recipe.has_control and wanted.control)
    scored = ROLES * facts.test * SCORE_S * max(2, len(facts.classes))
    asked = [ask, ask]  # the student, and the file that is made of it
    asked += [times.forward(name, side) for name, side in (teaching.asked if teaching else ())]
    seconds = {
        "evaluate": EVALUATE_S + networks * facts.images * ask + scored,
        "export": times.export(student[0]),
        "profile": _profile_s(facts, asked) if wanted.latency else 1.0,
    }
    if wanted.explain != 0:
        explained = min(wanted.explain or EXPLAINED, facts.test)
        everything = explained * EXPLAIN_PASSES * (networks * ask + ask_teacher)
        bounded = max(LEAST_EXPLAINED * ask, min(everything, PASSES_OF_A_STEP * seen * ask))
        seconds["explain"] = 2.0 + (everything if wanted.explain else bounded)
    if wanted.corruptions:
        seconds["corrupt"] = CORRUPTED_PASSES * facts.test * (networks * ask + ask_teacher)
    return seconds


def _profile_s(facts: Facts, asked: list[float]) -> float:
    return sum(map(_timed_s, asked)) if facts.device == "cpu" else ELSEWHERE_S


def _timed_s(ask: float) -> float:
    """Seconds to time a network that takes so many for an image, as :mod:`stillroom.models.efficiency` does."""
    call = TIMED_BATCH * ask
    enough = max(TIMED_S + 2 * call, LEAST_TIMED * call)
    patience = max(LONGEST_S + 2 * call, PATIENT * call)
    return ALONE_S + min(TIMED * call, enough, patience)
