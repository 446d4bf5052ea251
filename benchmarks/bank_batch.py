"""What the batch is worth when a teacher is asked on a CPU: milliseconds per image, without gradients, by batch size.

OMP_NUM_THREADS=1 python benchmarks/bank_batch.py
"""

from __future__ import annotations

import time

import torch

from stillroom.data.inference import evaluating
from stillroom.models.zoo import create

_BATCHES, _IMAGES, _TURNS = (8, 16, 32, 64, 128), 256, 3
_TEACHERS = (("mobilenet_edgetpu_100", 160), ("resnet50", 96))


def main() -> None:
    for name, side in _TEACHERS:
        network, images = create(name, classes=4, size=side), torch.rand(_IMAGES, 3, side, side)
        quickest = dict.fromkeys(_BATCHES, float("inf"))
        with evaluating(network):
            network(images[:16])  # warms up
            for _ in range(
                _TURNS
            ):  # in turn, so that other work on the machine falls on all; the least is least disturbed
                for batch in _BATCHES:
                    start = time.perf_counter()
                    for part in images.split(batch):
                        network(part)
                    quickest[batch] = min(quickest[batch], time.perf_counter() - start)
        times = ", ".join(f"{batch}: {1e3 * seconds / _IMAGES:.1f}" for batch, seconds in quickest.items())
        print(f"{name} at {side} px, ms per image by batch: {times}")


if __name__ == "__main__":
    main()
