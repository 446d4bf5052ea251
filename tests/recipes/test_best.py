"""The recipe `best`: a panel with one voice, its mean answers over views, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch

from stillroom import Best, Settings, TeacherSettings, UsageError, ViewSettings
from stillroom.distillation.bank import Bank
from stillroom.distillation.teachers import of_mean_answers


@pytest.fixture
def made(quick, workbench, monkeypatch):
    """``made(recipe, ...)``: what the student was to be fitted with, training nothing but the teachers."""

    def run(recipe, **changed):
        bench = workbench(quick(recipe, **changed))
        monkeypatch.setattr(
            bench, "fit", lambda role, network, objective, **how: found.append((objective, how)) or network
        )
        found = []
        recipe.run(bench)
        return bench, *found[-1]

    return run


def frozen(**changed):
    return {"teacher": {"teacher_mode": "frozen", "pretrained": False} | changed}


def test_the_mean_of_a_banks_answers():
    rng = np.random.default_rng(0)
    arrays = {"logits": rng.normal(size=(4, 5, 3)).astype(np.float16)}
    bank = Bank(np.arange(5), (0, 1, 2, 3), arrays).averaged()
    for view in range(4):
        found = bank.at("logits", np.array([3, 1]), view)
        assert found == pytest.approx(arrays["logits"].astype(np.float64).mean(axis=0)[[3, 1]], abs=1e-6)


def test_the_student_is_taught_the_mean_over_views_where_asked(made):
    bench, _, how = made(Best(answers="mean"), views={"views": 3}, **frozen())
    (told,), (teacher,) = how["teachers"], bench.teachers
    rows = bench.data.train[:4]
    # Two epochs show two of the three views.
    mean = torch.stack([teacher.logits(rows, view) for view in range(2)]).mean(dim=0)
    assert torch.allclose(
        told.logits(rows, 1), mean, atol=1e-4
    )  # a linear head's mean answer is its answer to the mean
    assert torch.equal(told.logits(rows, None), teacher.logits(rows, None))
    assert not torch.allclose(teacher.logits(rows, 1), mean, atol=1e-4)
    _, _, how = made(Best(), views={"views": 3}, **frozen())
    assert how["teachers"] == bench.teachers or len(how["teachers"]) == 1


def test_teachers_of_several_networks_and_seeds_sit_on_the_panel(made):
    recipe = Best(teachers=("test_efficientnet",), teacher_seeds=2, feature_weight=1.0)
    bench, objective, how = made(recipe, **frozen())
    assert [teacher.network.name for teacher in how["teachers"]] == ["test_resnet", "test_efficientnet"] * 2
    first, _, again, _ = bench.teachers
    assert any(
        not torch.equal(a, b) for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True)
    )
    assert [projector.out_features for projector in objective.projectors] == [
        teacher.output("pooled", bench.data.train[:1], None).shape[1] for teacher in bench.teachers
    ]


def test_images_without_labels_get_mean_answers_too(made):
    bench, _, _ = made(Best(), **frozen())
    teacher = dataclasses.replace(bench.teachers[0], unlabelled=bench.teachers[0])
    told = of_mean_answers(teacher)
    rows = bench.data.train[:2]
    assert torch.allclose(told.unlabelled.logits(rows, 0), told.logits(rows, 0))


@pytest.mark.parametrize(
    ("recipe", "changed", "words"),
    [
        (Best(teacher_seeds=2), {}, "Frozen copies"),
        (Best(teachers=("mobilenet_edgetpu_100",)), {}, "Frozen copies"),
        (Best(answers="mean"), {"views": ViewSettings(mix="mixup")}, "--answers view, or --mix none"),
        (Best(answers="mean"), {"views": ViewSettings(views=0)}, "--views 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(recipe, changed, words):
    with pytest.raises(UsageError, match=words):
        recipe.check(Settings("phantoms", recipe, **changed))
    Best(teacher_seeds=2).check(Settings("phantoms", Best(), teacher=TeacherSettings(teacher_mode="finetune")))


@pytest.mark.parametrize(
    "values", [{"alpha": 2}, {"temperature": 0}, {"feature_weight": -1}, {"teacher_seeds": 0}], ids=str
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        Best(**values)


def test_settings_that_change_nothing_are_said():
    still = Settings("phantoms", Best(answers="mean"), views=ViewSettings(augment="none"))
    assert still.recipe.unused(still) == ["answers"]


@pytest.mark.slow
def test_a_run_from_end_to_end(distilled):
    recipe = Best(teachers=("test_efficientnet",), answers="mean", feature_weight=0.5)
    run = distilled(recipe, views={"views": 2}, **frozen(teacher_size=64))
    lines = [line for line in run.history() if line["role"] == "student"]
    assert set(lines[-1]["losses"]) == {"label", "teacher", "features"}
    assert run.manifest["teachers"] == ["test_resnet", "test_efficientnet"]
    assert run.manifest["sides"] == {"student": 32, "teachers": [64, 64]}
    assert "control" in run.metrics["test"]
