"""The optimiser and its learning rates: which weights move how fast, and when. Everything is a function of the step."""

from __future__ import annotations

import math

import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from stillroom.models.network import Network
from stillroom.models.taps import classifiers
from stillroom.settings.sections import TrainingSettings

WARM_UP_SHARE = 0.05
TRANSFORMER_LAYER_DECAY = 0.75
"""Custom for fine-tuning transformers (BEiT, MAE): a layer's rate is this share of that of the layer above it."""


def optimizer_of(student: Network, others: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimiser of a network and of what is trained beside it.

    Each group carries ``lr_scale``: its learning rate is that of the step times this. Weights that are pretrained move
    slower than the head, which starts from nothing. Weight decay falls on matrices and kernels alone, not on biases, norms
    and other vectors.

    Args:
        student: its :attr:`Network.start` says whether its weights are pretrained.
        others: an objective with parameters of its own, such as projectors.
        settings: optimiser, rates and decay.
    """
    groups = _backbone_groups(student, settings)
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    fresh = [p for module in (student, others) for p in module.parameters() if id(p) not in grouped]
    groups += _by_decay(fresh, 1.0, settings.weight_decay)
    groups = [group for group in groups if group["params"]]
    # One kernel for all parameters: ten times as fast on a CPU.
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True, fused=fused)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the step's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    """The learning rate of one step: a function of the step alone, so that resuming needs no scheduler's state."""
    share = step / total
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        return settings.lr * (1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01)
    if share < WARM_UP_SHARE:
        return settings.lr * (step + 1) / math.ceil(WARM_UP_SHARE * total + 1)
    return settings.lr * (1 + math.cos(math.pi * (share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))) / 2


def _backbone_groups(student: Network, settings: TrainingSettings) -> list[dict]:
    """Groups of the pretrained weights; none where the network starts from random ones, or where they stand still.

    Low-rank adapters are new weights, as the head's are: what they are added to is not moved, and they start from nothing.
    """
    if student.start != "pretrained" or student.adapters:
        return []
    head = {id(p) for layer in classifiers(student.backbone) for p in layer.parameters()}
    decay = settings.layer_decay
    if decay is None:
        decay = TRANSFORMER_LAYER_DECAY if _is_transformer(student.backbone) else 1.0
    if decay == 1.0:
        trained = [p for p in student.backbone.parameters() if p.requires_grad and id(p) not in head]
        return _by_decay(trained, settings.pretrained_lr, settings.weight_decay)
    groups = param_groups_layer_decay(student.backbone, weight_decay=settings.weight_decay, layer_decay=decay)
    return [
        {
            "params": [p for p in group["params"] if id(p) not in head],
            "weight_decay": group["weight_decay"],
            "lr_scale": group["lr_scale"] * settings.pretrained_lr,
        }
        for group in groups
    ]


def _by_decay(parameters: list[nn.Parameter], scale: float, weight_decay: float) -> list[dict]:
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, "lr_scale": scale},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "lr_scale": scale},
    ]


def _is_transformer(backbone: nn.Module) -> bool:
    """Whether it is made of patches that are looked at by attention, for whose fine-tuning layer decay is the custom."""
    return getattr(backbone, "patch_embed", None) is not None
