"""What a large frozen teacher needs: peak memory and seconds of a bank of 32 images by a ViT-H/14 of 632 million parameters.

OMP_NUM_THREADS=1 python benchmarks/large_teacher.py
OMP_NUM_THREADS=1 python benchmarks/large_teacher.py --arms bf16 --teacher vit_base_patch16_224

The weights are random and written on the spot, so the answers mean nothing and the cost is that of the real ones. Each arm
is a process of its own. Its peak is the largest resident set (``ru_maxrss``), which counts the mapped pages of the file of
weights too; what it had before the teacher is told beside it. ``agree`` is how near the features are to those of float32:
the least cosine over the images. Seconds are of the clock; ``bank_cpu_s`` are those that the processor spent, which other
work on the machine changes less.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGES, SIDE = 32, 224


def write_weights(name: str, file: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from stillroom.models.zoo import outline

    generator = torch.Generator().manual_seed(0)
    shapes = outline(name).state_dict()
    save_file(
        {key: torch.empty(value.shape).normal_(0, 0.02, generator=generator) for key, value in shapes.items()}, file
    )


def ask(name: str, folder: Path, precision: str) -> None:
    """One arm: build the teacher, fill it, and store what it says."""
    import numpy as np
    import torch

    from stillroom.data.images import Images
    from stillroom.data.load import load_data
    from stillroom.distillation.bank import build_bank
    from stillroom.distillation.teachers import question
    from stillroom.models.weights import weights_digest
    from stillroom.models.zoo import create
    from stillroom.settings.sections import DataSettings, ViewSettings

    data = load_data(f"phantoms:{IMAGES}", DataSettings(size=SIDE), show_progress=False)
    images = Images(data.store, torch.device("cpu"), ViewSettings(), seed=0)
    before, start = peak(), time.perf_counter()
    chosen = {"precision": precision} if "precision" in inspect.signature(create).parameters else {}
    network = create(name, classes=4, size=SIDE, pretrained=True, weights=folder, features="cls", **chosen)
    network.requires_grad_(False).eval()
    loaded, filled = time.perf_counter(), peak()
    digest = weights_digest(network)
    known, busy = time.perf_counter(), time.process_time()
    bank = build_bank(
        network,
        digest,
        images,
        np.arange(IMAGES),
        [None],
        question(network, frozenset({"pooled"})),
        asks="pooled",
        label="bank",
        cache=folder / "cache" / precision,
        show_progress=False,
    )
    np.save(folder / f"{precision}.npy", bank.at("pooled", np.arange(IMAGES), None))
    print(
        json.dumps(
            {
                "before_gb": before,
                "filled_gb": filled,
                "peak_gb": peak(),
                "load_s": loaded - start,
                "digest_s": known - loaded,
                "bank_s": time.perf_counter() - known,
                "bank_cpu_s": time.process_time() - busy,
            }
        )
    )


def peak() -> float:
    """The process's largest resident set so far, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    import numpy as np

    arguments = argparse.ArgumentParser()
    arguments.add_argument("--teacher", default="vit_huge_patch14_224")
    arguments.add_argument("--arms", nargs="+", default=["32", "bf16"], choices=["32", "bf16"])
    arguments.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.inside:
        ask(given.teacher, Path(given.inside[0]), given.inside[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{given.teacher}.safetensors"
        if os.fork() == 0:  # so that its memory is gone
            write_weights(given.teacher, file)
            os._exit(0)
        os.wait()
        print(f"{given.teacher}: {file.stat().st_size / 1e9:.2f} GB in float32, {IMAGES} images of {SIDE} px")
        reference = None
        for arm in given.arms:
            told = subprocess.run(
                [sys.executable, __file__, "--teacher", given.teacher, "--inside", folder, arm],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
            features = np.load(Path(folder) / f"{arm}.npy")
            reference = features if reference is None else reference
            cosine = (
                (features * reference).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(reference, axis=1)
            )
            found = ", ".join(f"{key} {value:.2f}" for key, value in json.loads(told.splitlines()[-1]).items())
            print(f"{arm}: {found}, agree {cosine.min():.5f}", flush=True)


if __name__ == "__main__":
    main()
