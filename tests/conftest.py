"""Shared fixtures: a private cache, the real data and weights where they are, and tiny data sets made on the spot."""

import gc
import json
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "2")
gc.set_threshold(50_000, 20, 50)  # an export makes millions of objects: looking through them often takes a fifth of it


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    """Stores and banks of the tests never touch the user's cache, nor the secret by which patients are told apart."""
    os.environ["STILLROOM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["STILLROOM_SECRET"] = str(tmp_path_factory.mktemp("secret") / "patients.key")


def _folder(variable: str, part: str) -> Path:
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} is not set")
    folder = Path(root) / part if part else Path(root)
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture(scope="session")
def real_data():
    """``real_data("otoscopy")`` is that folder of $STILLROOM_DATA; the test is skipped without it."""
    return lambda part="": _folder("STILLROOM_DATA", part)


@pytest.fixture(scope="session")
def real_weights():
    """The folder $STILLROOM_WEIGHTS; the test is skipped without it."""
    return lambda part="": _folder("STILLROOM_WEIGHTS", part)


@pytest.fixture
def browse(tmp_path):
    """``browse(page, *flags)`` opens a page in Chromium and gives what it prints; the test is skipped without it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    quiet = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
        "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
    )  # fmt: skip

    def run(page: Path, *flags: str) -> str:
        command = [browser, *quiet, *flags, page.as_uri()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path)
        late = threading.Timer(120, process.kill)
        late.start()
        printed = ""
        for line in process.stdout:
            printed += line
            if "</html>" in line:  # on a busy machine it may print the page and then not end
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=2)
                process.kill()
        late.cancel()
        assert process.wait() == 0 or "</html>" in printed, "Chromium did not show the page"
        return printed

    return run


def draw(kind: int, rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """``[side, side]`` uint8: noise with a bright square whose place tells the class: easy, but not trivial."""
    image = rng.normal(90, 25, (side, side))
    top, left = [(2, 2), (2, side // 2), (side // 2, 2), (side // 2, side // 2)][kind]
    top, left = top + rng.integers(0, 4), left + rng.integers(0, 4)
    image[top : top + side // 4, left : left + side // 4] += 60
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """A folder of two class folders with 60 grey pictures each, no split."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for kind, name in enumerate(("left", "right")):
        (root / name).mkdir()
        for number in range(60):
            Image.fromarray(draw(kind, rng)).save(root / name / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def tiny_run(picture_folder, tmp_path_factory):
    """A finished run with student, control and teacher on ``picture_folder``, four images explained. To be read only."""
    import stillroom

    settings = stillroom.Settings(
        str(picture_folder),
        data=stillroom.DataSettings(size=32),
        views=stillroom.ViewSettings(views=2),
        teacher=stillroom.TeacherSettings("test_vit", pretrained=False, teacher_size=32),
        student=stillroom.StudentSettings("resnet10t_050"),
        training=stillroom.TrainingSettings(epochs=3, batch_size=16, lr=3e-3),
        evaluation=stillroom.EvaluationSettings(resamples=100, latency=False, refusals=0.1, explain=4),
        device="cpu",
    )
    return stillroom.distill(settings, tmp_path_factory.mktemp("tiny") / "run", show_progress=False)


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """A copy of ``tiny_run`` to be changed."""
    from stillroom.run.folder import Run

    return Run.open(shutil.copytree(tiny_run.path, tmp_path / "run"))


@pytest.fixture
def reseal():
    """``reseal(model, path)`` writes an ONNX model with another digest of its own, as an exporter that meant it would."""
    import onnx

    from stillroom.files.digests import record
    from stillroom.files.own_digest import BLANK, KEY, with_own_digest

    def write(model, path):
        kept = {entry.key: entry.value for entry in model.metadata_props}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, kept | {KEY: BLANK})
        path.write_bytes(with_own_digest(model.SerializeToString()))
        record(path)

    return write


@pytest.fixture
def old_run(own_run):
    """What an earlier Stillroom left: format 1, no digests, no rules, no maps, and settings that know of none."""
    import onnx
    import yaml

    run = own_run
    shutil.rmtree(run.path / "explanations", ignore_errors=True)
    for name in ("density.npz", "foreign_scores.npz", "images.parquet"):
        (run.path / name).unlink(missing_ok=True)
    run.note(data_fingerprint="0" * 32)  # it was one of the files' dates
    new_parts = ("conformal", "ood", "explanation", "operating_points", "decision_curves")
    metrics = {key: part for key, part in run.metrics.items() if key not in new_parts}
    (run.path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    settings = yaml.safe_load((run.path / "settings.yaml").read_text(encoding="utf-8"))
    old = ("control", "margin", "resamples", "latency")
    settings["evaluation"] = {key: value for key, value in settings["evaluation"].items() if key in old}
    (run.path / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    model = onnx.load(run.path / "student.onnx")
    (run.path / "digests.jsonl").unlink(missing_ok=True)
    manifest = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
    del manifest["digests"]
    (run.path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    new = ("layer", "hidden", "explanation", "conformal", "foreign", "points", "sha256")
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key.removeprefix("stillroom.") not in new}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept | {"stillroom.format": "1"})
    onnx.save(model, run.path / "student.onnx")
    return type(run).open(run.path)


class ArrayReader:
    """An ImageReader over arrays in memory."""

    def __init__(self, images: list[np.ndarray], tag: str = "") -> None:
        self.images, self.tag = images, tag

    def read(self, index):
        return self.images[index]

    def read_mask(self, index):
        return None

    def made_of(self, index):
        return f"{self.tag}{hash(self.images[index].tobytes())}"


@pytest.fixture
def toy():
    """``toy(task, count)`` gives TrainingData of drawn pictures at 32 px: two thirds train, one sixth val and test."""
    import torch

    from stillroom.data.images import Images
    from stillroom.data.store import build_store
    from stillroom.data.table import Table
    from stillroom.settings.sections import ViewSettings
    from stillroom.task import MultiClass
    from stillroom.training.loop import TrainingData

    def make(task=None, count=96, views=None, seed=0):
        task, views = task or MultiClass(("left", "right")), views or ViewSettings(views=2)
        rng = np.random.default_rng(seed)
        kinds = rng.integers(0, min(len(task.classes), 4), count)
        targets = kinds if task.exclusive else np.eye(len(task.classes), dtype=np.uint8)[kinds]
        table = Table(
            name="toy",
            source="toy pictures",
            task=task,
            ids=np.array([f"{n:03d}" for n in range(count)]),
            targets=targets,
            splits=np.array(["train", "train", "train", "train", "val", "test"] * (count // 6)),
            rows=np.arange(count),
            reader=ArrayReader([draw(kind, rng) for kind in kinds]),
        )
        store, table, _ = build_store(table, size=32, fit="pad", progress=False)
        images = Images(store, torch.device("cpu"), views, seed)
        return TrainingData(images, targets, task, table.indices("train"), table.indices("val"))

    return make
