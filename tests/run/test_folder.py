"""The run folder: what makes one, what it refuses, and that damage is named and not stumbled over."""

import errno
import hashlib
import json
import tempfile

import pytest

from stillroom import DataSettings, RunError, Settings, TrainingSettings, UsageError
from stillroom.files.atomic import append_line
from stillroom.run.claims import require_vacant
from stillroom.run.folder import Run

SETTINGS = Settings("phantoms:50", data=DataSettings(classes=("a b", "ü")), training=TrainingSettings(lr=1e-5), seed=3)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs" / "first", SETTINGS)


def test_a_new_folder_says_what_is_to_be_run(run):
    assert sorted(path.name for path in run.path.iterdir()) == ["digests.jsonl", "manifest.json", "settings.yaml"]
    assert Run.open(run.path).settings == SETTINGS
    assert Run.open(str(run.path)).settings == SETTINGS
    assert run.manifest["source"] == "phantoms:50"
    assert {"stillroom", "torch", "timm", "onnxruntime"} <= set(run.manifest["versions"])
    assert not run.finished


def test_notes_and_stages_add_up(run):
    run.note(task={"kind": "binary", "classes": ["a", "b"]})
    with run.stage("train"):
        pass
    with pytest.raises(ValueError), run.stage("fails"):
        raise ValueError
    assert run.manifest["durations_s"] == {"train": 0.0, "fails": 0.0}
    assert run.task.classes == ("a", "b")
    assert run.manifest["seed"] == 3


def test_what_exists_is_left_alone(run, tmp_path):
    with pytest.raises(UsageError, match="exists already: go on with it by `stillroom distill --resume"):
        Run.create(run.path, SETTINGS)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"notes exists already: choose another --out"):
        require_vacant(tmp_path / "notes")
    with pytest.raises(UsageError, match=r"exists already"):
        require_vacant(tmp_path / "notes" / "mine.txt")
    (tmp_path / "empty").mkdir()
    require_vacant(tmp_path / "empty")
    require_vacant(tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a").exists()


def test_places_that_cannot_hold_a_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file is a file\. Choose another --out"):
        require_vacant(tmp_path / "file" / "run")

    def refused(dir):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)  # root may write anywhere
    with pytest.raises(UsageError, match=r"Permission denied\. Choose another --out"):
        require_vacant(tmp_path / "run")


def test_a_folder_left_half_made_is_removed(tmp_path, monkeypatch):
    def full(*_, **__):
        raise RunError("The disk is full.")

    monkeypatch.setattr(Run, "note", full)
    with pytest.raises(RunError):
        Run.create(tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run").exists()


def test_discarding_spares_what_was_trained(run):
    run.log({"role": "student", "epoch": 1})
    run.discard()
    assert run.path.exists()
    (run.path / "history.jsonl").unlink()
    run.discard()
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("settings.yaml", "source: [", "settings.yaml is not valid YAML"),
        ("settings.yaml", "seed: 1", "`source` is missing"),
        ("manifest.json", '{"created"', "manifest.json was changed or damaged after it was written: put back a copy"),
    ],
)
def test_damage_is_named(run, name, text, words):
    (run.path / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        _ = Run.open(run.path).manifest


def test_what_is_no_run(run, tmp_path):
    with pytest.raises(UsageError, match="There is no run folder"):
        Run.open(tmp_path / "nowhere")
    (run.path / "manifest.json").unlink()
    with pytest.raises(UsageError, match="is not a run folder: it has no settings"):
        Run.open(run.path)


def test_what_is_not_there_yet_and_how_to_get_it(run):
    for ask in (lambda: run.metrics, run.predictions, run.student, run.predictor):
        with pytest.raises(
            UsageError, match=r"is not there\. The run has not finished\. Go on with `stillroom distill"
        ):
            ask()
    run.report.touch()  # written last
    assert run.finished
    with pytest.raises(UsageError, match=r"student\.onnx is not there\.$"):
        run.predictor()


def test_how_to_resume_can_be_pasted_into_a_shell(tmp_path):
    assert Run(tmp_path / "it's here", SETTINGS).how_to_resume.endswith("it'\"'\"'s here'`.")


def test_finishing_hashes_what_it_leaves_and_clears_away(run):
    (run.path / "checkpoints" / "student").mkdir(parents=True)
    (run.path / "student").mkdir()
    (run.path / "student" / "model.safetensors").write_bytes(b"weights")
    run.finish()
    assert not (run.path / "checkpoints").exists()
    assert run.manifest["sha256"] == {"student/model.safetensors": hashlib.sha256(b"weights").hexdigest()}


def test_history_survives_a_line_cut_short(run):
    """As a killed process leaves it: the half line is passed over, and the next one takes its place."""
    run.log({"role": "student", "epoch": 1, "loss": 1.0})
    with (run.path / "history.jsonl").open("a") as file:
        file.write('{"role": "stud')
    assert [line["epoch"] for line in run.history()] == [1]
    run.log({"role": "student", "epoch": 2, "loss": 0.5})
    run.log({"role": "student", "epoch": 2, "loss": 0.4})  # repeated after the checkpoint was lost
    run.log({"role": "control", "epoch": 1, "loss": 2.0})
    assert [(line["role"], line["epoch"], line["loss"]) for line in run.history()] == [
        ("student", 1, 1.0),
        ("student", 2, 0.4),
        ("control", 1, 2.0),
    ]
    assert len([json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]) == 4
    with pytest.raises(ValueError):
        run.log({"loss": float("nan")})
    assert len(run.history()) == 3


def test_a_line_that_cannot_be_written(tmp_path):
    with pytest.raises(RunError, match="could not be written: Is a directory"):
        append_line(tmp_path, "line")


def test_json_is_whole_or_not_there(run):
    run.note(name="ü")
    assert json.loads((run.path / "manifest.json").read_text("utf-8"))["name"] == "ü"
    assert not list(run.path.glob(".*"))


@pytest.mark.parametrize("content", ["[]", "null", "[" * 100_000])
def test_a_file_that_holds_no_object_is_named(run, content):
    (run.path / "metrics.json").write_text(content)
    with pytest.raises(UsageError, match=r"metrics\.json is damaged: it [^\n]+\.$"):
        _ = run.metrics
