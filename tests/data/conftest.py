"""Tables over arrays held in memory, for tests of what comes after the sources."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from stillroom.data.table import Table, UnreadableImage
from stillroom.task import MultiClass


class ListReader:
    """Serves arrays; a text in an array's place is the reason why that image cannot be read. Counts its reads."""

    def __init__(self, images: Sequence[np.ndarray | str], masks: Sequence[np.ndarray | None] | None, stamp: str):
        self.images, self.masks, self.name = images, masks, stamp
        self.reads = 0

    def read(self, index: int) -> np.ndarray:
        self.reads += 1
        image = self.images[index]
        if isinstance(image, str):
            raise UnreadableImage(image)
        return image

    def read_mask(self, index: int) -> np.ndarray | None:
        return None if self.masks is None else self.masks[index]

    def made_of(self, index: int) -> str:
        return f"{self.name} {index}"


@pytest.fixture
def make_table(request) -> Callable[..., Table]:
    """``make_table(images, masks=, splits=, targets=, patients=, task=, stamp=)``; the stamp names the content."""

    def make(images: Sequence[np.ndarray | str], masks: Any = None, stamp: str = "", **columns: Any) -> Table:
        count = len(images)
        task = columns.get("task", MultiClass(("ill", "well")))
        patients = columns.get("patients")
        return Table(
            name="toy",
            source="arrays in memory",
            task=task,
            ids=np.array([f"image{row}.png" for row in range(count)]),
            targets=np.asarray(columns.get("targets", np.arange(count) % 2)),
            splits=np.array(columns.get("splits", [""] * count)),
            rows=np.arange(count),
            reader=ListReader(images, masks, f"{request.node.nodeid} {stamp}"),
            patients=None if patients is None else np.array(patients),
            synthetic=columns.get("synthetic", False),
            has_masks=masks is not None,
        )

    return make


@pytest.fixture
def scene() -> Callable[..., np.ndarray]:
    """``scene(seed, height, width)``: a smooth colour picture of blobs and edges, unlike that of any other seed."""

    def paint(seed: int, height: int = 96, width: int = 120) -> np.ndarray:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        picture = np.full((height, width, 3), 70.0)
        for _ in range(25):
            top, left, radius = *rng.uniform(0, 1, 2), rng.uniform(0.04, 0.2)
            inside = ((y - top) ** 2 + (x - left) ** 2 < radius**2)[..., None]
            picture += inside * rng.uniform(-40, 60, 3)
        return picture.clip(0, 255).astype(np.uint8)

    return paint
