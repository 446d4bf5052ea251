"""The moves of a recipe: trials that leave nothing behind, and teachers that are shared only where they are equal."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stillroom import (
    Baseline,
    DataSettings,
    DualModelSKD,
    RunError,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
    WeCKD,
)
from stillroom.data.load import load_data
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.distillation.objectives.self_logits import LogitSelfDistillation
from stillroom.models.saving import load_network
from stillroom.models.zoo import create
from stillroom.progress import remark
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench


@pytest.fixture
def bench(picture_folder, tmp_path):
    """``bench(seed=1, training={...})``: the workbench of a new small run."""
    made = []

    def make(seed=0, unlabelled=None, **changed):
        settings = Settings(
            str(picture_folder),
            Baseline(),
            data=DataSettings(size=32),
            views=ViewSettings(views=2),
            teacher=TeacherSettings("test_resnet", teacher_mode="finetune", pretrained=False, teacher_epochs=1),
            student=StudentSettings("test_resnet"),
            training=TrainingSettings(epochs=3, batch_size=16, lr=3e-3),
            device="cpu",
        )
        sections = {name: dataclasses.replace(getattr(settings, name), **values) for name, values in changed.items()}
        dataset = load_data(picture_folder, settings.data, show_progress=False)  # the same splits whatever the seed
        made.append(Run.create(tmp_path / f"run-{len(made)}", dataclasses.replace(settings, seed=seed, **sections)))
        return Workbench(made[-1], dataset, show_progress=False)

    return make


class Breaks(LabelLoss):
    """Raises in the second epoch."""

    def forward(self, step):
        if step.progress > 0.4:
            raise RunError("diverged")
        return super().forward(step)


def test_a_trial_does_not_go_on_from_one_that_broke_off(bench):
    fresh = bench()
    expected = fresh.trial("tuning", fresh.student(), LabelLoss(), lr=1e-3)
    after = bench()
    with pytest.raises(RunError):
        after.trial("tuning", after.student(), Breaks(), lr=1e-2)
    assert not (after.run.path / "checkpoints").exists()
    network = after.student()
    assert after.trial("tuning", network, LabelLoss(), lr=1e-3) == expected
    assert [line["epoch"] for line in after.run.history()][-3:] == [1, 2, 3]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", ["model.safetensors", "model.json"])
def test_a_damaged_network_of_an_unfinished_run_is_made_again_the_same(bench, capsys, damaged):
    made = bench(training={"epochs": 1})
    made.run.note(device="cpu")  # as a run has it before anything is trained

    def trained():
        network = made.student()
        return made.fit("student", network, LabelLoss()).state_dict()

    first, folder = trained(), made.run.path / "student"
    noted = made.run.manifest["networks"]
    assert noted["student"]["epochs"] == 1
    flip(folder / damaged)
    remark.cache_clear()
    again = trained()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert f"{folder / damaged} was changed or damaged after it was written: that network is made again." in (
        capsys.readouterr().err
    )
    assert load_network(folder).state_dict().keys() == first.keys()
    assert made.run.manifest["networks"] == noted
    assert len(made.run.history()) == 1

    flip(folder / damaged)
    made.seed = 1  # on other hardware other digits, here another order
    with pytest.raises(RunError, match=r"student was made again and is not the same bit for bit: .*Put back a copy"):
        trained()
    assert not (folder / "model.json").exists()


def test_a_teacher_is_shared_only_where_all_that_made_it_is_equal(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))

    def shared(**changed):
        made = bench(**changed)
        made.teacher()
        return "teacher_from_cache" in made.run.manifest

    assert not shared()
    assert shared()
    assert shared(student={"student": "resnet10t_050"})
    for changed in (
        {"seed": 1},  # another run's views, though the teacher may start alike
        {"training": {"lr": 1e-3}},
        {"training": {"label_fraction": 0.5}},
        {"training": {"class_weights": True}},
        {"views": {"augment": "strong"}},
        {"views": {"mix": "mixup"}},
        {"views": {"crop": 0.5}},
        {"teacher": {"teacher_lr": 1e-4}},
        {"teacher": {"teacher_epochs": 2}},
    ):
        assert not shared(**changed), changed


LORA = {"teacher": "test_vit", "teacher_size": 32, "teacher_lora": 2}


def test_a_teacher_of_adapters_is_shared_by_its_rank_and_saved_as_an_ordinary_network(bench, monkeypatch, tmp_path):
    pytest.importorskip("peft")
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    first, again, other, whole = (bench(teacher=LORA | {"teacher_lora": rank}) for rank in (2, 2, 3, None))
    for made in (first, again, other, whole):
        made.teacher()
    assert ["teacher_from_cache" in made.run.manifest for made in (first, again, other, whole)] == [0, 1, 0, 0]
    saved = load_network(first.run.path / "teacher")
    plain = create("test_vit", classes=2, size=32, features="cls")
    assert list(saved.state_dict()) == list(plain.state_dict())
    assert torch.equal(saved.backbone.patch_embed.proj.weight, plain.backbone.patch_embed.proj.weight)
    assert not torch.equal(saved.backbone.blocks[0].attn.qkv.weight, plain.backbone.blocks[0].attn.qkv.weight)
    rows = first.data.val
    with torch.no_grad():
        expected = saved(first.data.images.batch(rows)).numpy()
    assert first.teachers[0].logits(rows, None).numpy() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("changed", [{}, {"feature_layers": 3, "features": "both"}, {"teacher_precision": "bf16"}])
def test_a_frozen_teacher_answers_as_its_network_does(bench, changed):
    made = bench(teacher={"teacher": "test_vit", "teacher_size": 32, "teacher_mode": "frozen"} | changed)
    teacher, rows = made.teacher(), made.data.val
    with torch.no_grad():
        expected = teacher.network(made.data.images.batch(rows)).numpy()
    assert teacher.head.in_features == 64 * (6 if "features" in changed else 1)
    assert teacher.logits(rows, None).numpy() == pytest.approx(expected, abs=2e-2)


def test_what_fine_tuning_and_freezing_do_not_take_is_refused(bench):
    frozen = {"teacher": "test_vit", "teacher_size": 32, "teacher_mode": "frozen", "teacher_precision": "bf16"}
    with pytest.raises(UsageError, match="--teacher-precision bf16 is for a frozen teacher"):
        bench(teacher=frozen).teacher(mode="finetune")
    with pytest.raises(UsageError, match="test_resnet has no linear layers of attention"):
        bench(teacher={"teacher_lora": 2}).teacher()
    with pytest.raises(UsageError, match="test_resnet is none"):
        bench(teacher={"feature_layers": 2}).teacher()


def test_a_teachers_own_seed_does_not_hide_the_runs_views(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    first, second = bench(seed=0), bench(seed=1)
    first.teacher(seed=1)
    second.teacher()  # of seed 1 too, but trained on the views of seed 1
    assert "teacher_from_cache" not in second.run.manifest
    weights = [made.teachers[0].network.state_dict() for made in (first, second)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_fewer_labels_are_part_of_the_training_images(bench):
    made = bench(training={"label_fraction": 0.25})
    assert np.isin(made.data.train, made.training_rows).all()
    assert abs(len(made.data.train) - 0.25 * len(made.training_rows)) <= 2
    made.fit("student", made.student(), LabelLoss(), epochs=1)
    assert made.labels_read == set(made.data.train.tolist())


def test_a_student_cut_out_of_a_larger_network_starts_as_that_networks_channels(bench, tmp_path):
    large = create("mobilenetv2_050", classes=7, seed=5)
    wide = {name: torch.randn_like(value) for name, value in large.backbone.named_parameters()}  # every number once
    large.backbone.load_state_dict(wide, strict=False)
    save_file(large.backbone.state_dict(), tmp_path / "mobilenetv2_050.safetensors")
    chosen = {"student": "mobilenetv2_035", "student_from": "mobilenetv2_050", "student_weights": tmp_path}
    made = bench(student=chosen)
    first, second = made.student().state_dict(), made.student().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)  # a control starts alike
    vectors = {
        name: first[f"backbone.{name}"] for name, value in wide.items() if value.ndim == 1 and name[:4] != "clas"
    }
    assert any(len(vector) < len(wide[name]) for name, vector in vectors.items())
    assert all(torch.isin(vector, wide[name]).all() for name, vector in vectors.items())
    assert made.run.manifest["student_cut_out"]["large"] == "mobilenetv2_050"


def test_a_student_starts_from_its_own_weights_or_is_cut_out():
    with pytest.raises(UsageError, match="both say where the student starts"):
        StudentSettings("mobilenetv2_035", student_pretrained=True, student_from="mobilenetv2_050")


@pytest.mark.parametrize(("told", "name", "taken"), [(None, "retfound_cfp", "mean"), ("cls", "retfound_cfp", "cls")])
def test_a_medical_teacher_gives_what_its_publisher_takes_unless_told(bench, told, name, taken):
    name = f"{name}?depth=1&embed_dim=32&num_heads=2"
    made = bench(teacher={"teacher": name, "teacher_mode": "frozen", "features": told})
    assert made._teacher_network(name, 32, 0).features == taken
    assert bench(teacher={"features": told})._teacher_network("test_vit", 32, 0).features == "cls"


def test_images_are_mixed_with_their_like(bench):
    made = bench(training={"label_fraction": 0.5}, views={"mix": "mixup"})
    rest = np.setdiff1d(made.training_rows, made.data.train)
    for rows in (made.data.train, rest):
        assert set(made.data.images.mixture(rows, 0).partners) <= set(rows.tolist())
    held_out = made.data.val
    assert (made.data.images.mixture(held_out, 0).share == 1).all()


def test_mixtures_are_refused_where_they_would_mean_something_else(bench):
    made = bench(views={"mix": "cutmix"})
    with pytest.raises(UsageError, match=r"two views of one image.*--mix none"):
        made.fit("student", made.student(), LogitSelfDistillation(made.student()))
    with pytest.raises(UsageError, match=r"slice of the labels.*--mix none"):
        made.fit("student", made.student(), LabelLoss(), rows=made.data.train[::2])
    for recipe in (DualModelSKD(), WeCKD()):
        with pytest.raises(UsageError, match="--mix none"):
            recipe.check(Settings("phantoms", recipe, views=ViewSettings(mix="mixup")))


def test_each_network_sees_the_images_at_its_own_side(bench, picture_folder, tmp_path):
    """The teacher's answers are to pictures decoded at its side, of the very view that the student sees at its own."""
    mixing = {"mix": "cutmix", "crop": 0.6}
    made = bench(teacher={"teacher_size": 64, "teacher_mode": "frozen"}, views=mixing)
    teacher = made.teacher()
    own = load_data(picture_folder, DataSettings(size=64), show_progress=False).store
    large, _ = made.sides.at(64)
    assert np.array_equal(large.store.images, own.images)
    assert teacher.images is large
    assert made.dataset.store.size == made.data.images.store.size == 32
    rows = made.data.train[:6]
    for view in (None, 1):
        expected = teacher.network.eval()(large.batch(rows, view))
        assert torch.allclose(teacher.logits(rows, view), expected.detach(), atol=2e-2)
    first, second = made.data.images.mixture(rows, 1), large.mixture(rows, 1)
    assert np.array_equal(first.partners, second.partners)
    assert np.array_equal(first.share, second.share)
    shrunk = torch.nn.functional.avg_pool2d(large.batch(rows, 1), 2)
    assert (shrunk - made.data.images.batch(rows, 1)).abs().mean() < 0.02
    assert "32 px here" in made.side_notes()[0]
    assert "64 px" in made.side_notes()[0]


def test_a_teacher_is_trained_at_its_own_side(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    seen = []
    monkeypatch.setattr("stillroom.run.bench.fit", lambda net, objective, data, *rest, **how: seen.append(data) or net)
    made = bench(teacher={"teacher_size": 64})
    made.teacher()
    made.fit("student", made.student(), LabelLoss())
    assert [data.images.store.size for data in seen] == [64, 32]
    assert not bench().side_notes()


def test_images_without_labels_come_at_every_side_too(bench, picture_folder):
    from stillroom.data.unlabelled import load_unlabelled

    made = bench()
    more = load_unlabelled(picture_folder, made.dataset.table, made.dataset.store, show_progress=False)
    with_more = Workbench(made.run, dataclasses.replace(made.dataset, unlabelled=more), show_progress=False)
    _, large = with_more.sides.at(64)
    assert large.store.size == 64
    assert large.store.digests.tolist() == more.store.digests.tolist()
