"""A data set's images as networks of different input sides see them: the same rows and views, in more or fewer pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from stillroom.data.images import Images
from stillroom.data.load import Dataset
from stillroom.settings.whole import Settings


class Sides:
    """The images of a data set at any side, decoded when first asked for.

    Args:
        dataset: stored at the student's side.
        device: where batches are wanted.
        settings: the run's; its views and seed fix what a view shows, at every side alike.
        pools: see :class:`~stillroom.data.images.Images`.
        show_progress: show how far decoding has come.
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        settings: Settings,
        pools: Sequence[np.ndarray],
        *,
        show_progress: bool = True,
    ) -> None:
        self.dataset, self.device, self.settings, self.pools = dataset, device, settings, pools
        self.show_progress = show_progress
        self._made: dict[int, tuple[Images, Images | None]] = {}

    def at(self, side: int) -> tuple[Images, Images | None]:
        """The images, and those without labels where there are some."""
        if side not in self._made:
            views, seed, more = self.settings.views, self.settings.seed, None
            store = self.dataset.store_at(side, show_progress=self.show_progress)
            images = Images(store, self.device, views, seed, self.pools)
            if self.dataset.unlabelled:
                store = self.dataset.unlabelled.store_at(side, show_progress=self.show_progress)
                more = Images(store, self.device, views, seed, (np.arange(len(store)),))
            self._made[side] = images, more
        return self._made[side]


def side_notes(student: int, teachers: Iterable[int]) -> list[str]:
    """What to mind where teachers are shown the student's pictures though they know them at other sides, in pixels."""
    others = sorted(set(teachers) - {student})
    if not others:
        return []
    known = " and ".join(f"{other} px" for other in others)
    return [f"The teacher is shown the student's images of {student} px here; it was taught on images of {known}."]
