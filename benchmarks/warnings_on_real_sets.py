"""Do warnings about pixels cry on real images, and do they find what is planted there?

    python benchmarks/warnings_on_real_sets.py [--sizes 64 128]

Of every real set at STILLROOM_DATA, of phantoms and of handwritten digits: how many images are taken for masks, and which
properties are named as shortcuts. Then what must be found: the masks of the breast ultrasound set on their own, as PNG and as
JPEG, and every class in turn with its grey values turned over, as a photographic negative.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from stillroom.data.load import Dataset, load_data
from stillroom.data.masks_by_pixels import few_valued, find_masks_by_pixels
from stillroom.data.shortcuts import find_shortcuts
from stillroom.data.store import build_store
from stillroom.data.table import Table
from stillroom.settings.sections import DataSettings
from stillroom.task import MultiClass

SETS = ("brain_mri", "breast_ultrasound", "otoscopy", "breastmnist", "pneumoniamnist", "retinamnist", "phantoms:600")


@dataclass(frozen=True)
class Pictures:
    """Pictures in memory as a table's reader."""

    images: list[np.ndarray]
    name: str

    def read(self, row: int) -> np.ndarray:
        return self.images[row]

    def read_mask(self, row: int) -> None:
        return None

    def made_of(self, row: int) -> str:
        return f"{self.name} {row}"


def table_of(images: list[np.ndarray], targets: np.ndarray, name: str) -> Table:
    classes = tuple(f"class {k}" for k in range(max(2, int(targets.max()) + 1)))
    rows = np.arange(len(images))
    return Table(
        name=name, source=name, task=MultiClass(classes), ids=np.array([f"{row}.png" for row in rows]), targets=targets,
        splits=np.full(len(images), ""), rows=rows, reader=Pictures(images, name),
    )  # fmt: skip


def loaded(size: int, root: Path) -> Iterator[tuple[str, Dataset]]:
    os.environ.setdefault("MEDMNIST_HOME", str(root / "medmnist"))
    for name in SETS:
        mnist = {"resolution": 28} if name.endswith("mnist") else {}
        source = str(root / name) if (root / name).is_dir() else name
        yield name, load_data(source, DataSettings(size=size, **mnist), show_progress=False)


def breast_masks(root: Path, ending: str) -> list[np.ndarray]:
    found = []
    for path in sorted((root / "breast_ultrasound").rglob("*_mask*.png")):
        image = Image.open(path).convert("L")
        if ending == "jpg":
            written = io.BytesIO()
            image.save(written, "JPEG", quality=75)
            image = Image.open(written)
        found.append(np.asarray(image))
    return found


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--sizes", type=int, nargs="+", default=[64])
    asked = given.parse_args()
    root = Path(os.environ["STILLROOM_DATA"])
    from sklearn.datasets import load_digits

    digits = load_digits()
    for size in asked.sizes:
        images = cried = planted = negatives = 0
        for name, data in loaded(size, root):
            rows, _ = find_masks_by_pixels(data.table, data.store)
            named = [(found.property, found.name) for found in find_shortcuts(data.table, data.store)]
            print(
                f"{size} px, {name}: {len(data.table)} images, {len(rows)} taken for masks, named {named or 'nothing'}"
            )
            images, cried = images + len(data.table), cried + len(rows)
            small = np.asarray(data.store.thumbnails)
            for k, label in enumerate(data.table.task.classes):
                own = data.table.task.one_hot(data.table.targets)[:, k].astype(bool)
                turned = small.copy()
                turned[own] = 255 - turned[own]
                found = find_shortcuts(data.table, replace(data.store, thumbnails=turned))
                planted += 1
                negatives += any(one.property == "brightness" for one in found)
                if not any(one.property == "brightness" for one in found):
                    print(f"  the negative of {label} is not named")
        pictures = [(image * 15.9).astype(np.uint8) for image in digits.images]
        for name, drawn, targets in (
            ("digits", pictures, digits.target),
            *((f"breast masks as {ending}", breast_masks(root, ending), None) for ending in ("png", "jpg")),
        ):
            table = table_of(drawn, np.zeros(len(drawn), dtype=np.int64) if targets is None else targets, name)
            store, table, _ = build_store(table, size=size, fit="pad", progress=False)
            print(f"{size} px, {name}: {len(table)} images, {int(few_valued(store).sum())} have a mask's few values")
        print(
            f"{size} px in all: {cried} of {images} taken for masks; {negatives} of {planted} negatives named",
            flush=True,
        )


if __name__ == "__main__":
    main()
