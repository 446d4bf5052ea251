"""What the memory layout of images is worth in training: one step of a backbone, channels first against channels last.

OMP_NUM_THREADS=1 python benchmarks/layout.py
"""

from __future__ import annotations

import statistics
import time

import torch

from stillroom.models.zoo import create

_BATCH, _SIZE, _TURNS = 32, 64, 9


def main() -> None:
    for name in ("mobilenetv2_050", "resnet10t_050"):
        backbone = create(name, classes=4, size=_SIZE).backbone.train()
        optimizer = torch.optim.AdamW(backbone.parameters(), fused=True)
        first = torch.rand(_BATCH, 3, _SIZE, _SIZE)
        layouts = {"channels first": first, "channels last": first.contiguous(memory_format=torch.channels_last)}
        seconds: dict[str, list[float]] = {layout: [] for layout in layouts}
        for turn in range(_TURNS + 1):
            for layout, images in layouts.items():  # in turn, so that other work on the machine falls on both
                start = time.perf_counter()
                optimizer.zero_grad()
                backbone(images).square().mean().backward()
                optimizer.step()
                if turn:  # the first warms up
                    seconds[layout].append(time.perf_counter() - start)
        slow, fast = (statistics.median(seconds[layout]) for layout in layouts)
        print(f"{name}: {1e3 * slow:.0f} ms channels first, {1e3 * fast:.0f} ms channels last, {slow / fast:.2f}x")


if __name__ == "__main__":
    main()
