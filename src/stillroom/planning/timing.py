"""What training and asking cost on this machine: a few batches each, timed as the run will compute them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stillroom.data.inference import evaluating
from stillroom.data.views import augment
from stillroom.models.zoo import create, outline
from stillroom.settings.sections import ViewSettings

REPEATS = 3
"""Batches that are timed after one to warm up; the quickest counts."""
PATIENCE_S = 2.0
"""No further batch is timed after so many seconds."""
ASKED = 16
"""Images in a batch that a teacher is asked about."""
LARGE = 150e6
"""Parameters above which no step is taken to time it: weights, gradients and moments would be four times the network."""
STEP_OF_A_PASS = 3.2
"""A step of such a network, foretold as so many passes: a rule of thumb, with no script behind it."""
EXPORT_S = 0.12
"""Seconds to export a network twice, for each of its parameters' tensors: a rule of thumb, with no script behind it."""


class Stopwatch:
    """Times networks by name, each once.

    Args:
        classes: of the classifier.
        colour: whether images have three channels.
        device: where the run will compute.
        batch: images of a training step.
    """

    def __init__(self, *, classes: int, colour: bool, device: torch.device, batch: int) -> None:
        self.classes, self.channels, self.device, self.batch = classes, 3 if colour else 1, device, batch
        self.step = cache(self._step)
        self.forward = cache(self._forward)
        self.latency_ms = cache(self._latency_ms)

    def _step(self, name: str, side: int) -> float:
        """Seconds of a training step for each image of a batch: making its view, forward, backward, optimiser."""
        if sum(parameter.numel() for parameter in outline(name, side, self.classes).parameters()) > LARGE:
            return STEP_OF_A_PASS * self.forward(name, side)
        network = create(name, classes=self.classes, size=side).to(self.device).train()
        fused = self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=fused)
        images, rows = self._images(self.batch, side), np.arange(self.batch)
        targets = torch.zeros(self.batch, dtype=torch.long, device=self.device)

        def once() -> None:
            loss = functional.cross_entropy(network(augment(images, rows, 0, ViewSettings(), 0)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        # Dropout draws from the global generator, which the run must find as if nothing had been timed.
        with torch.random.fork_rng(devices=[]):
            return self._seconds(once) / self.batch

    def _forward(self, name: str, side: int) -> float:
        """Seconds to ask a network about one image of a batch, its view included."""
        network = create(name, classes=self.classes, size=side).to(self.device)

        def once(count: int) -> float:
            images, rows = self._images(count, side), np.arange(count)
            return self._seconds(lambda: network(augment(images, rows, 0, ViewSettings(), 0))) / count

        with evaluating(network):
            alone = once(1)  # what takes seconds an image is not asked about a batch of them
            return once(ASKED) if alone * ASKED < PATIENCE_S else alone

    def _latency_ms(self, name: str, side: int) -> float:
        """Milliseconds for one image on one thread of the processor, as `stillroom models --max-ms` counts them."""
        from stillroom.models.cards import describe
        from stillroom.models.latency import timed

        card = describe([name], size=side, classes=self.classes)[0]
        found = timed([card], classes=self.classes, threads=1, show_progress=False)[0].latency_ms
        return float("inf") if found is None else found

    def export(self, name: str) -> float:
        """Seconds to export a network twice; foretold, not timed."""
        return EXPORT_S * len(list(create(name, classes=self.classes).parameters()))

    def _images(self, count: int, side: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(count, self.channels, side, side, generator=generator).to(self.device)

    def _seconds(self, once: Callable[[], object]) -> float:
        taken: list[float] = []
        for repeat in range(REPEATS + 1):
            start = time.perf_counter()
            once()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
            if repeat or seconds > PATIENCE_S:  # warming up counts where it is all that there is time for
                taken.append(seconds)
            if sum(taken) > PATIENCE_S:
                break
        return min(taken)  # what the machine can do: whatever else ran meanwhile only made it slower
