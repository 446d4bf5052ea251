"""Rounding to eight bits, as torch sees it: what an int8 file does to weights and activations, with gradients through it.

A network that learns while its weights and activations are rounded finds weights that bear it (quantisation-aware training;
Jacob et al., CVPR 2018). Weights are rounded for each output channel, symmetrically, to 127 steps either way; what enters a
layer is rounded as a whole, to 256 steps between the least and the largest value of a few images. Batch normalisation stands
still meanwhile: a file has it folded into the weights before it, channel by channel, and rounds them as they were.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stillroom.distillation.step import Objective, Step
from stillroom.models.network import Network
from stillroom.models.taps import classifiers

_LOGITS = 0.1
_LEAST_SPREAD = 0.05
"""Of the mean: a feature that hardly varies must not outweigh the others."""
STEPS = 127
"""The largest integer that a weight is rounded to."""

Layer = nn.Conv2d | nn.Linear


def rounded(weight: Tensor) -> Tensor:
    """A layer's weights ``[out, ...]`` as int8 holds them: of each output channel the largest is 127 steps."""
    step = weight.detach().abs().flatten(1).amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / STEPS
    step = step.view(-1, *[1] * (weight.ndim - 1))
    return (weight / step).round() * step


class _Rounded(nn.Module):
    """A weight that is rounded wherever it is used, and learns as if it were not (the straight-through estimator)."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (rounded(weight) - weight).detach()


class _RoundedInput:
    """Rounds what enters a layer, once it has seen how far that reaches."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.watching = True

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        values: Tensor = inputs[0]
        if self.watching:
            self.low = min(self.low, float(values.detach().min()))
            self.high = max(self.high, float(values.detach().max()))
            return inputs
        step = (self.high - self.low) / 255 or 1.0
        held = ((values.clamp(self.low, self.high) - self.low) / step).round() * step + self.low
        # Beyond the range there is no gradient, as nothing there changes the answer.
        return (values.clamp(self.low, self.high) + (held - values.clamp(self.low, self.high)).detach(), *inputs[1:])


def roundable(network: Network) -> dict[str, Layer]:
    """The layers whose weights an int8 file rounds, by name: all but the classifier's."""
    kept = {id(module) for head in classifiers(network.backbone) for module in head.modules()}
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and id(module) not in kept
    }


def rounding(network: Network, images: Iterable[Tensor]) -> Network:
    """A copy of ``network`` that learns to be rounded.

    Args:
        network: left as it is.
        images: batches ``[B, C, H, W]`` in [0, 1], by which the range of every activation is found.
    """
    learner = copy.deepcopy(network).requires_grad_(True)  # one that has taught others may be frozen
    backbone: nn.Module = freeze_batch_norm_2d(learner.backbone)
    learner.backbone = backbone
    watched = []
    for layer in roundable(learner).values():
        watched.append(_RoundedInput())
        layer.register_forward_pre_hook(watched[-1])
    learner.eval()
    with torch.inference_mode():
        for batch in images:
            learner(batch)
    for hook in watched:
        hook.watching = False
    for layer in roundable(learner).values():
        parametrize.register_parametrization(layer, "weight", _Rounded(), unsafe=True)
    return learner


def taken_back(learner: Network, network: Network) -> Network:
    """``network``'s own form with the weights that :func:`rounding`'s copy learnt, rounded where they were."""
    for layer in roundable(learner).values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    restored = copy.deepcopy(network)
    lacking = restored.load_state_dict(learner.state_dict(), strict=False)
    # Batch normalisation that stands still counts no batches; all else is there.
    strange = {name for name in lacking.missing_keys if not name.endswith("num_batches_tracked")}
    strange |= set(lacking.unexpected_keys)
    assert not strange, strange
    return restored


class AsBefore(Objective):
    """What a network that is being rounded learns: to answer as it did before, and to have the same features.

    The divergence of its probabilities from those of the float32 network, the squared difference of logits, and that of the
    pooled features in units of their spread, by which foreign images are known. No labels are read.

    Args:
        network: the float32 network; it is asked about every view, and not trained.
    """

    label_free = True

    def __init__(self, network: Network) -> None:
        super().__init__()
        # In a list, so that it is no part of this module: its weights are neither trained nor written to checkpoints.
        self._network = [network.eval().requires_grad_(False)]

    def forward(self, step: Step) -> dict[str, Tensor]:
        with torch.no_grad():
            before = self._network[0].outputs(step.images)
        now = step.student
        spread = before.pooled.std(dim=0)
        apart = (now.pooled - before.pooled) / spread.clamp(min=_LEAST_SPREAD * float(spread.mean()) + 1e-12)
        return {
            "answers": step.task.soft_loss(now.logits, before.logits, 1.0, "forward").mean(),
            "logits": _LOGITS * (now.logits - before.logits).square().mean(),
            "features": apart.square().mean(),
        }
