"""What eight-bit integers keep of four students, and what they save.

    python benchmarks/int8.py --out runs/int8 [NAME ...]

Trains a MobileNetV2 on the otoscopy set, and a ResNet-18, a small transformer and the OFA-595 on PneumoniaMNIST, from what
lies in $STILLROOM_DATA and $STILLROOM_WEIGHTS; a folder that is there already is taken as it is. Each run is exported in
eight-bit integers, and a row printed: int8 against float32 on the same test images, sizes, CPU time on one thread, and
the teacher's in torch.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import stillroom
from stillroom.after.lighter import export_int8
from stillroom.models.zoo import create

TIMED = 15


def settings(source: str, student: str, size: int, epochs: int, **how: Any) -> stillroom.Settings:
    weights = Path(os.environ["STILLROOM_WEIGHTS"])
    pretrained = how.pop("pretrained", False)
    teacher = how.pop("teacher")
    return stillroom.Settings(
        source,
        data=stillroom.DataSettings(size=size, **how),
        views=stillroom.ViewSettings(views=1),
        teacher=stillroom.TeacherSettings(teacher, weights=weights, teacher_size=size),
        student=stillroom.StudentSettings(
            student, student_pretrained=pretrained, student_weights=weights if pretrained else None
        ),
        training=stillroom.TrainingSettings(epochs=epochs),
        evaluation=stillroom.EvaluationSettings(control=False, rivals=False, explain=8),
    )


def students() -> dict[str, Callable[[], stillroom.Settings]]:
    data = Path(os.environ["STILLROOM_DATA"])
    ears = str(data / "otoscopy")
    return {
        "mobilenet": lambda: settings(
            ears, "mobilenetv2_100", 128, 10, teacher="mobilenet_edgetpu_100", pretrained=True
        ),
        "resnet": lambda: settings("pneumoniamnist", "resnet18", 64, 3, teacher="mobilenetv2_100", resolution=28),
        "vit": lambda: settings(
            "pneumoniamnist", "vit_tiny_patch16_224", 64, 3, teacher="mobilenetv2_100", resolution=28
        ),
        "ofa": lambda: settings("pneumoniamnist", "ofa595", 64, 4, teacher="mobilenetv2_100", resolution=28),
    }


def torch_ms(run: stillroom.Run) -> float:
    """Median CPU milliseconds of the teacher's network in torch for one image, on one thread."""
    chosen = run.settings.teacher
    teacher = create(chosen.teacher, classes=len(run.task.classes), size=chosen.teacher_size).eval()
    image = torch.rand(1, run.manifest["store"]["channels"], *teacher.input_size)
    torch.set_num_threads(1)
    spent = []
    with torch.inference_mode():
        for number in range(TIMED + 3):
            start = time.process_time()
            teacher(image)
            if number >= 3:
                spent.append((time.process_time() - start) * 1000)
    return float(np.median(spent))


def row(name: str, run: stillroom.Run, figures: dict[str, Any]) -> tuple[str, ...]:
    def pair(before: float | None, after: float | None, form: str) -> str:
        return "n/a" if before is None or after is None else f"{before:{form}} → {after:{form}}"

    compared, size, speed = figures["comparison"], figures["size_mb"], figures["latency_ms"]
    accuracy, maps = compared["accuracy_difference"], figures["maps"]
    ratios = [speed[batch]["float32"] / speed[batch]["int8"] for batch in ("batch_1", "batch_16")]
    teacher = torch_ms(run)
    return (
        name,
        f"{figures['images']}",
        f"{size[0]:.1f} → {size[1]:.1f} ({size[0] / size[1]:.1f}x)",
        f"{ratios[0]:.2f}x / {ratios[1]:.2f}x",
        pair(compared["second"]["value"], compared["first"]["value"], ".4f"),
        f"{accuracy['value']:+.4f} ({accuracy['low']:+.3f} to {accuracy['high']:+.3f})",
        f"{figures['agreement']:.3f}",
        pair(*figures["refused_share"], ".1%"),
        "n/a" if figures["distance"] is None else f"{figures['distance']:.1%}",
        "n/a" if maps is None else f"{maps['mean']:.3f} ({maps['least']:.2f})",
        f"{len(figures['left_float'])} of {figures['layers']}" + (", taught" if figures["taught"] else ""),
        "handed over" if not figures["refused"] else "refused",
        f"{teacher:.1f} ({teacher / speed['batch_1']['int8']:.1f}x)",
    )


HEADINGS = (
    "student", "test images", "MB", "speed, batch 1 / 16", "AUC", "accuracy (95 %)", "agree", "refused", "distance",
    "maps (least)", "float layers", "file", "teacher in torch, ms",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(students())}; default: all")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for name in given.names or students():
        folder = given.out / name
        run = stillroom.Run.open(folder) if folder.exists() else stillroom.distill(students()[name](), folder)
        _, figures = export_int8(run)
        rows.append(row(name, run, figures))
        print(f"{name}: {figures['refused'] or 'handed over'}; {figures['left_float']}", flush=True)
    print("\n| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
