"""Run a network over rows of a data set, without gradients, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.data.images import Images, batches
from stillroom.progress import Advance

BATCH = 128

_FEWEST, _PIXELS = 16, 150_000  # on a CPU


def at_once(side: int, device: torch.device) -> int:
    """How many images of so many pixels a side to ask a network about together.

    On a CPU large images go in small batches, so that what a layer hands to the next stays in the cache, and memory is not
    faulted in anew for each: at 96 px 16 images at a time took 0.6 of the time of 128, while at 48 px 128 took less. A rule
    and not a measurement of the moment: other batches round otherwise, and a resumed run must give what it would have given.
    """
    return BATCH if device.type != "cpu" else min(BATCH, max(_FEWEST, _PIXELS // side**2))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; the modules' own modes are restored after it."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def run_over(
    network: nn.Module,
    images: Images,
    rows: np.ndarray,
    *,
    ask: Callable[[Tensor], Tensor] | None = None,
    view: int | None = None,
    batch_size: int | None = None,
    advance: Advance | None = None,
) -> np.ndarray:
    """``ask(batch)`` (default: the network's logits) over ``rows``, joined: ``[n, ...]`` float32.

    Args:
        network: put into evaluation mode meanwhile.
        images: where the pixels come from.
        rows: ``[n]`` row numbers, in the order wanted.
        ask: maps ``[B, C, H, W]`` images in [0, 1] to ``[B, ...]``.
        view: which view of the images, None for the images as they are.
        batch_size: images per forward pass. Default: see :func:`at_once`.
        advance: called with the number of images done after each batch.
    """
    parts = []
    size = batch_size or at_once(images.store.size, images.device)
    with evaluating(network):
        for batch in batches(rows, size):
            parts.append((ask or network)(images.batch(batch, view)).float().cpu().numpy())
            if advance:
                advance(len(batch))
    return np.concatenate(parts)
