"""What a device is given, and what torch says of it: made where torch is, for tests where it is not.

    python tests/edge/make_device.py FOLDER

The folder holds ``student.onnx`` and ``student.int8.onnx``, new images in ``images/left`` and ``images/right``, and
``known.npz``: of every image, in the order of their paths, ``probabilities``, and of the class ``left`` the maps ``rise`` and
``score_cam``, by torch; and the figures ``auc`` and ``accuracy``, by scikit-learn. What the ONNX Runtime that
is here says of them stands in ``answers.npz``: ``images``, as the files take them, and of each file, as ``NAME|OUTPUT``, what
its graph answers; and in ``predictions.json``: of each file what is predicted.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score

import stillroom
from stillroom.data.files import FileReader

SIDE = 32
FILES = ("student.onnx", "student.int8.onnx")
OUTPUTS = ("logits", "probabilities", "distance", "map")


def draw(place: int, rng: np.random.Generator) -> Image.Image:
    """Noise with a bright square on its left or right; every third picture is larger, and in colour."""
    picture = rng.normal(90, 25, (SIDE, SIDE))
    left = 4 + 16 * place + rng.integers(0, 4)
    picture[12:20, left : left + 8] += rng.choice([25, 60])
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return image if rng.random() < 0.7 else image.resize((61, 47)).convert("RGB")


def pictures(folder: Path, count: int, seed: int) -> list[Path]:
    """So many of each side, as files."""
    rng, paths = np.random.default_rng(seed), []
    for place, name in enumerate(("left", "right")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            paths.append(folder / name / f"{number:03d}.png")
            draw(place, rng).save(paths[-1])
    return paths


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        pictures(Path(place) / "pictures", 200, seed=0)
        settings = stillroom.Settings(
            str(Path(place) / "pictures"),
            recipe=stillroom.Baseline(),
            data=stillroom.DataSettings(size=SIDE),
            student=stillroom.StudentSettings("resnet10t_050"),
            training=stillroom.TrainingSettings(epochs=6, batch_size=16, lr=3e-3),
            evaluation=stillroom.EvaluationSettings(
                latency=False, explain=4, refusals=0.1, rivals=False, resamples=100
            ),
            device="cpu",
        )
        run = stillroom.distill(settings, Path(place) / "run", show_progress=False)
        made, figures = stillroom.export_int8(run, show_progress=False)
        if made is None:
            sys.exit(f"The device has no int8 file: {figures['refused']}")
        for name in FILES:
            shutil.copy(run.path / name, folder / name)
        network, metadata = run.student().eval(), run.predictor().metadata

    paths = pictures(folder / "images", 12, seed=1)
    prepare = stillroom.Predictor.load(folder / "student.onnx").prepare
    images = np.stack([prepare(FileReader((path,)).read(0)) for path in paths])
    answers, predictions = {"images": images}, {}
    for name in FILES:
        file = stillroom.Predictor.load(folder / name)
        answers |= {f"{name}|{part}": values for part, values in file.outputs(images, OUTPUTS).items()}
        predictions[name] = [one.to_dict() for one in file.predict(paths)]
    np.savez(folder / "answers.npz", **answers)
    (folder / "predictions.json").write_text(json.dumps(predictions), encoding="utf-8")
    batch = torch.from_numpy(images)
    with torch.no_grad():
        chance = (network(batch) / metadata.temperature).softmax(dim=1).double().numpy()
    maps = {
        method: stillroom.heat_maps(network, batch[:2], [0, 0], method=method, layer=metadata.layer).numpy()
        for method in ("rise", "score_cam")
    }
    truth = np.repeat([0, 1], 12)
    figures = {"auc": roc_auc_score(truth, chance[:, 1]), "accuracy": accuracy_score(truth, chance.argmax(axis=1))}
    np.savez(folder / "known.npz", probabilities=chance, **maps, **figures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
