"""A teacher: a network with its answers in a bank, asked once per image and view however many students learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.data.images import Images
from stillroom.distillation.bank import Ask, Bank
from stillroom.inference import evaluating
from stillroom.models.network import Network


@dataclass(frozen=True)
class Teacher:
    """A trained network together with its stored answers.

    Attributes:
        network: maps images to logits; kept for explanation and export.
        plain: bank over every image as it is.
        views: bank over the training images' views; None where each epoch has its own view and is asked online.
        ask: what the banks hold the answers to.
        images: where online questions take their views from.
        head: applied to the stored ``features`` of a frozen backbone, on the CPU; None where ``logits`` are stored.
    """

    network: Network
    plain: Bank
    views: Bank | None
    ask: Ask
    images: Images
    head: nn.Linear | None = None

    def logits(self, rows: np.ndarray, view: int | None) -> Tensor:
        """``[B, K]`` float32, on the CPU, detached."""
        if self.head is None:
            return self.output("logits", rows, view)
        with torch.no_grad():
            return self.head(self.output("features", rows, view))

    def output(self, name: str, rows: np.ndarray, view: int | None) -> Tensor:
        """A stored output: ``features`` or ``pooled`` ``[B, D]``, ``logits`` ``[B, K]``, ``map`` ``[B, C, H, W]``."""
        bank = self.plain if view is None else self.views
        if bank is not None:
            return torch.from_numpy(bank.at(name, rows, view))
        with evaluating(self.network):
            return self.ask(self.images.batch(rows, view))[name].float().cpu()
