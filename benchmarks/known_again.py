"""What it costs to know 1,000 images again: looked at from outside, read, decoded.

OMP_NUM_THREADS=1 python benchmarks/known_again.py
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from stillroom.data.contents import file_digests
from stillroom.data.decoding import pixel_digest
from stillroom.data.files import FileReader
from stillroom.files import digests

_COUNT, _SIDE, _TURNS = 100, 1024, 7


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        for ending in ("png", "jpg"):
            measure(Path(place), ending)


def measure(place: Path, ending: str) -> None:
    paths = [place / f"{number}.{ending}" for number in range(_COUNT)]
    for number, path in enumerate(paths):
        _film(number).save(path, quality=90)
    weight = sum(path.stat().st_size for path in paths) / _COUNT / 1e6
    reader = FileReader(tuple(paths))

    def digest() -> None:
        file_digests(paths, cache=place / "cache", show_progress=False)

    read = _milliseconds(digest, lambda: _touch(paths))
    looked_at = _milliseconds(digest)
    decoded = _milliseconds(lambda: [pixel_digest(reader.read(row)) for row in range(_COUNT)])
    print(f"{ending}, {weight:.2f} MB: looked at {looked_at:.0f} ms, read {read:.0f} ms, decoded {decoded:.0f} ms")


def _touch(paths: list[Path]) -> None:
    digests._KNOWN.clear()
    for path in paths:
        os.utime(path)
    time.sleep(2.1)  # until then a change might go unseen, and nothing is kept


def _film(number: int) -> Image.Image:
    y, x = np.mgrid[0 : 1 : _SIDE * 1j, 0 : 1 : _SIDE * 1j]
    grain = np.random.default_rng(number).normal(0, 6, (_SIDE, _SIDE))
    film = 127 + 60 * np.sin(8 * x + number) + 40 * np.cos(5 * y) + grain
    return Image.fromarray(film.clip(0, 255).astype(np.uint8))


def _milliseconds(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Of 1,000 images, in the quickest turn: others may use the machine."""
    times = []
    for _ in range(_TURNS):
        before()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3 * 1000 / _COUNT


if __name__ == "__main__":
    main()
