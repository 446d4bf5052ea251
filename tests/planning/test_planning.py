"""A plan from real files: what is seen of images, weights and machine, and a run that follows it."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from stillroom import (
    DataSettings,
    EvaluationSettings,
    Settings,
    StudentSettings,
    TeacherSettings,
    UsageError,
    distill,
    plan,
)
from stillroom import TrainingSettings as Training
from stillroom.models import hub
from stillroom.models.zoo import create
from stillroom.planning import read_plan
from stillroom.planning.facts import look
from stillroom.planning.stock import Shelf, weights_at_hand


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda seconds: False)
    monkeypatch.setattr(hub, "is_cached", lambda source, **more: False)


@pytest.fixture
def quick(monkeypatch):
    """Nothing is timed: a step takes a millisecond for each image, asking a third of it."""
    from stillroom.planning import timing

    monkeypatch.setattr(timing.Stopwatch, "_step", lambda self, name, side: 1e-3)
    monkeypatch.setattr(timing.Stopwatch, "_forward", lambda self, name, side: 3e-4)


def test_facts_are_those_of_the_files(picture_folder, tmp_path, offline):
    for number in range(40):
        folder = tmp_path / "set" / ("few" if number < 10 else "many")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    facts = look(Settings(str(tmp_path / "set"), device="cpu"), ("mobilenetv2_100",))
    assert (facts.images, facts.side, facts.smallest, facts.largest, facts.colour) == (40, 50, 50, 70, True)
    assert facts.training + facts.validation + facts.test == 40
    assert facts.imbalance == pytest.approx(3, abs=0.6)
    assert facts.weights == ()
    assert "does not answer" in facts.weights_from
    half = Settings(str(picture_folder), training=Training(label_fraction=0.5), device="cpu")
    facts = look(half, ())
    assert (facts.colour, facts.side, facts.kind) == (False, 32, "binary")
    assert facts.labelled == pytest.approx(facts.training / 2, abs=1)


def test_weights_are_found_by_name_alone(tmp_path, monkeypatch):
    for name in ("mobilenetv2_100.ra_in1k.safetensors", "model.safetensors", "resnet50/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ("mobilenetv2_100", "resnet18", "resnet50")
    assert weights_at_hand(names, tmp_path)[0] == ("mobilenetv2_100", "resnet50")
    assert weights_at_hand(names, tmp_path / "mobilenetv2_100.ra_in1k.safetensors")[0] == ("mobilenetv2_100",)
    with pytest.raises(UsageError, match="no such file or folder"):
        weights_at_hand(names, tmp_path / "none")
    monkeypatch.setattr(hub, "is_cached", lambda source, **more: "resnet18" in source)
    monkeypatch.setattr(hub, "answers", lambda seconds: False)
    assert weights_at_hand(names, None)[0] == ("resnet18",)
    monkeypatch.setattr(hub, "answers", lambda seconds: True)
    assert weights_at_hand((*names, "mobilenetv2_035"), None) == (names, "timm's hub")  # which has none of the last


def test_megabytes_are_those_of_the_network():
    network = create("test_resnet", classes=3)
    parameters = sum(value.numel() for value in network.backbone.parameters())
    assert Shelf(3).megabytes("test_resnet") == pytest.approx(4 * parameters / 1e6)
    assert not Shelf(3).takes("vit_tiny_patch16_224", 96)
    assert Shelf(3).takes("vit_small_patch14_dinov2", 98)


def test_a_run_follows_its_plan_and_keeps_it(picture_folder, tmp_path, offline, quick):
    given = Settings(
        str(picture_folder),
        data=DataSettings(size=32),
        student=StudentSettings("test_resnet"),
        teacher=TeacherSettings("test_vit", teacher_size=32, pretrained=False, teacher_epochs=1),
        training=Training(steps=6),
        evaluation=EvaluationSettings(resamples=100, latency=False, explain=0),
        device="cpu",
    )
    made = plan(picture_folder, minutes=1, given=given)
    assert made.choices["data.size"].why == "given"
    assert made.settings.device == "cpu"
    run = distill(made, tmp_path / "run", show_progress=False)
    assert read_plan(run.path / "plan.yaml") == made
    assert run.settings == made.settings
    assert {line["epochs"] for line in run.history() if line["role"] == "student"} == {2}


def test_a_cut_student_is_planned_from_the_weights_in_a_folder(picture_folder, tmp_path, quick):
    large = create("mobilenetv2_100", classes=1000)
    save_file(large.backbone.state_dict(), tmp_path / "mobilenetv2_100.safetensors")
    made = plan(picture_folder, weights=tmp_path, max_mb=2, device="cpu")
    assert made.settings.student.student == "mobilenetv2_035"
    assert made.settings.student.student_from == made.settings.teacher.teacher == "mobilenetv2_100"
    assert made.settings.teacher.weights == tmp_path
    assert made.choices["teacher.weights"].why == "given"


def test_what_cannot_be_planned(picture_folder, offline, quick):
    with pytest.raises(UsageError, match="There is no folder or file 'nowhere'"):
        plan("nowhere")
    with pytest.raises(UsageError, match="--minutes must be above 0"):
        plan(picture_folder, minutes=0)
    with pytest.raises(UsageError, match=r"at most 0.1 MB"):
        plan(picture_folder, max_mb=0.1)


def test_a_step_is_timed_without_moving_the_random_state(tmp_path):
    import torch

    from stillroom.planning.timing import Stopwatch

    watch = Stopwatch(classes=2, colour=False, device=torch.device("cpu"), batch=4)
    before = torch.get_rng_state()
    step, forward = watch.step("test_resnet", 32), watch.forward("test_resnet", 32)
    assert torch.equal(before, torch.get_rng_state())
    assert step > 0
    assert forward > 0
    assert watch.step("test_resnet", 32) == step  # timed once


def test_a_slow_network_is_asked_about_one_image_and_a_large_one_takes_no_step(monkeypatch):
    import torch

    from stillroom.planning import timing

    now, asked = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    class Slow(torch.nn.Linear):
        def forward(self, images):
            asked.append(len(images))
            now[0] += 3.0 * len(images)
            return images.mean((1, 2, 3)).unsqueeze(1)

    monkeypatch.setattr(timing, "create", lambda *names, **more: Slow(1, 1))
    monkeypatch.setattr(timing, "outline", lambda *names: torch.nn.Linear(20_000, 20_000, bias=False, device="meta"))
    watch = timing.Stopwatch(classes=2, colour=False, device=torch.device("cpu"), batch=4)
    assert watch.forward("slow", 32) == 3.0
    assert asked == [1]
    assert watch.step("slow", 32) == pytest.approx(3.0 * timing.STEP_OF_A_PASS)
    assert asked == [1]


def test_settings_that_differ_are_fixed_by_default(picture_folder, offline, quick):
    given = dataclasses.replace(Settings(str(picture_folder), device="cpu"), data=DataSettings(size=96))
    found = plan(picture_folder, given=given)
    assert [name for name, choice in found.choices.items() if choice.why == "given"] == ["data.size"]


@pytest.mark.parametrize(
    ("changed", "mode"), [({"teacher_lora": 4}, "finetune"), ({"teacher_precision": "bf16"}, "frozen")]
)
def test_a_setting_that_is_for_one_mode_of_the_teacher_decides_it(monkeypatch, changed, mode):
    seen = []
    monkeypatch.setattr("stillroom.planning._planned", lambda given, fixed, limits: seen.append((given, fixed)))
    for fixed in (None, [f"teacher.{name}" for name in changed]):  # from Python, from the command line
        plan("phantoms:60", given=Settings("phantoms:60", teacher=TeacherSettings(**changed)), fixed=fixed)
    for given, fixed in seen:
        assert "teacher.teacher_mode" in fixed
        assert given.teacher.teacher_mode == mode
