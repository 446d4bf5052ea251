"""Runs of a second or two: small networks on small pictures, with everything that takes long switched off."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import stillroom
from stillroom import (
    DataSettings,
    EvaluationSettings,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
)
from stillroom.data.load import load_data
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench


@pytest.fixture
def quick(picture_folder):
    """``quick(recipe, training={...}, ...)``: settings of a small run, with other values for fields of its sections."""

    def make(recipe, **changed):
        settings = Settings(
            str(picture_folder),
            recipe,
            data=DataSettings(size=32),
            views=ViewSettings(views=1),
            teacher=TeacherSettings("test_resnet", pretrained=False, teacher_epochs=1),
            student=StudentSettings("test_efficientnet"),
            training=TrainingSettings(epochs=2, batch_size=16, lr=3e-3),
            evaluation=EvaluationSettings(resamples=100, latency=False, explain=0, rivals=False),
            device="cpu",
        )
        sections = {name: dataclasses.replace(getattr(settings, name), **values) for name, values in changed.items()}
        return dataclasses.replace(settings, **sections)

    return make


@pytest.fixture
def workbench(tmp_path):
    """``workbench(settings)``: the workbench of a new run, without export and report."""

    def make(settings):
        dataset = load_data(settings.source, settings.data, show_progress=False)
        run = Run.create(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", settings)
        return Workbench(run, dataset, show_progress=False)

    return make


@pytest.fixture
def strangers(tmp_path):
    """A folder of 24 pictures without labels."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(9).integers(0, 256, (24, 32, 32), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def distilled(quick, tmp_path):
    """``distilled(recipe, ...)``: a whole run."""
    return lambda recipe, **changed: stillroom.distill(quick(recipe, **changed), tmp_path / "run", show_progress=False)
