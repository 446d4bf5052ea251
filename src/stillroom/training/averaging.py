"""Several trainings of one network as one network: the mean of their weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from stillroom.models.network import Network
from stillroom.training.batch_norm import reestimate_statistics


def average(networks: Sequence[Network], batches: Iterable[Tensor]) -> Network:
    """A network with the mean of several networks' weights. Of use only where they started from the same weights.

    Args:
        networks: of one architecture; left as they are.
        batches: ``[B, C, H, W]`` of training views, by which batch norm's statistics are taken anew: the mean of statistics
            is not the statistics of the mean.
    """
    averaged = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    averaged.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(dim=0) if value.is_floating_point() else value
            for name, value in states[0].items()
        }
    )
    reestimate_statistics(averaged, batches)
    return averaged.eval()
