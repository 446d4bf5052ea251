"""A teacher: a network with its answers in banks, asked once per image and view; or a table of answers without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.data.images import Images
from stillroom.data.inference import evaluating
from stillroom.distillation.bank import Ask, Bank
from stillroom.models.network import Network
from stillroom.models.taps import Outputs


@dataclass(frozen=True)
class Teacher:
    """A trained network together with its stored answers, or stored answers alone.

    Attributes:
        network: maps images to logits; kept for explanation and export. None where a table of answers teaches, whose one bank
            then answers to every view of an image as to the image.
        banks: its answers to the images as they are, and to the training images' views unless each epoch has its own
            and is asked online.
        ask: what the banks hold the answers to; None without a network.
        images: where online questions take their views from.
        head: applied to the stored ``pooled`` of a frozen backbone, on the CPU; None where ``logits`` are stored.
        unlabelled: the same teacher on the images without labels, whose rows are their own; None where there are none.
    """

    network: Network | None
    banks: tuple[Bank, ...]
    ask: Ask | None
    images: Images
    head: nn.Linear | None = None
    unlabelled: Teacher | None = None

    @property
    def name(self) -> str:
        """The network's; empty where there is none."""
        return self.network.name if self.network else ""

    @property
    def holds(self) -> frozenset[str]:
        """Names of the stored outputs."""
        return frozenset(self.banks[0].arrays)

    def answers(self, rows: np.ndarray) -> bool:
        """Whether it has an answer to each of these rows' images as they are."""
        return bool(np.isin(rows, self.banks[0].rows).all())

    def logits(self, rows: np.ndarray, view: int | None) -> Tensor:
        """``[B, K]`` float32, on the CPU, detached."""
        if self.head is None:
            return self.output("logits", rows, view)
        with torch.no_grad():
            return self.head(self.output("pooled", rows, view))

    def output(self, name: str, rows: np.ndarray, view: int | None) -> Tensor:
        """A stored output: ``pooled`` ``[B, D]``, ``logits`` ``[B, K]``, ``map`` ``[B, C, H, W]`` or ``attention``."""
        if self.network is None or self.ask is None:
            return torch.from_numpy(self.banks[0].at(name, rows, None))
        for bank in self.banks:
            if view in bank.views:
                return torch.from_numpy(bank.at(name, rows, view))
        with evaluating(self.network):
            said = self.ask(self.images.batch(rows, view))[name].float().cpu()
        return said.clone()  # a tensor made in inference mode could not take part in a loss


def of_mean_answers(teacher: Teacher) -> Teacher:
    """The teacher whose answer to any view of an image is the mean of its stored answers to all of the image's views."""
    unlabelled = teacher.unlabelled and of_mean_answers(teacher.unlabelled)
    return replace(teacher, banks=tuple(bank.averaged() for bank in teacher.banks), unlabelled=unlabelled)


class Panel(nn.Module):
    """Several networks as one: the mean of their logits.

    Args:
        networks: of equal classes; each does its own preprocessing.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` float in [0, 1] to logits ``[B, K]``."""
        return torch.stack([network(images) for network in self.networks]).mean(dim=0)

    def outputs(self, images: Tensor) -> Outputs:
        """The mean logits and the members' pooled features side by side; of several maps there is none: ``[B, 0, 1, 1]``."""
        said = [network.outputs(images) for network in self.networks]  # type: ignore[operator]
        logits = torch.stack([one.logits for one in said]).mean(dim=0)
        return Outputs(logits, torch.cat([one.pooled for one in said], dim=1), logits[:, :0, None, None])


def question(network: Network, names: frozenset[str]) -> Ask:
    """What a bank asks of ``network``: those of its outputs, of ``logits``, ``pooled``, ``map`` and ``attention``."""

    def ask(images: Tensor) -> dict[str, Tensor]:
        if names == {"pooled"}:  # such a network need not have a feature map
            return {"pooled": network.backbone_features(images, network.features or "cls")}
        found = network.outputs(images)._asdict()
        return {name: found[name] for name in sorted(names)}

    return ask
