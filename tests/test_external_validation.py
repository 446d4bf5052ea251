"""A finished run tested on other images, through the exported file alone."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score

import stillroom
from stillroom import (
    Baseline,
    DataSettings,
    EvaluationSettings,
    Settings,
    StudentSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
)


@pytest.fixture(scope="module")
def run(picture_folder, tmp_path_factory):
    settings = Settings(
        str(picture_folder),
        recipe=Baseline(),
        data=DataSettings(size=32),
        views=ViewSettings(views=2),
        student=StudentSettings("test_resnet"),
        training=TrainingSettings(epochs=1, batch_size=16),
        evaluation=EvaluationSettings(resamples=100, latency=False),
        device="cpu",
    )
    return stillroom.distill(settings, tmp_path_factory.mktemp("runs") / "first", show_progress=False)


@pytest.fixture
def pictures(picture_folder, tmp_path):
    return shutil.copytree(picture_folder, tmp_path / "other clinic")


def evaluate(run, source, **options):
    return stillroom.evaluate(run, source, show_progress=False, **options)


def chances(run, images):
    return np.array([answer.probabilities["right"] for answer in run.predictor().predict(images)])


def test_figures_are_those_of_the_predictor(run, pictures):
    found = evaluate(run, pictures)
    images = [pictures / side / f"{number:03d}.png" for side in ("left", "right") for number in range(60)]
    truth, chance = np.repeat([0, 1], 60), chances(run, images)
    figures = found["test"]["student"]
    assert figures["auc"]["value"] == pytest.approx(roc_auc_score(truth, chance), abs=1e-9)
    assert figures["accuracy"]["value"] == pytest.approx(accuracy_score(truth, chance > 0.5), abs=1e-9)
    assert figures["images"] == 120
    assert found["split"] == "all"
    assert found["quarantined"] == []
    written = run.path / "evaluations" / "other-clinic-all.json"
    assert json.loads(written.read_text("utf-8")) == json.loads(json.dumps(found))


def test_classes_in_another_order_or_fewer_of_them(run, pictures):
    straight = evaluate(run, pictures)
    turned = evaluate(run, pictures, data=DataSettings(classes=("right", "left")))
    assert turned["test"] == straight["test"]


def test_unreadable_images_are_named(run, pictures):
    (pictures / "left" / "000.png").write_bytes(b"")
    (pictures / "right" / "059.png").write_bytes(b"no image")
    found = evaluate(run, pictures)
    assert [entry["path"] for entry in found["quarantined"]] == ["left/000.png", "right/059.png"]
    assert found["test"]["student"]["images"] == 118
    assert any(note.startswith("2 images could not be read") for note in found["notes"])
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="None of the 120 images"):
        evaluate(run, pictures)


def test_splits_are_the_sources_own(run, pictures):
    for split, numbers in (("train", range(40)), ("test", range(40, 60))):
        for side in ("left", "right"):
            (pictures / split / side).mkdir(parents=True)
            for number in numbers:
                shutil.move(pictures / side / f"{number:03d}.png", pictures / split / side)
    shutil.rmtree(pictures / "left")
    shutil.rmtree(pictures / "right")
    counts = {
        split: evaluate(run, pictures, split=split)["test"]["student"]["images"] for split in ("auto", "train", "all")
    }
    assert counts == {"auto": 40, "train": 80, "all": 120}
    assert evaluate(run, pictures)["split"] == "test"
    with pytest.raises(UsageError, match=r"has no val split; it has test, train\. Give --split all"):
        evaluate(run, pictures, split="val")


def test_what_cannot_be_compared(run, picture_folder, tmp_path):
    with pytest.raises(UsageError, match="its images are in no split"):
        evaluate(run, picture_folder, split="test")
    with pytest.raises(UsageError, match=r"'normal', which the model does not know\. The model's classes: left, right"):
        evaluate(run, "phantoms:40")
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\n{picture_folder}/left/000.png,left;right\n{picture_folder}/left/001.png,left\n")
    with pytest.raises(UsageError, match="trained on binary labels, labels has multilabel ones"):
        evaluate(run, table)


def test_the_model_decides_which_medmnist_file_is_read(run, monkeypatch):
    asked = []

    def read(flag, settings):
        asked.append((flag, settings.size, settings.resolution))
        raise UsageError("enough")

    monkeypatch.setattr("stillroom.data.sources.medmnist.read_medmnist", read)
    with pytest.raises(UsageError, match="enough"):
        evaluate(run, "breastmnist")
    assert asked == [("breastmnist", 32, None)]


def test_other_sizes_shapes_and_colours_are_made_to_fit(run, tmp_path):
    rng = np.random.default_rng(0)
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        Image.fromarray(rng.integers(0, 256, (50, 90, 3), np.uint8)).save(tmp_path / side / "colour.png")
        Image.fromarray(rng.integers(0, 255, (20, 20), np.uint8)).save(tmp_path / side / "small.jpg")
    assert evaluate(run, tmp_path)["test"]["student"]["images"] == 4
