"""WeCKD (2025): a chain of small networks, each taught by the one before on its own slice of the labels.

Reconstructed from the abstract and the authors' README; see docs/recipes.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.errors import UsageError
from stillroom.ranges import MOST_OFTEN, at_least, not_negative, numeric, positive_share, share
from stillroom.recipes.base import Claim, Recipe, require_places
from stillroom.training.search import Range

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from stillroom.distillation.objectives.chain import ChainLoss
    from stillroom.distillation.teachers import Teacher
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings


_LEARNING_RATE = Range(1e-5, 1e-2, log=True)


@dataclass(frozen=True)
class WeCKD(Recipe):
    """Every stage sees a fraction of the labels; the last network is the student.

    Attributes:
        length: number of networks in the chain; 1 is a single network on one slice.
        fraction: share of the labelled training images in each slice.
        slices: `disjoint`; `overlapping` draws each anew; `cumulative` adds one slice per stage; `same` gives every stage
            the first.
        one_step: the first network teaches one student on all later slices at once: a control without the chain.
        attention: weigh the last feature map by spatial attention, and pass it down the chain.
        attention_weight: weight of following the predecessor's attention.
        kd_weight: weight in [0, 1] of the predecessor's soft targets; the labels have the rest.
        temperature: softens both answers at the start of a stage.
        final_temperature: and at its end.
        annealing: how the temperature falls.
        decay: of the exponential annealing, per epoch.
        inherit: each network starts from its predecessor's weights.
        tune: number of trials that search learning rate, kd_weight and temperature at the second stage, on validation; later
            stages take what it found. The control searches its learning rate as often. 0 searches nothing.
    """

    name: ClassVar[str] = "weckd"
    title: ClassVar[str] = "A chain of small networks, each taught by the one before on a slice of the labels"
    citation: ClassVar[str] = "WeCKD, arXiv 2510.14668, 2025 (reconstructed from the abstract)"
    has_teacher: ClassVar[bool] = False

    length: int = 3
    fraction: float = 0.1
    slices: Literal["disjoint", "overlapping", "cumulative", "same"] = "disjoint"
    one_step: bool = False
    attention: bool = True
    attention_weight: float = 0.5
    kd_weight: float = 0.5
    temperature: float = 4.0
    final_temperature: float = 1.0
    annealing: Literal["linear", "cosine", "exponential", "constant"] = "cosine"
    decay: float = 0.9
    inherit: bool = False
    tune: int = 0

    def __post_init__(self) -> None:
        at_least("length", self.length, 1, MOST_OFTEN)
        at_least("tune", self.tune, 0, MOST_OFTEN)
        positive_share("fraction", self.fraction)
        if self.tune and self.length == 1:
            raise UsageError("A single network has no second stage to search on: leave out --tune, or give --length 2.")
        drawn = self.length if self.slices in ("disjoint", "cumulative") else 1
        if drawn * self.fraction > 1 + 1e-9:
            raise UsageError(
                f"{drawn} {self.slices} slices of {self.fraction:g} are more than all labels: lower fraction or length."
            )
        share("kd_weight", self.kd_weight)
        for name in ("final_temperature", "temperature", "decay"):
            numeric(name, getattr(self, name))
        if not 0 < self.final_temperature <= self.temperature < math.inf:
            raise UsageError(
                "temperature falls to final_temperature, which is above 0: got "
                f"{self.temperature} and {self.final_temperature}."
            )
        if not 0 < self.decay < 1:
            raise UsageError(f"decay must lie between 0 and 1, got {self.decay}.")
        not_negative("attention_weight", self.attention_weight)

    def controls_by_itself(self, settings: RunSettings) -> bool:
        return self.length > 1

    def unused(self, settings: RunSettings) -> list[str]:
        alone = self.length == 1
        return super().unused(settings) + self._idle(
            {
                "one_step": self.length < 3,
                "slices": alone,
                "kd_weight": alone,
                "temperature": alone,
                "annealing": alone,
                "inherit": alone,
                "attention_weight": alone or not self.attention,
                "final_temperature": alone or self.annealing == "constant",
                "decay": alone or self.annealing != "exponential",
            }
        )

    def claim(self, settings: RunSettings) -> Claim:
        control = "one network on the labels of all slices together, for as many image passes as the whole chain had"
        length = 2 if self.one_step else self.length
        return Claim(
            "the chain", control, f"The last of a chain of {length}, trained" if length > 1 else "Trained alone"
        )

    def check(self, settings: RunSettings) -> None:
        super().check(settings)
        if settings.views.mix != "none":
            raise UsageError(
                "A stage of the chain sees a slice of the labels, and --mix would show it others: give --mix none."
            )
        if self.tune:
            from stillroom.training.search import require_optuna

            require_optuna()

    def run(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.labels import LabelLoss

        stages = self._stages(bench)
        network, lr, tuned = bench.student(attention=self.attention), None, self
        if self.attention:
            require_places("student", network, "--no-attention")
        for number, rows in enumerate(stages, start=1):
            role = "student" if number == len(stages) else f"stage_{number}"
            if number == 1:
                network = bench.fit(role, network, LabelLoss(), rows=rows)
            else:
                teacher = bench.asked(
                    network, needs=tuned._loss(bench, rows).needs, rows=rows, label=f"stage_{number - 1}"
                )
                if number == 2 and self.tune:
                    tuned, lr = self._search(bench, network, teacher, rows)
                network = bench.fit(
                    role, self._start(bench, network), tuned._loss(bench, rows), teachers=[teacher], rows=rows, lr=lr
                )
            if role != "student":
                bench.milestones[role] = network
        return network

    def control(self, bench: Moves) -> Network:
        """One network on the labels of all slices together, for as many image passes as the whole chain had."""
        import numpy as np

        from stillroom.distillation.objectives.labels import LabelLoss

        stages = self._stages(bench)
        union = np.unique(np.concatenate(stages))
        epochs = bench.control_epochs(union)
        lr = None
        if self.tune:
            found = self._best(
                bench,
                "control",
                {"lr": _LEARNING_RATE},
                lambda name, point: bench.trial(
                    name,
                    bench.student(attention=self.attention),
                    LabelLoss(),
                    rows=union,
                    epochs=epochs,
                    lr=point["lr"],
                ),
            )
            lr = found["lr"]
        return bench.fit(
            "control", bench.student(attention=self.attention), LabelLoss(), rows=union, epochs=epochs, lr=lr
        )

    def _stages(self, bench: Moves) -> list[np.ndarray]:
        """Each stage's labelled rows."""
        import numpy as np

        match self.slices:
            case "same":
                stages = bench.slices(1, self.fraction) * self.length
            case "overlapping":
                stages = [bench.slices(1, self.fraction, draw=number)[0] for number in range(self.length)]
            case "disjoint":
                stages = bench.slices(self.length, self.fraction)
            case "cumulative":
                parts = bench.slices(self.length, self.fraction)
                stages = [np.sort(np.concatenate(parts[: number + 1])) for number in range(self.length)]
        if self.one_step and self.length > 1:
            stages = [stages[0], np.unique(np.concatenate(stages[1:]))]
        return stages

    def _start(self, bench: Moves, predecessor: Network) -> Network:
        network = bench.student(attention=self.attention)
        if self.inherit:
            network.load_state_dict(predecessor.state_dict())
        return network

    def _loss(self, bench: Moves, rows: np.ndarray) -> ChainLoss:
        from stillroom.distillation.objectives.chain import ChainLoss

        return ChainLoss(
            kd_weight=self.kd_weight,
            temperature=self.temperature,
            final_temperature=self.final_temperature,
            annealing=self.annealing,
            decay=self.decay,
            epochs=bench.epochs(rows),
            attention_weight=self.attention_weight if self.attention else 0.0,
        )

    def _search(self, bench: Moves, predecessor: Network, teacher: Teacher, rows: np.ndarray) -> tuple[WeCKD, float]:
        """The recipe with the numbers that suited the second stage best, and the learning rate."""

        def chosen(point: dict[str, float]) -> WeCKD:
            return replace(self, kd_weight=point["kd_weight"], temperature=point["temperature"])

        space = {
            "lr": _LEARNING_RATE,
            "kd_weight": Range(0.1, 0.9),
            "temperature": Range(max(2.0, self.final_temperature), max(10.0, self.final_temperature)),
        }
        found = self._best(
            bench,
            "chain",
            space,
            lambda name, point: bench.trial(
                name,
                self._start(bench, predecessor),
                chosen(point)._loss(bench, rows),
                teachers=[teacher],
                rows=rows,
                lr=point["lr"],
            ),
        )
        return chosen(found), found["lr"]

    def _best(
        self, bench: Moves, what: str, space: dict[str, Range], score: Callable[[str, dict[str, float]], float]
    ) -> dict[str, float]:
        from stillroom.training.search import search

        found = search(
            bench.run.path / "tuning" / f"{what}.db",
            space,
            lambda point: score(f"tuning_{what}", point),
            trials=self.tune,
            seed=bench.settings.seed,
        )
        bench.run.note(**{f"tuned_{what}": found})
        return found
