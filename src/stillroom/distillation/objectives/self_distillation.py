"""Self-distillation: a network learns from an auxiliary one of its own kind that follows it as a moving average.

The auxiliary network lives in the objective: no gradient reaches it, it is checkpointed with the objective and left
behind with it. Its batch norms work in training mode, so that it normalises by its own batches and never reads its
running averages; dropout and drop-path are off, or its answers would be noise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillroom.distillation.objectives.momentum import (
    MomentumSchedule,
    check_momentum,
    follow,
    frozen_copy,
    momentum_at,
)
from stillroom.distillation.step import Objective, Step
from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.models.taps import Outputs


class SelfDistillation(Objective):
    """What all self-distillation losses here share: two views, and an auxiliary network ``xi`` that follows the student.

    Args:
        auxiliary: ``xi``, of the student's architecture, with whatever weights it starts from. Frozen in place.
        momentum: ``m`` in [0, 1]; after every step ``xi <- m xi + (1 - m) theta``.
        schedule: of the momentum, see :func:`~stillroom.distillation.objectives.momentum.momentum_at`.
    """

    two_views = True

    def __init__(self, auxiliary: Network, momentum: float = 0.99, schedule: MomentumSchedule = "constant") -> None:
        super().__init__()
        check_momentum(momentum)
        self.auxiliary = auxiliary.requires_grad_(False)
        self.momentum, self.schedule = momentum, schedule

    def train(self, mode: bool = True) -> SelfDistillation:
        super().train(mode)
        self.auxiliary.eval()
        for module in self.auxiliary.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(mode)
        return self

    @torch.no_grad()
    def said(self, step: Step) -> tuple[Outputs, Outputs]:
        """The auxiliary network's outputs on the first and on the second views."""
        assert step.other_images is not None
        return self.auxiliary.outputs(step.images), self.auxiliary.outputs(step.other_images)

    def after_step(self, student: Network, progress: float) -> None:
        follow(self.auxiliary, student, self.momentum_at(progress))

    def momentum_at(self, progress: float) -> float:
        """``m`` when this share of the training has passed."""
        return momentum_at(progress, self.momentum, self.schedule)


class ProjectedSelfDistillation(SelfDistillation):
    """Self-distillation that reads no labels and compares projections of the pooled features.

    ``h`` projects the student's features and is trained with it; ``h'`` projects the auxiliary network's, starts as a
    copy of ``h`` and follows it.

    Args:
        auxiliary: see :class:`SelfDistillation`.
        momentum: likewise.
        schedule: likewise.
        width: of the projectors' hidden layer.
        projection: dimensions that are compared.
        seed: of the projectors' initial weights.
    """

    label_free = True

    def __init__(
        self,
        auxiliary: Network,
        momentum: float = 0.99,
        schedule: MomentumSchedule = "constant",
        *,
        width: int = 2048,
        projection: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(auxiliary, momentum, schedule)
        self.projector = mlp(auxiliary.pooled_dim, width, projection, seed)
        self.auxiliary_projector = frozen_copy(self.projector)

    def projections(self, step: Step) -> tuple[Tensor, Tensor]:
        """``h(f_theta(v))`` of the first and the second views, ``[B, projection]`` each. Gradients flow."""
        assert step.other is not None
        return self.projector(step.student.pooled), self.projector(step.other.pooled)

    @torch.no_grad()
    def keys(self, step: Step) -> tuple[Tensor, Tensor]:
        """``h'(f_xi(v))`` of the first and the second views, ``[B, projection]`` float32 each."""
        first, second = self.said(step)
        return self.auxiliary_projector(first.pooled).float(), self.auxiliary_projector(second.pooled).float()

    def after_step(self, student: Network, progress: float) -> None:
        super().after_step(student, progress)
        follow(self.auxiliary_projector, self.projector, self.momentum_at(progress))


def mlp(inputs: int, width: int, outputs: int, seed: int) -> nn.Sequential:
    """Two linear layers with batch norm and ReLU between them, ``[B, inputs]`` to ``[B, outputs]``, as in BYOL.

    In training mode it needs ``B`` of at least 2. The global random state is left alone.
    """
    if min(width, outputs) < 1:
        raise UsageError(f"A projector's width and dimensions must be at least 1, got {width} and {outputs}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, outputs)
        )
