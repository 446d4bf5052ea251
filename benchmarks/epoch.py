"""What does the teacher cost, and how near is the loop to what the student alone must take?

    python benchmarks/epoch.py --threads 2 --out DIR

One run at 64 px, batch 64, light augmentation, on synthetic phantoms, in which three things take turns:

- limit: the bare student's forward and backward on one batch in memory, as many times as an epoch has steps
- bank: an epoch of distillation whose teacher's answers come from the bank
- online: the same loop with the teacher asked in every step

An epoch is the loop's own count of seconds: batches, views, teacher, forward, backward, optimiser, and the validation
pass over ten images that ends it. Medians over the turns; ratios to the limit. Building the bank is timed apart.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stillroom.data.images import Images, batches
from stillroom.data.load import load_data
from stillroom.distillation.bank import build_bank
from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.distillation.teachers import Teacher
from stillroom.models.efficiency import machine
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create
from stillroom.settings.sections import DataSettings, TrainingSettings, ViewSettings
from stillroom.training.loop import TrainingData, fit

SIZE, BATCH = 64, 64


def limit(name: str, classes: int, steps: int) -> float:
    student = create(name, classes=classes, size=SIZE).train()
    images, targets = torch.rand(BATCH, 1, SIZE, SIZE), torch.randint(0, classes, (BATCH,))
    start = time.perf_counter()
    for _ in range(steps):
        torch.nn.functional.cross_entropy(student(images), targets).backward()
        student.zero_grad()
    return time.perf_counter() - start


def epoch(name: str, teacher: Teacher, data: TrainingData) -> float:
    student = create(name, classes=len(data.task.classes), size=SIZE)
    lines: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            student,
            HybridLoss(),
            data,
            TrainingSettings(epochs=1, batch_size=BATCH),
            folder=Path(folder),
            role="student",
            teachers=[teacher],
            log=lines.append,
            show_progress=False,
        )
    return lines[0]["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=["mobilenetv3_small_100", "resnet18"])
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--teacher-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    dataset = load_data("phantoms:1000", DataSettings(size=SIZE), show_progress=False)
    images = Images(dataset.store, torch.device("cpu"), ViewSettings(views=2), seed=0)
    table = dataset.table
    train = table.indices("train")[: 10 * BATCH]
    data = TrainingData(images, table.targets, table.task, train, table.indices("val")[:10])
    network = create(arguments.teacher, classes=len(table.task.classes), size=arguments.teacher_size).eval()

    def ask(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": network(batch)}

    with tempfile.TemporaryDirectory() as cache:

        def bank(rows: np.ndarray, views: list[int | None]):
            return build_bank(
                network,
                weights_digest(network),
                images,
                rows,
                views,
                ask,
                asks="logits",
                label="bank",
                cache=Path(cache),
                show_progress=False,
            )

        start = time.perf_counter()
        stored = bank(train, [0, 1])
        building = time.perf_counter() - start
        banked = Teacher(network, bank(train, [None]), stored, ask, images)
        online = replace(banked, views=None)

        results: dict[str, object] = {"machine": machine(), "images": len(train), "bank for 2 views": building}
        print(
            f"{arguments.teacher}, {arguments.threads} threads: a bank of 2 views of {len(train)} images {building:.1f} s"
        )
        for name in arguments.students:
            steps = len(batches(train, BATCH))
            ways = {
                "limit": lambda: limit(name, len(table.task.classes), steps),  # noqa: B023
                "bank": lambda: epoch(name, banked, data),  # noqa: B023
                "online": lambda: epoch(name, online, data),  # noqa: B023
            }
            for way in ways.values():
                way()  # warm up
            seconds = {way: [] for way in ways}
            for _ in range(arguments.turns):
                for way, run in ways.items():
                    seconds[way].append(run())
            median = {way: float(np.median(values)) for way, values in seconds.items()}
            results[name] = {"seconds": seconds, "median": median}
            ratios = ", ".join(f"{way} {median[way]:.2f} s ({median[way] / median['limit']:.2f}x)" for way in ways)
            print(f"{name}: {ratios}", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "epoch.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
