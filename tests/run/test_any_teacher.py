"""The same network teaches alike, whatever form it comes in; and a run says where it came from."""

import dataclasses
import shutil

import numpy as np
import pytest
import timm
import torch
from torch import nn

from stillroom import (
    DataSettings,
    EvaluationSettings,
    FromFactory,
    FromModule,
    RunError,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
    distill,
    resume,
)
from stillroom.cli.app import main
from stillroom.data.load import load_data
from stillroom.models.zoo import create
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench

BARE = EvaluationSettings(latency=False, explain=0, resamples=100, rivals=False, control=False)


def body(seed=0):
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=0, global_pool="").eval()


class Pooled(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, images):
        return self.part(images).mean((2, 3))


def exported(module, path, side=32):
    """The module as an ONNX file for any number of images."""
    torch.onnx.export(
        module.eval(),
        (torch.zeros(2, 3, side, side),),
        path,
        input_names=["images"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
        external_data=False,
        verbose=False,
    )
    return path


@pytest.fixture
def settings(picture_folder):
    return Settings(
        str(picture_folder),
        data=DataSettings(size=32),
        views=ViewSettings(views=2),
        student=StudentSettings("test_resnet"),
        training=TrainingSettings(epochs=2, batch_size=16, lr=3e-3),
        evaluation=BARE,
        device="cpu",
    )


@pytest.fixture
def taught(settings, picture_folder, tmp_path):
    """``taught(teacher)`` is that teacher of a new run, asked."""

    def make(teacher):
        run = Run.create(
            tmp_path / teacher.teacher[-12:].replace("/", "-"), dataclasses.replace(settings, teacher=teacher)
        )
        data = load_data(picture_folder, settings.data, show_progress=False)
        return Workbench(run, data, show_progress=False).teacher()

    return make


def test_a_module_and_its_onnx_file_leave_equal_banks(taught, tmp_path):
    file = exported(Pooled(body()), tmp_path / "m.onnx")
    told = {"teacher_outputs": "features", "teacher_mean": (0.4,), "teacher_std": (0.2,)}
    module = taught(TeacherSettings(str(FromModule(body(), 32, 0.4, 0.2))))
    onnx = taught(TeacherSettings(str(file), **told))
    for one, other in zip(module.banks, onnx.banks, strict=True):
        assert one.views == other.views
        features = one.arrays["pooled"].astype(np.float32)
        assert np.abs(features).max() > 0.1
        np.testing.assert_allclose(other.arrays["pooled"], features, atol=2e-3)
    rows = module.banks[1].rows[:10]
    torch.testing.assert_close(onnx.logits(rows, 1), module.logits(rows, 1), atol=0.02, rtol=0.02)


def test_a_module_that_answers_by_class_is_asked_as_it_is(taught, picture_folder):
    class Bright(nn.Module):
        """Which half is brighter, as odds."""

        def forward(self, images):
            left, right = images[..., :16].mean((1, 2, 3)), images[..., 16:].mean((1, 2, 3))
            return torch.stack([right - left, left - right], dim=1)

    own = FromModule(Bright(), 32, 0.0, 1.0, outputs="logits", classes=("right", "left"))
    teacher = taught(TeacherSettings(str(own)))
    assert teacher.head is None
    said = teacher.logits(np.arange(120), None).argmax(1).numpy()
    assert (said == np.repeat([0, 1], 60)).mean() > 0.9


def test_a_whole_run_says_who_taught(settings, tmp_path):
    own = FromModule(body(), 32, 0.4, 0.2, licence="cc-by-nc-4.0")
    run = distill(
        dataclasses.replace(settings, teacher=TeacherSettings(str(own))), tmp_path / "run", show_progress=False
    )
    (entry,) = run.manifest["taught_by"]
    assert entry["name"] == own.name
    assert entry["mode"] == "frozen"
    assert entry["digest"].startswith("weights:")
    page, card = ((run.path / name).read_text() for name in ("report.html", "MODEL_CARD.md"))
    for text in (page, card):
        assert "Who taught" in text
        assert "forbids commercial use" in text
        assert "a module of the user&#39;s own" in text or "a module of the user's own" in text


def test_answers_that_nobody_named_are_said_to_be_taken_in_order(settings, tmp_path):
    odds = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    notes = []
    for classes in ((), ("right", "left")):
        own = FromModule(odds, 32, 0.0, 1.0, outputs="logits", classes=classes)
        chosen = dataclasses.replace(settings, teacher=TeacherSettings(str(own)))
        run = distill(chosen, tmp_path / f"run-{len(classes)}", show_progress=False)
        notes.append("taken to be of left, right, in this order" in run.report.read_text())
    assert notes == [True, False]


def test_a_stopped_run_asks_for_the_module_and_goes_on_with_it(settings, tmp_path):
    from stillroom.models.origins import own_module

    own = FromModule(body(), 32, 0.4, 0.2)
    run = distill(
        dataclasses.replace(settings, teacher=TeacherSettings(str(own))), tmp_path / "run", show_progress=False
    )
    before = run.metrics["test"]["student"]
    for part in ("report.html", "metrics.json", "predictions.parquet"):
        (run.path / part).unlink()
    shutil.rmtree(run.path / "student")
    run.note(finished=None)
    own_module._HANDED_OVER.clear()  # another process
    with pytest.raises(UsageError, match="was handed over in Python"):
        resume(run.path, show_progress=False)
    FromModule(body(), 32, 0.4, 0.2)
    assert resume(run.path, show_progress=False).metrics["test"]["student"] == before


def test_another_teacher_under_the_same_name_is_refused_on_resuming(settings, tmp_path):
    file, told = tmp_path / "m.onnx", {"teacher_outputs": "features", "teacher_mean": (0.4,), "teacher_std": (0.2,)}
    exported(Pooled(body()), file)
    chosen = dataclasses.replace(settings, teacher=TeacherSettings(str(file), **told))
    run = distill(chosen, tmp_path / "run", show_progress=False)
    (run.path / "report.html").unlink()
    shutil.rmtree(run.path / "student")
    run.note(finished=None)
    exported(Pooled(body(1)), file)
    with pytest.raises(RunError, match=r"is not the one that .* began with"):
        resume(run.path, show_progress=False)


def test_what_comes_with_its_weights_is_no_student(settings, tmp_path):
    own = FromModule(body(), 32, 0.4, 0.2)
    chosen = dataclasses.replace(settings, student=StudentSettings(str(own)))
    with pytest.raises(UsageError, match="A student of your own is a FromFactory"):
        distill(chosen, tmp_path / "run", show_progress=False)


def test_a_student_of_ones_own_is_taught_and_exported(settings, tmp_path):
    own = FromFactory(lambda: timm.create_model("test_resnet", num_classes=0, global_pool=""), size=32)
    teacher = TeacherSettings("test_vit", pretrained=False, teacher_size=32)
    chosen = dataclasses.replace(settings, student=StudentSettings(str(own)), teacher=teacher)
    run = distill(chosen, tmp_path / "run", show_progress=False)
    assert (run.path / "student.onnx").exists()
    assert run.manifest["exported_network"] == own.name
    assert 0.5 < run.metrics["test"]["student"]["auc"]["value"] <= 1


@pytest.mark.slow
def test_an_exported_student_teaches_from_the_command_line(tiny_run, picture_folder, tmp_path, capsys):
    flags = "--size 32 --views 2 --student test_resnet --epochs 1 --batch-size 16 --no-control --no-rivals --explain 0"
    flags += " --resamples 100 --no-latency --no-plan --device cpu"
    command = ["distill", str(picture_folder), *flags.split(), "--teacher", str(tiny_run.path / "student.onnx")]
    main([*command, "--out", str(tmp_path / "run")])
    run = Run.open(tmp_path / "run")
    (entry,) = run.manifest["taught_by"]
    assert entry["mode"] == "as_is"
    assert entry["digest"].startswith("sha256:")
    assert entry["parameters"] is None
    known, taught = (r.metrics["test"] for r in (tiny_run, run))
    assert taught["teacher"]["auc"]["value"] == pytest.approx(known["student"]["auc"]["value"], abs=1e-3)
    assert run.metrics["efficiency"]["teacher"]["parameters"] is None


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--teacher", "no.onnx"], "No ONNX file"),
        (["--teacher", "{onnx}", "--teacher-mode", "finetune"], "cannot be fine-tuned, for it is an ONNX file"),
        (["--teacher", "{onnx}", "--no-pretrained"], "comes with its weights: leave out --no-pretrained"),
        (["--teacher", "{onnx}", "--weights", "."], "comes with its weights: leave out --weights"),
        (["--teacher", "{onnx}", "--teacher-size", "64"], "images of 32 pixels; 64 is another size"),
        (["--teacher", "{onnx}", "--teacher-classes", "cat", "--teacher-classes", "dog"], "no answer for left, right"),
        (["--teacher", "no_such_module:make"], "no Python module"),
        (["--teacher", "hf-hub:nobody"], "is no repository of the hub"),
        (["--teacher", "./nowhere"], "there is no such folder"),
        (["--teacher", "resnet50?"], "key=value"),
        (["--teacher", "{onnx}?ouptut=logits"], "takes no option 'ouptut' after the ?. Did you mean output"),
        (
            ["--teacher", "{onnx}", "--teacher-mean", ".5", "--teacher-mean", ".5"],
            "teacher_mean is one number or three",
        ),
    ],
)
def test_what_cannot_teach_is_refused_in_a_line(flags, match, tiny_run, picture_folder, tmp_path, capsys):
    onnx = str(tiny_run.path / "student.onnx")
    given = [flag.format(onnx=onnx) for flag in flags]
    out = tmp_path / "run"
    command = ["distill", str(picture_folder), "--size", "32", "--no-plan", "--out", str(out), *given]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert match in said
    assert "Traceback" not in said
    assert not out.exists()


def test_the_network_of_a_name_with_options_is_another_one():
    plain, told = (create(f"test_resnet{more}", classes=2) for more in ("", "?mean=0.1&std=0.9"))
    assert plain.normalisation != told.normalisation
