"""Score-CAM estimated from few channels against the exact map: what the offline page shows where a sixth takes too long.

    python benchmarks/few_channels.py MODEL... [--images 24] [--data FOLDER]

MODEL is a finished run's folder or an exported .onnx file. Of images drawn from the folder (by default
$STILLROOM_DATA/otoscopy) the class decided for is explained exactly, and estimated from 8 channels up to a sixth; the
correlation over the map's pixels is printed: its mean, the tenth smallest of a hundred, and the smallest.
"""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path

import numpy as np

from stillroom.data.files import decode_image
from stillroom.deployment.predictor import Predictor
from stillroom.explanation.score_cam import asked_for, enlarge, estimated_scores, finished, stretch

BUDGETS = (8, 16, 24, 32, 48, 64, 96, 128)
_AT_ONCE = 32


def every_score(predictor: Predictor, image: np.ndarray, channels: np.ndarray, number: int) -> np.ndarray:
    """The class's logit under each channel as a mask, ``[K]``."""
    size = (predictor.size, predictor.size)
    hidden = np.array(predictor.metadata.hidden, dtype=np.float32).reshape(-1, 1, 1)
    parts = (channels[start : start + _AT_ONCE] for start in range(0, len(channels), _AT_ONCE))
    masks = (stretch(enlarge(part, size))[:, None] for part in parts)
    return np.concatenate([predictor.logits(hidden + (image - hidden) * mask)[:, number] for mask in masks])


def drawn(channels: np.ndarray, scores: np.ndarray, side: int) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return finished(np.maximum(np.tensordot(weights / weights.sum(), channels, axes=1), 0.0), (side, side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STILLROOM_DATA", "")) / "otoscopy")
    given = parser.parse_args()
    files = sorted(path for path in given.data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = np.random.default_rng(0).permutation(len(files))[: given.images]
    print("| network | side | places | channels | asked | mean correlation | tenth of a hundred | smallest |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for model in given.models:
        predictor = Predictor.load(model, threads=1)
        agreed: dict[int, list[float]] = {}
        for index in chosen:
            image = predictor.prepare(decode_image(io.BytesIO(files[index].read_bytes())))
            channels = predictor.ask(image[None], "map")["map"][0]
            scores = every_score(predictor, image, channels, int(predictor.logits(image[None])[0].argmax()))
            exact = drawn(channels, scores, predictor.size)
            sixth = asked_for(len(channels), fast=True)
            for budget in (*(one for one in BUDGETS if one < sixth), sixth):
                estimate = drawn(channels, estimated_scores(channels, scores.__getitem__, budget), predictor.size)
                agreed.setdefault(budget, []).append(float(np.corrcoef(estimate.ravel(), exact.ravel())[0, 1]))
        places = " x ".join(map(str, channels.shape[1:]))
        for budget, found in agreed.items():
            cells = f"{np.mean(found):.3f} | {np.quantile(found, 0.1):.3f} | {min(found):.3f}"
            print(
                f"| {predictor.name} | {predictor.size} | {places} | {len(channels)} | {budget} | {cells} |", flush=True
            )


if __name__ == "__main__":
    main()
