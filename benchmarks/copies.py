"""Which copies the audit finds, what it takes for copies that are none, and how long it looks.

    python benchmarks/copies.py [--each 40] [--seed 0] [SET ...]      # sets below $STILLROOM_DATA
    python benchmarks/copies.py --seconds 1000 10000

Copies of known images are planted in each set: turned by quarter turns or mirrored, cropped, both, or turned by up to 25
degrees and flipped as LC25000 was made (Augmentor: the largest upright rectangle is kept). Each is then made darker or paler,
saved as JPEG at quality 60 to 95, and, above 64 pixels, at .6 to 1 of its size. Found is a copy that is paired with its
original or with another copy of it. The set's own moved pairs are to be looked at before anything is said of them.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from stillroom.data.duplicates import duplicate_groups, find_pairs
from stillroom.data.geometry import fit_image
from stillroom.evaluation.intervals import wilson

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
FILES = {"otoscopy": ".jpg", "breast_ultrasound": ".png", "brain_mri": ""}
MEDMNIST = ("breastmnist", "pneumoniamnist", "retinamnist")


def read(name: str) -> list[np.ndarray]:
    root = Path(os.environ["STILLROOM_DATA"])
    if name in MEDMNIST:
        with np.load(root / "medmnist" / f"{name}.npz") as file:
            images = np.concatenate([file[f"{split}_images"] for split in ("train", "val", "test")])
        return [grey(image) for image in images]
    kinds = (FILES[name],) if FILES[name] else (".jpg", ".jpeg", ".png")
    paths = sorted(
        path for path in (root / name).rglob("*") if path.suffix.lower() in kinds and "_mask" not in path.name
    )
    return [np.asarray(Image.open(path).convert("L")) for path in paths]


def grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))


def as_given(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image


def turned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    number = int(rng.integers(1, 8))
    image = np.rot90(image, number % 4)
    return image[:, ::-1] if number >= 4 else image


def cropped(share: float) -> Change:
    def crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = (round(side * share) for side in image.shape)
        down, right = (int(rng.integers(0, room + 1)) for room in (image.shape[0] - height, image.shape[1] - width))
        return image[down : down + height, right : right + width]

    return crop


def turned_and_cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return turned(cropped(0.85)(image, rng), rng)


def as_lc25000(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    degrees = rng.uniform(-25, 25)
    height, width = image.shape
    cos, sin = math.cos(math.radians(abs(degrees))), math.sin(math.radians(abs(degrees)))
    share = min(width / (width * cos + height * sin), height / (height * cos + width * sin))
    picture = Image.fromarray(image).rotate(degrees, resample=Image.Resampling.BICUBIC, expand=True)
    middle, half = (picture.width / 2, picture.height / 2), (width * share / 2, height * share / 2)
    box = (middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1])
    image = np.asarray(picture.crop(tuple(int(end) for end in box)).resize((width, height), Image.Resampling.BICUBIC))
    image = image[:, ::-1] if rng.random() < 0.5 else image
    return image[::-1] if rng.random() < 0.5 else image


CHANGES: dict[str, Change] = {
    "saved anew": as_given,
    "turned, mirrored": turned,
    "95 % of each side": cropped(0.95),
    "90 %": cropped(0.90),
    "80 %": cropped(0.80),
    "70 %": cropped(0.70),
    "85 %, turned": turned_and_cropped,
    "as LC25000": as_lc25000,
}


def saved_anew(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = (image * rng.uniform(0.85, 1.15) + rng.uniform(-10, 10)).clip(0, 255).astype(np.uint8)
    share = rng.uniform(0.6, 1) if min(image.shape) > 64 else 1.0
    picture = Image.fromarray(image).resize(tuple(max(8, round(side * share)) for side in image.shape[::-1]))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(60, 96)))
    return np.asarray(Image.open(buffer))


def thumbnail(image: np.ndarray) -> np.ndarray:
    return fit_image(np.ascontiguousarray(image), 32, "resize")


def trial(name: str, each: int, seed: int) -> None:
    rng, images = np.random.default_rng(seed), read(name)
    own = len(images)
    thumbnails, origin, change = [thumbnail(image) for image in images], list(range(own)), [""] * own
    for how, changed in CHANGES.items():
        for row in rng.choice(own, each, replace=own < each).tolist():
            thumbnails.append(thumbnail(saved_anew(changed(images[row], rng), rng)))
            origin.append(row)
            change.append(how)
    known, shown = np.array(change), np.stack(thumbnails)
    # Copies that the set holds itself: what is paired with any of them is found too.
    alone = find_pairs(np.arange(own).astype(str), shown[:own])
    group = duplicate_groups(alone, own)[np.array(origin)]
    start = time.process_time()
    pairs = find_pairs(np.arange(len(shown)).astype(str), shown)
    seconds = time.process_time() - start
    right = group[pairs.first] == group[pairs.second]
    found = np.zeros(len(shown), bool)
    found[pairs.first[right]] = found[pairs.second[right]] = True
    cells = []
    for how in CHANGES:
        hits = int(found[known == how].sum())
        low, high = wilson(hits, each)
        cells.append(f"{hits / each:.0%} ({low:.0%}-{high:.0%})")
    strangers = int((~right & (known[pairs.second] != "")).sum())
    moved = int((alone.kinds == "moved").sum())
    print(f"| {name} | {own:,} | {' | '.join(cells)} | {moved} | {strangers} | {seconds:.0f} |", flush=True)


def seconds(count: int, seed: int) -> None:
    """Chest films, repeated with other shades, blurs and shifts until there are enough."""
    rng, films = np.random.default_rng(seed), np.stack([thumbnail(image) for image in read("pneumoniamnist")])
    rows = rng.integers(0, len(films), (2, count))
    # Halves of two films, faded into each other: as alike as films are, and no copy of either.
    mix = np.linspace(0, 1, 32)[None, None]
    made = (films[rows[0]] * (1 - mix) + films[rows[1]] * mix).astype(np.uint8)
    start = time.process_time()
    pairs = find_pairs(np.arange(count).astype(str), made)
    print(f"| {count:,} | {time.process_time() - start:.0f} | {len(pairs)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=[*FILES, *MEDMNIST])
    parser.add_argument("--each", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, nargs="*")
    arguments = parser.parse_args()
    if arguments.seconds:
        print("| images | seconds of one core | pairs |\n|---|---|---|")
        for count in arguments.seconds:
            seconds(count, arguments.seed)
        return
    print(f"| set | images | {' | '.join(CHANGES)} | its own moved pairs | strangers paired | seconds |")
    print("|" + "---|" * (len(CHANGES) + 5))
    for name in arguments.sets:
        trial(name, arguments.each, arguments.seed)


if __name__ == "__main__":
    main()
