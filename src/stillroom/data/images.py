"""Batches of images and targets as tensors, straight from the array store: no PIL, no worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillroom.data.mixtures import Mixture, blend, draw_mixture
from stillroom.data.store import Store
from stillroom.data.views import VIEWS_VERSION, augment
from stillroom.settings.sections import ViewSettings

_RESIDENT_SHARE = 0.4  # of an accelerator's free memory that the images may take


class Images:
    """A store's images on a device, cut into views on demand.

    On an accelerator the whole array is copied there once when it takes less than 40 % of the free memory; otherwise,
    and on a CPU, batches are read from the memory-mapped file.

    Args:
        store: the decoded images.
        device: where batches are wanted.
        views: how training images are varied.
        seed: the run's seed; with a row's number and a view's number it fixes the view.
        pools: disjoint arrays of row numbers; where views mix images, a row is mixed with rows of its own pool alone, and
            one that is in none is not mixed.
    """

    def __init__(
        self,
        store: Store,
        device: torch.device,
        views: ViewSettings,
        seed: int,
        pools: Sequence[np.ndarray] = (),
    ) -> None:
        self.store, self.device, self.views, self.seed = store, device, views, seed
        self.pools = tuple(pools) if views.mix != "none" else ()
        self._resident: Tensor | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if len(store) * store.pixels[0].nbytes < _RESIDENT_SHARE * free:
                self._resident = torch.from_numpy(store.batch(np.arange(len(store)))).to(device)

    def __len__(self) -> int:
        return len(self.store)

    def batch(self, rows: np.ndarray, view: int | None = None) -> Tensor:
        """``[B, C, H, W]`` float32 in [0, 1] of the given rows, as they are (``view=None``) or in one of their views."""
        images, mixture = self._alone(rows, view), self.mixture(rows, view)
        return images if mixture is None else blend(images, self._alone(mixture.partners, view), mixture)

    def mixture(self, rows: np.ndarray, view: int | None) -> Mixture | None:
        """How :meth:`batch` mixes these rows in that view; None where it mixes nothing."""
        if view is None or self.views.mix == "none":
            return None
        return draw_mixture(rows, view, self.views.mix, self.seed, self.pools)

    @property
    def policy(self) -> dict[str, Any]:
        """All that decides what a row's view of a given number shows, but for the store: plain values."""
        pools = [pool.tolist() for pool in self.pools]
        varied = {name: value for name, value in asdict(self.views).items() if name != "views"}  # how many, not which
        return varied | {"seed": self.seed, "pools": pools, "version": VIEWS_VERSION}

    def _alone(self, rows: np.ndarray, view: int | None) -> Tensor:
        if self._resident is not None:
            raw = self._resident[torch.from_numpy(rows).to(self.device)]
        else:
            raw = torch.from_numpy(self.store.batch(rows)).to(self.device, non_blocking=True)
        return augment(raw.float().div_(self.store.white), rows, view, self.views, self.seed)


def batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """``rows`` cut into batches of ``size``. A last batch of one joins its neighbour: batch norm cannot use it."""
    cuts = list(range(size, len(rows), size))
    if cuts and len(rows) - cuts[-1] == 1:
        cuts.pop()
    return np.split(rows, cuts)


def endless(count: int, size: int, step: int, seed: int) -> np.ndarray:
    """``[size]`` rows of ``count`` for one step: every row comes once before any comes again, however many steps.

    A pure function of its arguments: a resumed run sees the same rows.
    """
    places = np.arange(step * size, (step + 1) * size)
    rows = np.empty(size, dtype=np.int64)
    for turn in np.unique(places // count):
        inside = places // count == turn
        rows[inside] = shuffled(np.arange(count), seed, int(turn))[places[inside] % count]
    return rows


def shuffled(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a pure function of seed and epoch, so that a resumed run sees the same batches."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
