"""CA-MKD against loops: its weights, its two terms, its switches, and who is trained."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stillroom.distillation.objectives.ca_mkd import CAMKDLoss, confidences, needs_of
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.models.zoo import create
from stillroom.settings.sections import TrainingSettings
from stillroom.task import MultiClass, MultiLabel

THREE, LABELS = MultiClass(("a", "b", "c")), MultiLabel(("a", "b", "c"))
STUDENT = (5, 4, 4)
NAMES = ("test_resnet", "test_vit", "test_efficientnet")


@cache
def teachers_of(task=THREE, names=NAMES):
    return tuple(create(name, classes=len(task.classes), size=32, seed=seed) for seed, name in enumerate(names))


def shapes(teachers):
    return [teacher.map_shape for teacher in teachers]


def taught(make_step, task=THREE, names=NAMES, **options):
    """An objective with its teachers and a step for it."""
    fields = {name: options.pop(name) for name in ("batch", "progress") if name in options}
    teachers = teachers_of(task, names)
    step = make_step(task, teachers=len(teachers), shapes=shapes(teachers), **fields)
    return CAMKDLoss(STUDENT, teachers, **options).train(), teachers, step


# -- weights --------------------------------------------------------------------------------------------------------
def test_confidences_by_hand():
    losses = torch.log(torch.tensor([[1.0], [2.0], [5.0]]))  # softmax: 1/8, 2/8, 5/8
    assert confidences(losses).flatten().tolist() == pytest.approx([7 / 16, 6 / 16, 3 / 16])
    assert confidences(torch.rand(1, 4)).tolist() == [[1.0] * 4]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_confidences_sum_to_1_and_a_lower_loss_weighs_more(count):
    losses = torch.rand(count, 50, generator=torch.Generator().manual_seed(0)) * 20
    weights = confidences(losses)
    assert torch.allclose(weights.sum(dim=0), torch.ones(50))
    assert (weights >= 0).all()
    order = losses.argsort(dim=0)
    assert (weights.gather(0, order).diff(dim=0) <= 0).all()


# -- the two terms --------------------------------------------------------------------------------------------------
def weights_by_loops(losses):
    if len(losses) == 1:
        return [1.0]
    shares = np.exp(losses) / np.exp(losses).sum()
    return (1 - shares) / (len(losses) - 1)


@pytest.mark.parametrize("task", [THREE, LABELS, LABELS.with_paper_softmax(), MultiClass(("a", "b"))], ids=str)
@pytest.mark.parametrize("names", [NAMES, NAMES[:1]], ids=["three", "one"])
@pytest.mark.parametrize("weighting", ["confidence", "equal"])
def test_terms_by_loops(make_step, task, names, weighting):
    objective, teachers, step = taught(make_step, task, names, weighting=weighting)
    losses = objective(step)
    soft = features = 0.0
    matched = [regressor(step.student.map).detach() for regressor in objective.regressors]
    for image in range(6):
        truth = step.targets[image : image + 1]
        here = slice(image, image + 1)
        known = np.array([task.hard_loss(said[here], truth).item() for said in step.teachers.logits])
        read = [task.hard_loss(t.classify_map(m)[here], truth) for t, m in zip(teachers, matched, strict=True)]
        w, v = weights_by_loops(known), weights_by_loops(np.array([loss.item() for loss in read]))
        if weighting == "equal":
            w = v = np.full(len(teachers), 1 / len(teachers))
        for k in range(len(teachers)):
            soft += w[k] * task.soft_loss(step.student.logits[here], step.teachers.logits[k][here], 4.0).item() / 6
            features += v[k] * ((matched[k][image] - step.teachers.maps[k][image]) ** 2).mean().item() / 6
    # The authors divide by K although the weights sum to 1: of three teachers 50 weighs 50 / 3.
    assert losses["teacher"].item() == pytest.approx(soft / len(names), rel=1e-4)
    assert losses["features"].item() == pytest.approx(50 / len(names) * features, rel=1e-4)
    assert losses["label"].item() == pytest.approx(LabelLoss()(step)["label"].item())


def test_the_regressor_by_hand(make_step):
    """Pool or interpolate, 1x1 convolution, batch norm over batch and places, ReLU."""
    objective, _, step = taught(make_step, names=NAMES[:2])
    for regressor, pooled in zip(
        objective.regressors, (F.adaptive_avg_pool2d(step.student.map, n) for n in (1, 2)), strict=True
    ):
        rows = torch.einsum("oc,bchw->bohw", regressor.conv.weight[:, :, 0, 0], pooled)
        mean, spread = rows.mean(dim=(0, 2, 3), keepdim=True), rows.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
        assert torch.allclose(regressor(step.student.map), ((rows - mean) / (spread + 1e-5).sqrt()).relu(), atol=1e-4)


def test_a_teacher_that_knows_the_label_is_followed(make_step):
    """One teacher is right and sure on the first half of the images, the other on the second."""
    truth = make_step(THREE).targets
    right = 8.0 * F.one_hot(truth, 3).float()
    first, second = right.clone(), right.clone()
    first[3:], second[:3] = -first[3:], -second[:3]
    step = make_step(THREE, logits=torch.stack([first, second]), shapes=[(96, 1, 1)] * 2)
    objective = CAMKDLoss(STUDENT, teachers_of(names=NAMES[:1] * 2), feature_weight=0)
    best = THREE.soft_loss(step.student.logits, right, 4.0).mean()
    assert objective(step)["teacher"].item() == pytest.approx(best.item() / 2, rel=1e-2)


# -- switches -------------------------------------------------------------------------------------------------------
def test_the_features_join_in_the_second_epoch(make_step):
    for epochs, steps in ((10, 7), (3, 11), (30, 13)):
        progress = [step / (epochs * steps) for step in (0, steps - 1, steps, steps + 1)]
        features = []
        for share in progress:
            objective, _, step = taught(make_step, epochs=epochs, progress=share)
            features.append(objective(step)["features"].item() > 0)
        assert features == [False, False, True, True]


def test_extra_division_divides_both_terms_and_nothing_else(make_step):
    objective, teachers, step = taught(make_step, extra_division=False)
    quirky = CAMKDLoss(STUDENT, teachers).train()
    plain, divided = objective(step), quirky(step)
    assert divided["label"] == plain["label"]
    for name in ("teacher", "features"):
        assert divided[name].item() == pytest.approx(plain[name].item() / 3, rel=1e-5)
    alone, _, step = taught(make_step, names=NAMES[:1], extra_division=False)
    quirky = CAMKDLoss(STUDENT, teachers_of(names=NAMES[:1])).train()
    assert alone(step)["teacher"] == quirky(step)["teacher"]


def test_learnt_weights_change_gradients_and_no_value(make_step):
    _, teachers, step = taught(make_step)
    found = {}
    for learnt in (False, True):
        objective = CAMKDLoss(STUDENT, teachers, learnt_weights=learnt).train()
        step.student.map.grad = None
        losses = objective(step)
        losses["features"].backward()
        found[learnt] = losses, [p.grad for p in objective.parameters()], step.student.map.grad.clone()
    assert all(torch.equal(found[True][0][name], found[False][0][name]) for name in found[True][0])
    assert not torch.allclose(found[True][2], found[False][2])
    # Without: the gradient of the same sum with the weights as constants.
    objective = CAMKDLoss(STUDENT, teachers).train()
    step.student.map.grad = None
    matched = [regressor(step.student.map) for regressor in objective.regressors]
    gaps = torch.stack([((m - t) ** 2).mean(dim=(1, 2, 3)) for m, t in zip(matched, step.teachers.maps, strict=True)])
    read = [THREE.hard_loss(t.classify_map(m), step.targets) for t, m in zip(teachers, matched, strict=True)]
    (50 / 3 * (confidences(torch.stack(read)).detach() * gaps).sum(dim=0).mean()).backward()
    assert torch.allclose(step.student.map.grad, found[False][2], atol=1e-6)


def test_images_without_labels_count_every_teacher_alike(make_step):
    for extra, factor in ((False, 1.0), (True, 1 / 3)):
        objective, _, step = taught(make_step, extra_division=extra)
        kl = [THREE.soft_loss(step.student.logits, said, 4.0).mean().item() for said in step.teachers.logits]
        free = replace(step, targets=step.targets[:0])
        assert objective.on_unlabelled(free)["unlabelled"].item() == pytest.approx(factor * np.mean(kl), rel=1e-5)


# -- who is trained -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("learnt", [False, True])
def test_teachers_are_neither_trained_nor_saved(make_step, learnt):
    objective, teachers, step = taught(make_step, learnt_weights=learnt)
    before = [copy.deepcopy(teacher.state_dict()) for teacher in teachers]
    sum(objective(step).values()).backward()
    objective.train()
    objective(step)
    for teacher, state in zip(teachers, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
        assert not any(module.training for module in teacher.modules())
    own = sum(p.numel() for r in objective.regressors for p in r.parameters())
    assert sum(p.numel() for p in objective.parameters()) == own
    assert all(name.startswith("regressors.") for name in objective.state_dict())


def test_a_stopped_training_goes_on_to_the_same_weights(toy, tmp_path):
    """The regressors are checkpointed with the student."""
    from types import SimpleNamespace

    from stillroom.training.loop import fit

    data = toy(count=24)
    teachers = [create("test_resnet", classes=2, size=32, seed=5)]

    def output(name, rows, view):
        with torch.no_grad():
            return getattr(teachers[0].outputs(data.images.batch(rows, view)), name)

    teacher = SimpleNamespace(logits=lambda rows, view: output("logits", rows, view), output=output, unlabelled=None)
    settings = TrainingSettings(epochs=3, batch_size=8)

    class KilledError(Exception):
        pass

    def die(line):
        if line["epoch"] == 2:
            raise KilledError

    def run(folder, log=lambda line: None):
        student = create("test_resnet", classes=2, size=32)
        objective = CAMKDLoss(student.map_shape, teachers, epochs=3)
        job = {"role": "student", "teachers": [teacher], "log": log, "show_progress": False}
        fit(student, objective, data, settings, folder=folder, **job)
        return [*student.state_dict().values(), *objective.state_dict().values()]

    whole = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "parts", die)
    assert all(torch.equal(a, b) for a, b in zip(whole, run(tmp_path / "parts"), strict=True))


def test_without_the_features_term_no_map_is_read_and_nothing_is_owned(make_step):
    objective, _, step = taught(make_step, feature_weight=0.0, progress=0.5)
    assert objective.needs == {"teacher_logits"} == needs_of(0.0)
    assert not list(objective.parameters())
    losses = objective(replace(step, teachers=replace(step.teachers, maps=[])))
    assert set(losses) == {"label", "teacher"}
    assert needs_of(50.0) == {"teacher_logits", "map"}
