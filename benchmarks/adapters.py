"""What low-rank adapters save when a large teacher is fine-tuned: peak memory and seconds of a step of ViT-B/16 at 224 px.

OMP_NUM_THREADS=1 python benchmarks/adapters.py

Eight random images a step, AdamW as the training loop makes it; each arm is a process of its own. ``before`` is the largest
resident set (``ru_maxrss``) with the network built, ``peak`` that after the steps, both in 10^9 bytes; the seconds are those
that the processor spent on the quickest step but the first.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

BATCH, SIDE, STEPS = 8, 224, 4


def train(name: str, rank: int) -> None:
    """One arm; rank 0 trains all weights."""
    import torch
    from torch import nn

    from stillroom.models.adapters import adapt
    from stillroom.models.zoo import create
    from stillroom.settings.sections import TrainingSettings
    from stillroom.training.learning_rates import optimizer_of

    network = create(name, classes=4, size=SIDE)
    network.start = "pretrained"
    if rank:
        adapt(network, rank, seed=0)
    network.train()
    before = peak()
    optimizer = optimizer_of(network, nn.Identity(), TrainingSettings())
    images, labels = torch.rand(BATCH, 3, SIDE, SIDE), torch.arange(BATCH) % 4
    quickest = float("inf")
    for step in range(STEPS):
        start = time.process_time()
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        quickest = min(quickest, time.process_time() - start) if step else quickest
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    told = f"{trained / 1e6:.1f} million weights trained, before {before:.2f} GB, peak {peak():.2f} GB"
    print(f"{f'rank {rank}' if rank else 'all'}: {told}, {quickest:.2f} s a step", flush=True)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--teacher", default="vit_base_patch16_224")
    arguments.add_argument("--ranks", nargs="+", type=int, default=[0, 8])
    arguments.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.inside is not None:
        train(given.teacher, given.inside)
        return
    for rank in given.ranks:
        subprocess.run([sys.executable, __file__, "--teacher", given.teacher, "--inside", str(rank)], check=True)


if __name__ == "__main__":
    main()
