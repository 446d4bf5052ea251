"""One teacher in four forms: a timm name, a module of one's own, an ONNX file and a table of its logits.

    python benchmarks/same_teacher.py --weights DIR --out runs/same-teacher

The frozen `mobilenet_edgetpu_100` with the head that is fitted on its features teaches `test_resnet` on phantoms, every image
shown as it is, so that one answer for all views is the answer. Prints by how much the stored answers differ from those of the
name, and by how much the students' probabilities on the test images do.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from stillroom import (
    DataSettings,
    EvaluationSettings,
    FromModule,
    Run,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
    distill,
)
from stillroom.models.weights import find_weights, read_weights
from stillroom.models.zoo import create
from stillroom.run.pipeline import reopen

NAME = "mobilenet_edgetpu_100"


def base(images: int, size: int) -> Settings:
    return Settings(
        f"phantoms:{images}",
        data=DataSettings(size=size),
        views=ViewSettings(augment="none"),
        student=StudentSettings("test_resnet"),
        training=TrainingSettings(epochs=8, batch_size=32, lr=2e-3),
        evaluation=EvaluationSettings(latency=False, explain=0, resamples=100, rivals=False, control=False),
    )


def backbone(weights: Path) -> nn.Module:
    """timm's own network with its published weights, up to the last feature map."""
    body = timm.create_model(NAME, num_classes=0, global_pool="")
    state, _ = read_weights(find_weights(weights, NAME))
    body.load_state_dict({key: value for key, value in state.items() if not key.startswith("classifier.")})
    return body.eval()


class Pooled(nn.Module):
    """The mean of the map over its places."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).mean((2, 3))


def onnx_file(body: nn.Module, size: int, path: Path) -> Path:
    if not path.exists():
        example = torch.zeros(2, 3, size, size)
        dynamic = {"images": {0: torch.export.Dim("batch", min=1)}}
        torch.onnx.export(
            Pooled(body).eval(),
            (example,),
            path,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=dynamic,
            external_data=False,
            verbose=False,
        )
    return path


def answers(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Ids of all images, the teacher's logits, the student's probabilities on the test images, and the stored features."""
    bench, _ = reopen(run, show_progress=False)
    rows = np.arange(len(bench.dataset.table))
    frame = run.predictions()
    student = frame.loc[frame["split"] == "test", [f"student:{name}" for name in bench.task.classes]]
    teacher = bench.teachers[0]
    features = teacher.output("pooled", rows, None).numpy() if "pooled" in teacher.holds else None
    return bench.dataset.table.ids, teacher.logits(rows, None).numpy(), student.to_numpy(), features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help=f"folder that holds {NAME}.safetensors")
    parser.add_argument("--out", type=Path, default=Path("runs/same-teacher"))
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=96)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    settings, body = base(given.images, given.size), backbone(given.weights)
    # The file may say how its pixels are scaled, so it is asked.
    pixels = create(NAME, classes=2, pretrained=True, weights=given.weights).normalisation
    file, table = onnx_file(body, given.size, given.out / "teacher.onnx"), given.out / "teacher.npz"
    own = FromModule(body, given.size, pixels.mean, pixels.std)
    forms = {
        "timm's name": TeacherSettings(NAME, weights=given.weights),
        "a module": TeacherSettings(str(own)),
        "an ONNX file": TeacherSettings(
            str(file), teacher_outputs="features", teacher_mean=pixels.mean, teacher_std=pixels.std
        ),
        "a table of its logits": TeacherSettings(teacher_answers=table),
    }
    first: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None] | None = None
    for form, teacher in forms.items():
        path = given.out / form.replace(" ", "-").replace("'", "")
        run = Run.open(path) if (path / "report.html").exists() else None
        if run is None:
            run = distill(replace(settings, teacher=teacher), path, show_progress=False)
        found = answers(run)
        if first is None:
            first = found
            classes = list(run.task.classes)
            np.savez(table, id=found[0], logits=found[1], classes=classes)
        logits, student, stored = (
            None if found[part] is None else float(np.abs(found[part] - first[part]).max()) for part in (1, 2, 3)
        )
        auc = run.metrics["test"]["student"]["auc"]["value"]
        bank = "" if stored is None else f"stored features differ by {stored:.2e}, "
        print(f"{form}: {bank}logits by {logits:.2e}, the student's probabilities by {student:.2e} (its AUC {auc:.4f})")


if __name__ == "__main__":
    main()
