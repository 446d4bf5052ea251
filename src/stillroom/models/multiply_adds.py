"""Multiply-accumulates of a network: what one image costs, whatever the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(network: nn.Module, images: Tensor) -> int:
    """Those of convolutions, matrix products and attention for ``images [B, C, H, W]``; on ``meta`` nothing is computed."""
    # No gradients, but not inference mode: there, operators may reach the counter whole and go uncounted.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return int(counter.get_total_flops()) // 2
