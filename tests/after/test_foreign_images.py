"""A finished run's exported student asked about images that are not of its kind."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from stillroom import UsageError
from stillroom.after.foreign_images import evaluate_foreign
from stillroom.files.atomic import write_arrays, write_json
from stillroom.run.stages.export import export_student


@pytest.fixture
def holiday(tmp_path):
    """Twelve colour pictures of stripes, without class folders."""
    rng, folder = np.random.default_rng(0), tmp_path / "holiday"
    folder.mkdir()
    for number in range(12):
        stripes = (np.indices((40, 60)).sum(axis=0) // rng.integers(1, 9) % 2 * 255).astype(np.uint8)
        Image.fromarray(np.stack([stripes, stripes, 255 - stripes], axis=-1)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def unwritten(own_run, monkeypatch):
    """``own_run``, whose pages are not written anew, which takes most of the time."""
    for name in ("write_report", "write_model_card"):
        monkeypatch.setattr(f"stillroom.report.{name}", lambda path: None)
    return own_run


def asked(run, source, **settings):
    return evaluate_foreign(run, source, show_progress=False, **settings)


def scores(run, paths):
    return [answer.foreign_score for answer in run.predictor().predict(list(paths))]


def test_figures_are_those_of_the_predictor(unwritten, picture_folder, holiday):
    found = asked(unwritten, holiday)
    frame = unwritten.predictions()
    inside = scores(unwritten, [picture_folder / name for name in frame.loc[frame["split"] == "test", "id"]])
    outside = scores(unwritten, sorted(holiday.iterdir()))
    truth = np.repeat([0, 1], [len(inside), len(outside)])
    assert (found["name"], found["images"], found["source"]) == ("holiday", 12, str(holiday))
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, [*inside, *outside]), abs=0.01)
    limit = unwritten.metrics["ood"]["rule"]["threshold"]
    assert found["refused"]["value"] == pytest.approx(np.mean(np.array(outside) > limit))
    assert found["quarantined"] == found["notes"] == []


def test_what_is_found_joins_the_runs_figures_and_its_report(own_run, holiday, tmp_path):
    before, report = own_run.metrics, own_run.report.read_text("utf-8")
    found = asked(own_run, holiday)
    assert own_run.metrics["ood"]["against"] == [json.loads(json.dumps(found))]
    assert own_run.metrics["ood"] | {"against": []} == before["ood"]
    assert {key: part for key, part in own_run.metrics.items() if key != "ood"} == {
        key: part for key, part in before.items() if key != "ood"
    }
    assert own_run.report.read_text("utf-8") != report
    assert "holiday" in own_run.report.read_text("utf-8")
    (holiday / "00.png").unlink()
    asked(own_run, holiday)  # once more: in place of the first
    other = holiday.rename(tmp_path / "other")
    asked(own_run, other)
    assert [(entry["name"], entry["images"]) for entry in own_run.metrics["ood"]["against"]] == [
        ("holiday", 11),
        ("other", 11),
    ]


def test_a_folder_with_class_folders_is_read_whatever_its_classes(unwritten, holiday):
    plain = asked(unwritten, holiday)
    for number, path in enumerate(sorted(holiday.iterdir())):
        target = holiday / ("beach" if number % 2 else "sea") / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    sorted_ = asked(unwritten, holiday)
    assert sorted_["images"] == 12
    assert sorted_["refused"] == plain["refused"]
    assert sorted_["auroc"]["value"] == pytest.approx(plain["auroc"]["value"], abs=1e-6)


def test_images_beside_folders_are_read_with_those_in_the_folders_and_without_masks(unwritten, holiday):
    (holiday / "more").mkdir()
    for number in (3, 4):
        (holiday / f"{number:02d}.png").rename(holiday / "more" / f"{number:02d}.png")
    for name in ("05_mask.png", "05_mask_1.png", "more/03_mask.png"):
        Image.new("L", (40, 40), 255).save(holiday / name)
    found = asked(unwritten, holiday)
    assert (found["images"], found["quarantined"]) == (12, [])
    assert found["notes"] == [f"Masks of images in {holiday} are left out: 3."]


def test_a_named_set_and_a_split(unwritten):
    found = asked(unwritten, "phantoms:30")
    assert found["images"] > 0
    assert "synthetic chest films" in found["source"]
    with pytest.raises(UsageError, match="split"):
        asked(unwritten, "phantoms:30", split="val")


def test_what_cannot_be_read_is_named(unwritten, holiday):
    (holiday / "03.png").write_bytes(b"no image")
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(holiday / "deep.png")
    found = asked(unwritten, holiday)
    assert found["images"] == 11
    assert [entry["path"] for entry in found["quarantined"]] == [str(holiday / "03.png"), str(holiday / "deep.png")]
    assert "values up to 4000" in found["quarantined"][1]["reason"]
    assert found["notes"] == [f"2 images could not be read; the first is {holiday / '03.png'}."]
    metrics = unwritten.metrics
    for path in holiday.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"None of the images of .*holiday could be read: the file is empty"):
        asked(unwritten, holiday)
    assert unwritten.metrics == metrics


def test_wrong_sources_are_refused(unwritten, tmp_path):
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="no image in the folder"):
        asked(unwritten, tmp_path / "bare")
    (tmp_path / "bare" / "notes.txt").write_text("none")
    with pytest.raises(UsageError, match="no image in the folder"):
        asked(unwritten, tmp_path / "bare")
    with pytest.raises(UsageError):
        asked(unwritten, tmp_path / "nowhere")
    with pytest.raises(UsageError):
        asked(unwritten, tmp_path / "bare" / "notes.txt")


def test_a_run_without_a_rule_says_why(unwritten, holiday):
    (unwritten.path / "foreign_scores.npz").unlink()
    metrics = unwritten.metrics
    metrics["ood"] = {"rule": None, "statement": "Foreign images are not refused: no class with two images."}
    write_json(unwritten.path / "metrics.json", metrics)
    with pytest.raises(UsageError, match="has no rule for foreign images: Foreign images are not refused: no class"):
        asked(unwritten, holiday)


def test_an_old_run_says_what_to_do(old_run, holiday):
    with pytest.raises(UsageError, match=r"has format 1.*export the model again"):
        asked(old_run, holiday)
    export_student(old_run)
    with pytest.raises(UsageError, match=r"made by an earlier Stillroom\. Train it again"):
        asked(old_run, holiday)


def test_whole_patients_are_resampled_where_they_are_known(unwritten, holiday):
    kept = dict(np.load(unwritten.path / "foreign_scores.npz", allow_pickle=False))
    alone = asked(unwritten, holiday)
    count = len(kept["energy"])
    kept["patients"] = np.array([f"p{number // 6}" for number in range(count)])
    write_arrays(unwritten.path / "foreign_scores.npz", kept)
    grouped = asked(unwritten, holiday)
    assert grouped["auroc"]["value"] == alone["auroc"]["value"]
    assert grouped["auroc"] != alone["auroc"]


def test_folders_of_one_name_are_told_apart(unwritten, holiday, tmp_path, monkeypatch):
    twin = shutil.copytree(holiday, tmp_path / "elsewhere" / "holiday")
    asked(unwritten, holiday)
    monkeypatch.chdir(twin.parent)
    asked(unwritten, "holiday")
    monkeypatch.chdir(holiday.parent)
    asked(unwritten, "holiday")  # the first once more
    against = unwritten.metrics["ood"]["against"]
    assert [entry["location"] for entry in against] == [str(twin), str(holiday)]
    assert [entry["name"] for entry in against] == [str(twin), "holiday"]
