"""A run goes on with what it began with, wherever that is now, and says what else it is given."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file

import stillroom
from stillroom import (
    Baseline,
    DataSettings,
    EvaluationSettings,
    MedAlmighty,
    RunError,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
)
from stillroom.cli.app import main
from stillroom.run import pipeline
from stillroom.run.begun_with import FILE, same_data


@pytest.fixture
def pictures(picture_folder, tmp_path):
    """24 pictures of each class, one with a mask."""
    root = tmp_path / "here" / "pictures"
    for side in ("left", "right"):
        (root / side).mkdir(parents=True)
        for number in range(24):
            shutil.copy(picture_folder / side / f"{number:03d}.png", root / side)
    Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save(root / "left" / "005_mask.png")
    return root


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """``begin(source)``: a run that was stopped before its first stage."""

    def stop(*_):
        raise KeyboardInterrupt

    def begin(source, recipe=None, at=stop, **sections):
        quick = {
            "data": DataSettings(size=32),
            "views": ViewSettings(views=2),
            "teacher": TeacherSettings("test_vit", pretrained=False, teacher_size=32),
            "student": StudentSettings("test_resnet"),
            "training": TrainingSettings(epochs=2, batch_size=16),
            "evaluation": EvaluationSettings(resamples=100, latency=False, explain=0, rivals=False),
            "device": "cpu",
        }
        settings = Settings(str(source), recipe or Baseline(), **quick | sections)
        with monkeypatch.context() as stopping:
            if at is not None:
                stopping.setattr(pipeline, "carry_out", at)
            try:
                return stillroom.distill(settings, tmp_path / "run", show_progress=False)
            except KeyboardInterrupt:
                return stillroom.Run.open(tmp_path / "run")

    return begin


def refusal(run, kind=RunError, **places):
    with pytest.raises(kind) as caught:
        same_data(run, show_progress=False, **places)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table_of(folder, target, absolute=False):
    rows = ["path,label,patient,split"]
    for number, path in enumerate(sorted(folder.glob("*/0??.png"))):
        place = path if absolute else path.relative_to(target.parent)
        split = ("train", "train", "val", "test")[number // 2 % 4]
        rows.append(f"{place},{path.parent.name},p{number // 2},{split}")
    target.write_text("\n".join(rows) + "\n")
    return target


# -- elsewhere, and the same ----------------------------------------------------------------------------------------
def test_a_run_goes_on_with_its_images_in_another_place_to_the_same_weights(begin, pictures, tmp_path, monkeypatch):
    def train(stage, evidence):
        carry_out(stage, evidence)
        raise KeyboardInterrupt

    carry_out = pipeline.carry_out
    whole = begin(pictures, at=train)
    expected = load_file(whole.path / "student" / "model.safetensors")
    shutil.rmtree(whole.path)

    log = stillroom.Run.log

    def stop_after_an_epoch(run, line):
        log(run, line)
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(stillroom.Run, "log", stop_after_an_epoch)
        stopped = begin(pictures, at=None)
    assert len(stopped.history()) == 1
    settings = (stopped.path / "settings.yaml").read_bytes()

    moved = tmp_path / "there" / "pictures"
    shutil.copytree(pictures, moved, copy_function=shutil.copyfile)  # no times are kept
    shutil.rmtree(pictures)
    with pytest.raises(
        UsageError, match=r"here/pictures, which .* is not there any more\. Name its new place by --source"
    ):
        stillroom.resume(stopped.path, show_progress=False)
    monkeypatch.setattr("stillroom.data.store.decode_all", None)  # the store is known by the files' bytes
    monkeypatch.setattr(pipeline, "carry_out", train)
    with pytest.raises(SystemExit):
        main(["distill", "--resume", str(stopped.path), "--source", str(moved)])
    run = stillroom.Run.open(stopped.path)
    assert [line["epoch"] for line in run.history()] == [1, 2]
    found = load_file(run.path / "student" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert run.manifest["places"] == {"source": str(moved)}
    assert (run.path / "settings.yaml").read_bytes() == settings


def test_a_column_that_an_earlier_version_did_not_use_is_named(begin, pictures, tmp_path, monkeypatch):
    from stillroom.data.sources import columns

    table = table_of(pictures, tmp_path / "here" / "table.csv")
    table.write_text(table.read_text().replace("patient", "PatientID"))
    with monkeypatch.context() as earlier:
        earlier.setattr(columns, "_patients", lambda *_: columns._Near({}, ()))
        run = begin(table)
    said = refusal(run)
    assert "48 images with another patient (pictures/left/000.png: none, now p0" in said
    assert "Columns told by their names: 'PatientID' holds the patient" in said
    assert said.endswith("An earlier Stillroom did not use such columns. Put back what it was, or start a new run.")
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{head},subject", *(f"{row},s{number // 3}" for number, row in enumerate(rows))]))
    with pytest.raises(UsageError, match=r"several that may be meant: 'PatientID', 'subject'") as caught:
        same_data(run, show_progress=False)
    assert caught.value.__notes__ == [
        f"{run.path} goes on with the settings that it began with: start a new run by `stillroom distill --settings "
        f"{run.path / 'settings.yaml'}` and the flag."
    ]


def test_a_copy_in_another_place_and_format_shares_teacher_and_answers(begin, pictures, tmp_path, monkeypatch):
    def ask(stage, evidence):
        evidence.bench.teacher()
        raise KeyboardInterrupt

    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    teacher = TeacherSettings("test_vit", pretrained=False, teacher_size=32, teacher_mode="finetune", teacher_epochs=1)
    made = []
    for source in (pictures, tmp_path / "copy"):
        run = begin(source, MedAlmighty(), ask, teacher=teacher)
        made.append([len([*(tmp_path / "cache" / kind).iterdir()]) for kind in ("stores", "banks", "teachers")])
        shutil.rmtree(run.path)
        if source == pictures:
            for path in shutil.copytree(pictures, tmp_path / "copy").glob("*/*.png"):
                Image.open(path).save(path, "BMP")
    assert made == [[1, 2, 1], [2, 2, 1]]  # decoded anew, for the bytes are others, and no more than that


def test_a_touched_set_is_the_same(begin, pictures):
    run = begin(pictures)
    for path in pictures.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    assert same_data(run, show_progress=False)[1].fingerprint == run.manifest["data_fingerprint"]


def test_another_format_is_the_same_under_the_same_name(begin, pictures):
    run, path = begin(pictures), pictures / "right" / "003.png"
    Image.open(path).save(path, "BMP")
    assert same_data(run, show_progress=False)[1].fingerprint == run.manifest["data_fingerprint"]


@pytest.mark.parametrize("absolute", [False, True])
def test_a_table_and_its_images_move(begin, pictures, tmp_path, absolute):
    run = begin(table_of(pictures, tmp_path / "here" / "table.csv", absolute))
    (tmp_path / "far" / "away").mkdir(parents=True)
    moved = tmp_path / "far" / "away" / "here"
    (tmp_path / "here").rename(moved)
    _, dataset = same_data(run, source=table_of(moved / "pictures", moved / "table.csv", absolute), show_progress=False)
    assert dataset.fingerprint == run.manifest["data_fingerprint"]


def test_a_table_of_absolute_paths_moves_away_from_its_images(begin, pictures, tmp_path):
    """Ids are relative to the table. Those that the run knows stay, and with them the splits that are drawn by ids."""
    table = table_of(pictures, tmp_path / "here" / "table.csv", absolute=True)
    table.write_text(re.sub(r",(train|val|test|split)\n", "\n", table.read_text()))
    run = begin(table)
    (tmp_path / "a" / "b").mkdir(parents=True)
    table.rename(tmp_path / "a" / "b" / "table.csv")
    _, dataset = same_data(run, source=tmp_path / "a" / "b" / "table.csv", show_progress=False)
    assert dataset.table.ids[0] == "pictures/left/000.png"
    assert dataset.fingerprint == run.manifest["data_fingerprint"]


def test_images_without_labels_and_answers_move(begin, pictures, tmp_path):
    more = tmp_path / "here" / "more"
    shutil.copytree(pictures / "left", more, ignore=lambda _, names: [n for n in names if not n.startswith("01")])
    for path in more.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    answers = tmp_path / "here" / "votes.csv"
    rows = [f"{path.relative_to(pictures)},0.2,0.8" for path in sorted(pictures.glob("*/0??.png"))]
    answers.write_text("\n".join(["path,left,right", *rows]) + "\n")
    run = begin(pictures, MedAlmighty(), teacher=TeacherSettings(teacher_answers=answers))
    (tmp_path / "there").mkdir()
    answers.rename(tmp_path / "there" / "v.csv")
    assert "votes.csv, which" in refusal(run, UsageError)
    assert "began without unlabelled" in refusal(run, UsageError, unlabelled=more)
    placed, _ = same_data(run, teacher_answers=tmp_path / "there" / "v.csv", show_progress=False)
    assert placed.settings.teacher.teacher_answers == tmp_path / "there" / "v.csv"
    again, _ = same_data(stillroom.Run.open(run.path), show_progress=False)  # noted, so that it need not be named again
    assert again.settings == placed.settings
    (tmp_path / "there" / "v.csv").write_text("path,left,right\nleft/000.png,0.9,0.1\n")
    assert re.search(r"answers in .*v\.csv are not those that .*run began with", refusal(again))
    shutil.rmtree(run.path)

    run = begin(pictures, MedAlmighty(), training=TrainingSettings(epochs=2, batch_size=16, unlabelled=more))
    more.rename(tmp_path / "there" / "more")
    assert "Name its new place by --unlabelled" in refusal(run, UsageError)
    placed, dataset = same_data(run, unlabelled=tmp_path / "there" / "more", show_progress=False)
    assert dataset.fingerprint == run.manifest["data_fingerprint"]
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "there" / "more" / "010.png")
    assert "1 image with other pixels (unlabelled 010.png)" in refusal(placed)


# -- others by now ---------------------------------------------------------------------------------------------------
def repaint(path, keep=True):
    """Change one pixel of an uncompressed file; its size and, where asked, its time stay."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if keep:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_changed_is_named(begin, pictures):
    for path in pictures.glob("*/*.png"):
        Image.open(path).save(path, "BMP")
    run, left, right = begin(pictures), pictures / "left", pictures / "right"
    repaint(left / "000.png")
    repaint(left / "005_mask.png", keep=False)
    mask = np.asarray(Image.open(left / "005_mask.png")).copy()
    mask[3, 9] = 255
    Image.fromarray(mask).save(left / "005_mask.png")
    (right / "001.png").unlink()
    for number in (4, 5, 6, 7):
        Image.fromarray(np.full((32, 32), 30 * number, np.uint8)).save(right / f"new{number}.png")
    said = refusal(run)
    assert said == (
        f"{pictures} is not what {run.path} began with: 1 image gone or not readable (right/001.png); 4 images new "
        "(right/new4.png, right/new5.png, right/new6.png and 1 more); 1 image with other pixels (left/000.png); 1 image with "
        "another mask (left/005.png). Put back what it was, or start a new run."
    )


@pytest.mark.parametrize(
    ("line", "changed", "words"),
    [
        ("left,p1,train", "right,p1,train", "1 image with another label (pictures/left/002.png: left, now right)"),
        ("left,p1,train", "left,p0,train", "1 image with another patient (pictures/left/002.png: p1, now p0)"),
        ("left,p1,train", "left,,train", "1 image with another patient (pictures/left/002.png: p1, now none)"),
    ],
)
def test_a_changed_table_is_named(begin, pictures, tmp_path, line, changed, words):
    table = table_of(pictures, tmp_path / "here" / "table.csv")
    run, whole = begin(table), table.read_text()
    table.write_text(whole.replace(line, changed, 1))
    assert words in refusal(run)
    table.write_text(whole)
    assert same_data(run, show_progress=False)


def test_splits_and_order_are_named_where_nothing_else_changed(begin, pictures, tmp_path):
    table = table_of(pictures, tmp_path / "here" / "table.csv")
    run, whole = begin(table), table.read_text()
    table.write_text(whole.replace("p1,train", "p1,test"))
    assert "2 images with another split (pictures/left/002.png: train, now test" in refusal(run)
    head, *rows = whole.splitlines()
    table.write_text("\n".join([head, *reversed(rows)]) + "\n")
    assert "its rows stand in another order" in refusal(run)


def test_another_way_of_reading_is_said_to_be_one(begin, pictures, monkeypatch):
    run = begin(pictures)
    monkeypatch.setattr("stillroom.data.store.PREPROCESSING_VERSION", -1)
    assert "are the same, but this Stillroom reads them otherwise" in refusal(run)


def test_a_wrong_place_is_not_noted(begin, pictures, tmp_path):
    run = begin(pictures)
    other = shutil.copytree(pictures, tmp_path / "other")
    (other / "left" / "000.png").unlink()
    assert "1 image gone or not readable (left/000.png)" in refusal(run, source=other)
    assert "places" not in run.manifest


# -- runs of before ---------------------------------------------------------------------------------------------------
def as_before(run, predictions):
    """What an earlier Stillroom left: a fingerprint of the files' dates, and perhaps predictions."""
    frame = pd.read_parquet(run.path / FILE).rename(columns={"label": "target", "pixels": "digest"})
    (run.path / FILE).unlink()
    run.note(data_fingerprint="0" * 32)
    if predictions:
        frame.drop(columns="mask").to_parquet(run.path / "predictions.parquet", index=False)


def test_an_unfinished_run_of_before_cannot_be_proved_to_be_the_same(begin, pictures):
    run = begin(pictures)
    as_before(run, predictions=False)
    said = refusal(run)
    assert "was begun by an earlier Stillroom, which knew images by their files' dates" in said
    assert f"stillroom distill --settings {run.path / 'settings.yaml'}" in said


def test_a_run_of_before_is_known_by_its_predictions(begin, pictures):
    run = begin(pictures)
    as_before(run, predictions=True)
    assert same_data(run, show_progress=False)
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(pictures / "left" / "004.png")
    assert "1 image with other pixels (left/004.png)" in refusal(run)


# -- the command line --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["distill", "x", "--source", "y"], "--source goes with --resume"),
        (["distill", "--resume", "RUN", "--source", "y", "--seed", "1"], "so --seed cannot be given beside it"),
        (["evaluate", "RUN", "phantoms", "--source", "y"], "--source names the new place of the run's own images"),
    ],
)
def test_where_a_new_place_does_not_belong(begin, pictures, capsys, command, words):
    run = begin(pictures)
    with pytest.raises(SystemExit) as stop:
        main([str(run.path) if part == "RUN" else part for part in command])
    assert stop.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_relative_places_are_noted_as_absolute_ones(begin, pictures, tmp_path, monkeypatch):
    run = begin(pictures)
    shutil.copytree(pictures, tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    same_data(run, source="there", show_progress=False)
    assert Path(run.manifest["places"]["source"]) == tmp_path / "there"


@pytest.mark.parametrize("places", [["here"], "here", {"source": 3}])
def test_places_that_are_none_are_named(own_run, places):
    own_run.note(places=places)
    with pytest.raises(UsageError, match=r"manifest\.json is damaged: `places` should hold a path by name, found "):
        same_data(own_run)
