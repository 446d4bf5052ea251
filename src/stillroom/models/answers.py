"""Networks that answer by class already: whose answer is whose, and probabilities as logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.models.specification import Says, Specification

_LEAST = 1e-6
"""The smallest probability that a logit is made of."""


class ByClass(nn.Module):
    """What a network says ``[B, K']`` as logits ``[B, K]`` in the order of a run's classes.

    Args:
        order: of every class the place of its answer, ``K`` numbers below ``K'``.
        says: ``logits`` or ``probabilities``.
        exclusive: whether an image has one class (the logit is the logarithm), or each label stands for itself (log odds).
    """

    order: Tensor
    how: Tensor

    def __init__(self, order: Sequence[int], says: Says, exclusive: bool) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order))
        # A buffer, so that a bank of one reading is not taken for one of another.
        self.register_buffer("how", torch.tensor([says == "probabilities", exclusive], dtype=torch.uint8))
        self.says, self.exclusive = says, exclusive

    def forward(self, said: Tensor) -> Tensor:
        said = said[:, self.order]
        if self.says == "logits":
            return said
        return said.clamp_min(_LEAST).log() if self.exclusive else said.logit(_LEAST)


def answer_by(network: Network, spec: Specification, classes: Sequence[str], exclusive: bool, images: Tensor) -> None:
    """Let a network that answers by class answer for these, in their order.

    Args:
        network: changed in place; answers as it came.
        spec: what it says, and in which order where that is known. Where it is not, it is taken to be that of ``classes``.
        classes: the run's.
        exclusive: see :class:`ByClass`.
        images: ``[B, C, H, W]`` of the run, to see whether it answers what is said.

    Raises:
        UsageError: it answers for other classes, or what it says are no probabilities.
    """
    with torch.inference_mode():
        said = network.eval()(images).float()
    known = spec.classes
    if known and len(known) != said.shape[1]:
        raise UsageError(f"{network.name} gives {said.shape[1]} numbers an image, and names of {len(known)} classes.")
    if known and (lacking := [name for name in classes if name not in known]):
        raise UsageError(
            f"{network.name} answers for {', '.join(known)}; the run's classes are {', '.join(classes)}. "
            f"There is no answer for {', '.join(lacking)}: name its answers by --teacher-classes, in their order."
        )
    if not known and said.shape[1] != len(classes):
        raise UsageError(
            f"{network.name} gives {said.shape[1]} numbers an image and does not name them; the run has "
            f"{len(classes)} classes ({', '.join(classes)}). Name its answers by --teacher-classes, in their order."
        )
    if not torch.isfinite(said).all():
        raise UsageError(f"{network.name} gives numbers that are not finite.")
    if spec.says == "probabilities":
        wrong = "they lie outside of [0, 1]" if said.min() < -1e-3 or said.max() > 1.001 else ""
        if not wrong and exclusive and (said.sum(1) - 1).abs().max() > 0.01:
            wrong = f"those of an image sum to {said.sum(1)[0]:.3g}, not to 1"
        if wrong:
            raise UsageError(f"{network.name} was said to give probabilities; {wrong}. Are they logits?")
    order = [known.index(name) for name in classes] if known else list(range(len(classes)))
    network.by_class = ByClass(order, spec.says, exclusive).to(said.device)
