"""Runs that cannot begin, and runs that are stopped: what is left behind, what is said, and that nothing done is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
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

PROVE = pytest.mark.prove

FROZEN = TeacherSettings("test_vit", pretrained=False, teacher_size=32)


def settings(source, **changes):
    quick = {
        "data": DataSettings(size=32),
        "views": ViewSettings(views=2),
        "teacher": FROZEN,
        "student": StudentSettings("test_resnet"),
        "training": TrainingSettings(epochs=2, batch_size=16),
        "evaluation": EvaluationSettings(resamples=100, latency=False, explain=0),
        "device": "cpu",
    }
    return Settings(str(source), **quick | changes)


# -- refused before anything takes long -----------------------------------------------------------------------------
class GradesOnly(Baseline):
    """A recipe of one's own for one kind of task."""

    name = "grades"
    kinds = frozenset({"ordinal"})


@pytest.fixture
def refuse(tmp_path, monkeypatch):
    """``refuse(settings)``: the message; no image is decoded, no folder made."""

    def decode(*_, **__):
        raise AssertionError("The images were decoded before the settings were checked.")

    monkeypatch.setattr("stillroom.run.preparing.prepare", decode)
    monkeypatch.chdir(tmp_path)

    def run(wanted, out=None):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError) as caught:
            stillroom.distill(wanted, out, show_progress=False)
        assert sorted(tmp_path.rglob("*")) == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"student": StudentSettings("mobilenetv3_smal_050")}, "Did you mean mobilenetv3_small_050"),
        ({"teacher": TeacherSettings("vit_smal_patch14_dinov2")}, "Did you mean vit_small_patch14_dinov2"),
        ({"teacher": TeacherSettings("test_vit", teacher_size=50)}, "test_vit takes images of a multiple of 16 pixels"),
        ({"teacher": TeacherSettings("test_vit", weights=Path("nowhere"))}, "there is no such file or folder"),
        ({"teacher": TeacherSettings("resnet18_28")}, "timm's hub has no weights for resnet18_28"),
        ({"student": StudentSettings("resnet18_28", student_pretrained=True)}, "has no weights for resnet18_28"),
        (
            {
                "student": StudentSettings(
                    "mobilenetv2_035", student_from="mobilenetv2_050", student_weights=Path("none")
                )
            },
            "none: there is no such file or folder",
        ),
        ({"recipe": MedAlmighty(paper_softmax=True)}, "paper_softmax reproduces a multi-label choice"),
        ({"recipe": GradesOnly()}, "Recipe grades supports ordinal tasks; this data set's is binary"),
    ],
)
def test_wrong_settings_are_refused_before_the_images_are_decoded(refuse, picture_folder, changes, words):
    assert words in refuse(settings(picture_folder, **changes))


def test_a_folder_without_the_teachers_weights(refuse, picture_folder, tmp_path):
    (tmp_path / "weights").mkdir()
    wanted = settings(picture_folder, teacher=TeacherSettings("test_vit", weights=tmp_path / "weights"))
    assert f"No weights for test_vit in {tmp_path / 'weights'}: none of test_vit" in refuse(wanted)


def test_without_weights_and_without_a_network_the_answer_comes_at_once(refuse, picture_folder, monkeypatch):
    from stillroom.models import hub

    def unreachable(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub, "_from_hub", unreachable)
    wanted = settings(picture_folder, teacher=TeacherSettings("vit_small_patch14_dinov2"))
    assert "Give --weights with a file or folder that holds them" in refuse(wanted)


def test_a_device_that_is_not_there(refuse, picture_folder):
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has an mps device")
    assert "has no mps device" in refuse(settings(picture_folder, device="mps"))


def test_weights_of_another_architecture_leave_no_folder(picture_folder, tmp_path):
    import torch

    from stillroom.models.zoo import create

    file = tmp_path / "other.pth"
    torch.save(create("test_resnet", classes=2).backbone.state_dict(), file)
    wanted = settings(picture_folder, teacher=TeacherSettings("test_vit", teacher_size=32, weights=file))
    with pytest.raises(UsageError, match=r"other\.pth.*test_vit"):
        stillroom.distill(wanted, tmp_path / "runs" / "a", show_progress=False)
    assert not (tmp_path / "runs" / "a").exists()


def test_a_diverged_run_leaves_nothing_to_resume(picture_folder, tmp_path, capsys):
    """It would diverge again, so no command to go on is named."""
    flags = "--recipe baseline --student test_resnet --size 32 --views 2 --batch-size 8 --lr 1e12 --optimizer sgd"
    with pytest.raises(SystemExit) as stop:
        main(["distill", str(picture_folder), *flags.split(), "--out", str(tmp_path / "run")])
    assert stop.value.code == 1
    assert capsys.readouterr().err.endswith("training diverged. Lower --lr, or use --precision 32.\n")
    assert not (tmp_path / "run").exists()


def test_a_full_accelerator_is_one_line(picture_folder, tmp_path, monkeypatch):
    import torch

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(MedAlmighty, "run", full)
    with pytest.raises(RunError, match=r"memory is full\. Lower --batch-size"):
        stillroom.distill(settings(picture_folder), tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


# -- stopped and resumed ----------------------------------------------------------------------------------------------
def weights(folder):
    return load_file(folder / "student" / "model.safetensors")


def assert_equal_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def undisturbed(picture_folder, tmp_path_factory):
    return stillroom.distill(settings(picture_folder), tmp_path_factory.mktemp("u") / "run", show_progress=False).path


@pytest.mark.slow
def test_ctrl_c_names_the_command_that_goes_on(picture_folder, tmp_path):
    folder = tmp_path / "a run"
    flags = "--recipe baseline --student test_resnet --size 32 --views 2 --batch-size 8 --epochs 20 --resamples 100"
    flags += " --no-latency --explain 0 --no-plan"
    command = [sys.executable, "-m", "stillroom", "distill", str(picture_folder), *flags.split()]
    # A job started in the background of a script would hand down that Ctrl-C is to be ignored.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen([*command, "--out", str(folder)], stderr=subprocess.PIPE, text=True, **heed) as process:
        history = folder / "history.jsonl"
        while process.poll() is None and not (history.exists() and history.read_text().count("\n") >= 2):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert said == f"error: Stopped. Go on with `stillroom distill --resume '{folder}'`.\n"
    done = len(history.read_text().splitlines())
    assert 2 <= done < 20
    main(["distill", "--resume", str(folder)])
    run = stillroom.Run.open(folder)
    assert run.finished
    assert [line["epoch"] for line in run.history()] == list(range(1, 21))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stop_while_decoding_leaves_nothing(picture_folder, tmp_path, monkeypatch, capsys, request, number, code):
    import stillroom.data.decoding as decoding

    def interrupted(*_):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "_white", interrupted)
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore it
    request.addfinalizer(lambda: signal.signal(number, before))
    flags = [
        "--no-plan",
        "--no-pretrained",
        "--teacher",
        "test_vit",
        "--teacher-size",
        "32",
        "--out",
        str(tmp_path / "run"),
    ]
    with pytest.raises(SystemExit) as stop:
        main(["distill", str(picture_folder), *flags])
    assert stop.value.code == code
    assert capsys.readouterr().err == "error: Stopped. No run was begun yet: give the same command again.\n"
    assert not (tmp_path / "run").exists()
    assert list((tmp_path / "cache" / "stores").iterdir()) == []


@pytest.mark.slow
def test_a_stopped_run_goes_on_from_another_folder(picture_folder, undisturbed, tmp_path, monkeypatch):
    """Its settings hold the whole path of its source."""
    monkeypatch.chdir(picture_folder.parent)
    log = stillroom.Run.log

    def stop_after_one(run, line):
        log(run, line)
        raise KeyboardInterrupt

    monkeypatch.setattr(stillroom.Run, "log", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        stillroom.distill(settings(picture_folder.name), tmp_path / "run", show_progress=False)
    monkeypatch.setattr(stillroom.Run, "log", log)
    monkeypatch.chdir(tmp_path)
    run = stillroom.resume("run", show_progress=False)
    assert run.finished
    assert_equal_weights(run.path, undisturbed)


# -- a full disk ------------------------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path):
    """``small_disk(kilobytes)``: a file system of its own with that much free; ``small_disk(None)`` makes room."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")

    def leave(kilobytes):
        ballast = place / "ballast"
        ballast.unlink(missing_ok=True)
        if kilobytes is not None:
            ballast.write_bytes(bytes(shutil.disk_usage(place).free - 1024 * kilobytes))
        return place

    yield leave
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk as Linux does")
# Too little for the manifest, the best weights, a checkpoint.
@pytest.mark.parametrize("kilobytes", [pytest.param(4, marks=PROVE), 100, pytest.param(2500, marks=PROVE)])
def test_the_disk_of_the_run_fills_up(small_disk, picture_folder, undisturbed, kilobytes):
    folder = small_disk(kilobytes) / "run"
    with pytest.raises(RunError, match=r"^The disk is full: .* could not be written\. Make room\.") as caught:
        stillroom.distill(settings(picture_folder), folder, show_progress=False)
    assert not list(folder.rglob("*.tmp"))
    small_disk(None)
    if kilobytes == 4:
        assert not folder.exists()
        run = stillroom.distill(settings(picture_folder), folder, show_progress=False)
    else:
        assert caught.value.__notes__ == [f"Go on with `stillroom distill --resume {folder}`."]
        run = stillroom.resume(folder, show_progress=False)
    assert_equal_weights(run.path, undisturbed)
    assert run.metrics["test"] == json.loads((undisturbed / "metrics.json").read_text())["test"]
    assert [(line["role"], line["epoch"]) for line in run.history()] == [
        *(("student", 1), ("student", 2), ("control", 1), ("control", 2))
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk as Linux does")
# Too little for the store, for the teacher's answers.
@pytest.mark.parametrize("kilobytes", [pytest.param(100, marks=PROVE), 305])
def test_the_disk_of_the_cache_fills_up(small_disk, picture_folder, undisturbed, tmp_path, monkeypatch, kilobytes):
    monkeypatch.setenv("STILLROOM_CACHE", str(small_disk(kilobytes) / "cache"))
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=r"The disk is too full for .*Make room, or set STILLROOM_CACHE"):
        stillroom.distill(settings(picture_folder), folder, show_progress=False)
    assert folder.exists() == (kilobytes == 305)
    small_disk(None)
    if folder.exists():
        stillroom.resume(folder, show_progress=False)
    else:
        stillroom.distill(settings(picture_folder), folder, show_progress=False)
    assert_equal_weights(folder, undisturbed)


# -- data that change under a run, and splits that cannot select ------------------------------------------------------
def table_of(folder, target, split=None):
    """A CSV of the pictures with patients of two images each; ``split`` maps a row number to its split."""
    names = sorted(path for path in folder.rglob("*.png"))
    rows = ["path,label,patient" + (",split" if split else "")]
    for number, path in enumerate(names):
        rows.append(f"{path},{path.parent.name},p{number // 2}" + (f",{split(number)}" if split else ""))
    target.write_text("\n".join(rows) + "\n")
    return target


def test_a_run_does_not_go_on_with_other_patients(picture_folder, tmp_path, monkeypatch):
    table = table_of(picture_folder, tmp_path / "table.csv")
    with monkeypatch.context() as stopping:
        stopping.setattr(
            "stillroom.run.stages.evaluation.assess", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            stillroom.distill(settings(table, recipe=Baseline()), tmp_path / "run", show_progress=False)
    whole = table.read_text()
    table.write_text(whole.replace(",p1\n", ",p0\n"))
    with pytest.raises(RunError, match=r"with another patient .*: p1, now p0\)"):
        stillroom.resume(tmp_path / "run", show_progress=False)
    table.write_text(whole)
    assert stillroom.resume(tmp_path / "run", show_progress=False).finished


def test_validation_of_one_class_selects_by_likelihood(picture_folder, tmp_path):
    def split(number):  # the first 60 rows are one class
        return "val" if number < 20 else "test" if number % 5 == 0 else "train"

    table = table_of(picture_folder, tmp_path / "table.csv", split)
    run = stillroom.distill(settings(table), tmp_path / "run", show_progress=False)
    assert run.finished
    assert run.manifest["teacher_head"]["validation"] is None
    assert all(line["val"]["value"] is None for line in run.history())


def test_dropping_leaks_does_not_empty_a_split_in_silence(picture_folder, tmp_path):
    for split in ("train", "val", "test"):
        for kind in ("left", "right"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            images = sorted((picture_folder / kind).iterdir())
            for path in images[:20] if split == "train" else images[20:40]:
                shutil.copy(path, tmp_path / "data" / split / kind / path.name)
    with pytest.raises(UsageError, match="no val image left"):
        stillroom.load_data(tmp_path / "data", DataSettings(size=32, drop_leaks=True), show_progress=False)


def test_an_objective_that_the_bank_cannot_serve_is_refused(picture_folder, tmp_path, monkeypatch):
    from stillroom.distillation.objectives.hybrid import HybridLoss

    monkeypatch.setattr(HybridLoss, "needs", frozenset({"teacher_logits", "map"}))
    with pytest.raises(
        UsageError, match=r"HybridLoss needs the teacher's map, for which its recipe did not ask: the bank holds pooled"
    ):
        stillroom.distill(settings(picture_folder), tmp_path / "run", show_progress=False)


def test_a_negative_seed_is_refused(picture_folder):
    with pytest.raises(UsageError, match="seed must be at least 0"):
        stillroom.load_data(picture_folder, seed=-1)
    with pytest.raises(UsageError, match="seed must be at least 0"):
        Settings("x", seed=-1)


# -- stopped after the student was trained --------------------------------------------------------------------------
def test_a_run_stopped_in_its_control_can_be_used(picture_folder, tmp_path, monkeypatch):
    """Its file answers as the finished run's does: the temperature and the rules need no control."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(MedAlmighty, "control", stop)
        with pytest.raises(KeyboardInterrupt):
            stillroom.distill(settings(picture_folder), tmp_path / "run", show_progress=False)
    run = stillroom.Run.open(tmp_path / "run")
    assert not run.finished
    paths = sorted((picture_folder / "left").iterdir())[:5]
    early = run.predictor()
    said = early.predict(paths)
    assert early.metadata.explanation is None
    done = stillroom.resume(tmp_path / "run", show_progress=False).predictor()
    assert [one.probabilities for one in said] == [one.probabilities for one in done.predict(paths)]
    for name in ("conformal", "foreign", "points"):
        assert getattr(early.metadata, name) == getattr(done.metadata, name)


@pytest.mark.prove
def test_a_run_killed_in_its_control_can_be_used(picture_folder, tmp_path):
    folder = tmp_path / "run"
    flags = "--student test_resnet --teacher test_resnet --teacher-mode finetune --no-pretrained --teacher-epochs 1 --size 32"
    flags += " --epochs 30 --batch-size 8 --resamples 100 --no-latency --explain 0 --no-plan"
    command = [sys.executable, "-m", "stillroom", "distill", str(picture_folder), *flags.split(), "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        history = folder / "history.jsonl"
        while process.poll() is None and not (history.exists() and '"control"' in history.read_text()):
            time.sleep(0.02)
        process.kill()
    assert not (folder / "control" / "model.json").exists(), "the control was done before the run could be killed"
    answer = subprocess.run(
        [sys.executable, "-m", "stillroom", "predict", str(folder), str(picture_folder / "left"), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert len(json.loads(answer.stdout)) == 60
