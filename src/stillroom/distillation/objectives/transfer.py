"""Labels beside something of the teachers' that needs no labels: the shape that most published losses share."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from stillroom.distillation.step import Objective, Step


class Transfer(Objective):
    """Cross-entropy with the labels, weight 1, plus :meth:`transferred`. Images without labels get the latter alone."""

    @abstractmethod
    def transferred(self, step: Step) -> dict[str, Tensor]:
        """Weighted scalar losses by name that read no labels, averaged over the teachers."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        label = step.label_loss().mean()
        return {"label": label} | self.transferred(step)

    def on_unlabelled(self, step: Step) -> dict[str, Tensor]:
        losses = list(self.transferred(step).values())
        return {"unlabelled": sum(losses[1:], losses[0])}
