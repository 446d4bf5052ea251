"""Batch norm's statistics where a training was too short for them to settle."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_TIME_CONSTANTS = 10


def statistics_lag(network: nn.Module, steps: int) -> bool:
    """Whether a training of so many steps was too short for batch norm's running statistics to have settled.

    They are moving averages: after ten of their time constants (100 steps at the usual momentum of 0.1) they describe the
    final weights as well as a fresh estimate does (docs/benchmarks.md, "Which start, rates, views, teaching and end?").
    """
    momenta = [norm.momentum for norm in _norms(network) if norm.momentum]
    return bool(momenta) and steps < _TIME_CONSTANTS / min(momenta)


def reestimate_statistics(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Batch norm's running mean and variance, taken anew as plain means over ``images`` with the weights as they are.

    Running statistics follow weights that have moved on; after short trainings they fit none of them.

    Args:
        network: changed in place; left in the mode it was in.
        images: batches ``[B, C, H, W]`` in [0, 1], of two images at least.
    """
    norms = _norms(network)
    if not norms:
        return
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    try:
        network.eval()  # dropout and drop-path stay off
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        with torch.no_grad():
            for batch in images:
                network(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
