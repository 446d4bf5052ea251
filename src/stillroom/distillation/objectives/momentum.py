"""Moving averages: networks that follow another one slowly and are never trained themselves."""

from __future__ import annotations

import copy
import math
from typing import Literal, TypeVar

import torch
from torch import nn

from stillroom.ranges import share

MomentumSchedule = Literal["constant", "cosine"]

Module = TypeVar("Module", bound=nn.Module)


def frozen_copy(module: Module) -> Module:
    """An equal module of its own memory that no optimiser trains."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """``xi <- m xi + (1 - m) theta``, in place, for every parameter.

    Buffers stay: a follower in training mode normalises by its own batches, as BYOL's target network does.

    Args:
        follower: ``xi``, of the same shapes as ``leader``.
        leader: ``theta``.
        momentum: ``m`` in [0, 1]; 1 leaves the follower where it is.
    """
    for slow, fast in zip(follower.parameters(), leader.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def momentum_at(progress: float, start: float, schedule: MomentumSchedule) -> float:
    """``m`` when this share of the training has passed.

    Args:
        progress: in [0, 1].
        start: ``m`` at 0.
        schedule: ``constant``, or BYOL's ``cosine``: ``1 - (1 - start) (cos(pi progress) + 1) / 2``, which ends at 1.
    """
    if schedule == "constant":
        return start
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


def check_momentum(momentum: float) -> None:
    """Raises UsageError for a momentum outside [0, 1]."""
    share("momentum", momentum)
