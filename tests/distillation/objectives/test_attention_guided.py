"""Attention-guided distillation against hand loops, NumPy's correlation and networks whose heads are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.distillation.maps import to_grid
from stillroom.distillation.objectives.attention_guided import (
    AttentionGuidedLoss,
    class_map,
    correlation_gap,
    energy_map,
    gives_cam,
)
from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.errors import UsageError
from stillroom.models.zoo import create
from stillroom.task import MultiClass, MultiLabel

TASK = MultiClass(("a", "b", "c"))
LABELS = MultiLabel(("a", "b", "c"))
SHAPES = [(3, 2, 2), (7, 6, 6)]  # the student's map is 5 x 4 x 4


def head(channels, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(channels, 3)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cam_by_loops(found, weight, wanted):
    """``[H, W]`` of one image: every place, channel and class by itself."""
    found, weight = found.detach().tolist(), weight.detach().tolist()
    channels, height, width = len(found), len(found[0]), len(found[0][0])
    seen = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        for c in wanted:
            for k in range(channels):
                seen[y, x] += weight[c][k] * found[k][y][x]
    return seen


def halved(seen, side):
    """A square map averaged down to ``side``, which divides its own."""
    part = len(seen) // side
    return np.array(
        [
            [seen[y * part : y * part + part, x * part : x * part + part].mean() for x in range(side)]
            for y in range(side)
        ]
    )


def gap(first, second):
    return 1 - np.corrcoef(first.ravel(), second.ravel())[0, 1]


# -- maps -----------------------------------------------------------------------------------------------------------
def test_a_class_map_by_loops_sums_to_the_logit():
    found, linear = random(4, 5, 3, 2), head(5)
    targets = torch.tensor([0, 2, 1, 2])
    seen = class_map(found, linear.weight, torch.eye(3)[targets])
    assert seen.shape == (4, 1, 3, 2)
    for image, c in enumerate(targets.tolist()):
        by_loops = cam_by_loops(found[image], linear.weight, [c])
        np.testing.assert_allclose(seen[image, 0].detach().numpy(), by_loops, rtol=1e-4, atol=1e-6)
    logits = linear(found.mean(dim=(2, 3))) - linear.bias
    assert torch.allclose(seen.mean(dim=(1, 2, 3)), logits[range(4), targets], atol=1e-5)


def test_maps_of_several_classes_are_summed():
    found, linear = random(1, 5, 3, 2), head(5)
    both = class_map(found, linear.weight, torch.tensor([[1, 0, 1]]))
    by_loops = cam_by_loops(found[0], linear.weight, [0, 2])
    np.testing.assert_allclose(both[0, 0].detach().numpy(), by_loops, rtol=1e-4, atol=1e-6)


def test_energy_is_the_sum_of_squares():
    found = random(2, 5, 3, 2)
    assert torch.allclose(energy_map(found)[:, 0], torch.einsum("bchw,bchw->bhw", found, found), atol=1e-5)


NETWORKS = {  # whether the mean of the last map is all that the linear classifier reads
    "test_resnet": True,
    "test_efficientnet": True,
    "test_vit": False,  # reads its class token
    "test_vit, mean": True,
    "test_vit, both": False,  # twice as wide
    "test_convnext": False,  # as many channels, but normalises after pooling
    "mobilenetv3_small_050": False,  # another layer after pooling
    "resnetv2_50": False,  # a classifier of convolution
}


@pytest.mark.parametrize("name", NETWORKS)
def test_who_can_give_class_activation_maps(name):
    name, _, features = name.partition(", ")
    network = create(name, classes=3, size=64, features=features or None).train()
    able = gives_cam(network)
    assert able is NETWORKS[f"{name}, {features}" if features else name]
    assert network.training
    if able:
        outputs, linear = network.eval().outputs(random(2, 3, 64, 64).sigmoid()), network.classifier()
        seen = class_map(outputs.map, linear.weight, torch.tensor([[1, 0, 0], [0, 0, 1]])).mean(dim=(1, 2, 3))
        logits = torch.stack([outputs.logits[0, 0], outputs.logits[1, 2]]) - linear.bias[[0, 2]]
        assert torch.allclose(seen, logits, atol=1e-4)


# -- the gap --------------------------------------------------------------------------------------------------------
def test_the_gap_is_one_minus_pearsons_correlation():
    first, second = random(6, 1, 3, 4), random(6, 1, 3, 4, seed=1)
    expected = [gap(ours.numpy(), theirs.numpy()) for ours, theirs in zip(first, second, strict=True)]
    np.testing.assert_allclose(correlation_gap(first, second).numpy(), expected, rtol=1e-4)


def test_the_gap_knows_neither_scale_nor_offset_and_spans_0_to_2():
    seen = random(6, 1, 3, 4)
    assert correlation_gap(seen, 7 * seen + 3).abs().max() < 1e-6
    assert torch.allclose(correlation_gap(seen, 1e-9 * seen), torch.zeros(6), atol=1e-6)
    assert torch.allclose(correlation_gap(seen, -seen), torch.full((6,), 2.0))


@pytest.mark.parametrize(
    "flat", [torch.zeros(2, 1, 3, 4), torch.full((2, 1, 3, 4), 0.1), torch.full((2, 1, 3, 4), -1e5)]
)
def test_a_flat_map_costs_nothing_and_has_no_gradient(flat):
    for other in (random(2, 1, 3, 4), flat.clone()):
        for first, second in ((flat, other), (other, flat)):
            first, second = first.clone().requires_grad_(), second.clone().requires_grad_()
            found = correlation_gap(first, second)
            assert torch.equal(found, torch.zeros(2))
            found.sum().backward()
            assert first.grad.abs().max() == second.grad.abs().max() == 0


def test_gradients_of_the_gap_are_right():
    first, second = (random(3, 1, 2, 3, seed=seed).double().requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(correlation_gap, (first, second))


# -- the objective --------------------------------------------------------------------------------------------------
def loss_of(kinds, **settings):
    """An objective for the student's 5 channels and the teachers' 3 and 7; kinds as ``cam`` or ``energy``."""
    heads = [
        head(channels, channels) if kind == "cam" else None for kind, channels in zip(kinds, (5, 3, 7), strict=True)
    ]
    return AttentionGuidedLoss(heads[0], heads[1:], **settings), heads


@pytest.mark.parametrize("kinds", [("cam", "cam", "cam"), ("energy", "energy", "energy"), ("cam", "energy", "cam")])
def test_the_objective_by_loops(make_step, kinds):
    """The first teacher's grid is coarser than the student's, the second's, of 8 x 8, is finer."""
    step = make_step(TASK, shapes=[(3, 2, 2), (7, 8, 8)])
    objective, heads = loss_of(kinds, beta=0.5)

    def seen(found, kind, linear, target):
        if kind == "cam":
            return cam_by_loops(found, linear.weight, [target])
        return (found.detach().double().numpy() ** 2).sum(axis=0)

    gaps = []
    for number, side in ((1, 2), (2, 4)):
        for image, target in enumerate(step.targets.tolist()):
            ours = seen(step.student.map[image], kinds[0], heads[0], target)
            theirs = seen(step.teachers.maps[number - 1][image], kinds[number], heads[number], target)
            gaps.append(gap(halved(ours, side), halved(theirs, side)))
    losses = objective(step)
    assert losses["look"].item() == pytest.approx(0.5 * np.mean(gaps), rel=1e-4)
    plain = HybridLoss(0.5, 4.0)(step)
    assert {name: losses[name].item() for name in plain} == {name: value.item() for name, value in plain.items()}


def test_grids_that_do_not_divide_meet_at_the_coarser_one_in_each_direction(make_step):
    step = make_step(TASK, shapes=[(3, 6, 3)], teachers=1)
    ours = to_grid(energy_map(step.student.map), (4, 3))
    theirs = to_grid(energy_map(step.teachers.maps[0]), (4, 3))
    expected = correlation_gap(ours, theirs).mean()
    assert torch.allclose(AttentionGuidedLoss(None, [None])(step)["look"], expected)


def test_several_labels_are_looked_at_together_and_none_means_the_teachers_guess(make_step):
    step = make_step(LABELS, batch=3, teachers=1, shapes=[(3, 4, 4)])
    step.targets[:] = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    step.teachers.logits[0, 1] = torch.tensor([-3.0, -1.0, -2.0])
    ours, theirs = head(5), head(3)
    asked = [[0, 2], [1], [1]]
    expected = [
        gap(cam_by_loops(student, ours.weight, wanted), cam_by_loops(teacher, theirs.weight, wanted))
        for student, teacher, wanted in zip(step.student.map, step.teachers.maps[0], asked, strict=True)
    ]
    found = AttentionGuidedLoss(ours, [theirs], beta=1.0)(step)["look"]
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("task", [TASK, LABELS], ids=lambda task: task.kind)
def test_images_without_labels_are_looked_at_for_the_teachers_guess(make_step, task):
    step = make_step(task, teachers=1, shapes=[(3, 4, 4)])
    ours, theirs = head(5), head(3)
    guessed = replace(step, task=TASK, targets=step.teachers.logits[0].argmax(dim=1))
    free = replace(step, targets=step.targets[:0])
    objective = AttentionGuidedLoss(ours, [theirs], alpha=0.3)
    losses = objective.on_unlabelled(free)
    assert torch.equal(losses["unlabelled look"], objective(guessed)["look"])
    assert torch.equal(losses["unlabelled"], HybridLoss(0.3, 4.0).on_unlabelled(free)["unlabelled"])


@pytest.mark.parametrize("kind", ["cam", "energy"])
def test_a_student_that_looks_where_the_teacher_looks_satisfies(make_step, kind):
    step = make_step(TASK, teachers=1, shapes=[(5, 4, 4)])
    linear = head(5) if kind == "cam" else None
    objective = AttentionGuidedLoss(linear, [linear])
    same = make_step(TASK, maps=[step.student.map.detach()], logits=step.teachers.logits)
    assert objective(same)["look"].item() == pytest.approx(0, abs=1e-9)
    turned = make_step(TASK, maps=[step.student.map.detach().flip(2)], logits=step.teachers.logits)
    assert objective(turned)["look"].item() > 0.3


def test_the_gradient_reaches_the_students_features_alone(make_step):
    step = make_step(TASK, shapes=SHAPES)
    objective, heads = loss_of(("cam", "cam", "cam"))
    for said in step.teachers.maps:
        said.requires_grad_()
    look = objective(step)["look"]
    learns = [step.student.map, *(linear.weight for linear in heads), step.student.logits]
    gradients = torch.autograd.grad(look, learns, allow_unused=True)
    assert gradients[0].abs().sum() > 0
    assert all(gradient is None for gradient in gradients[1:])
    assert not list(objective.parameters())
    assert not objective.state_dict()


def test_the_classifier_is_read_as_it_stands(make_step):
    """The student's classifier is trained: its map follows."""
    step, (objective, heads) = make_step(TASK, shapes=SHAPES), loss_of(("cam", "cam", "cam"))
    before = objective(step)["look"].item()
    with torch.no_grad():
        heads[0].weight.neg_()
    assert objective(step)["look"].item() == pytest.approx(2 - before, rel=1e-4)


def test_following_the_gradient_turns_the_students_gaze(make_step):
    step, (objective, _) = make_step(TASK, teachers=2, shapes=SHAPES), loss_of(("cam", "cam", "cam"))
    found = step.student.map.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([found], lr=0.05)
    seen = []
    for _ in range(100):
        loss = objective(replace(step, student=step.student._replace(map=found)))["look"]
        seen.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert seen[0] > 0.5
    assert seen[-1] < 0.2 * seen[0]


def test_one_place_and_dark_maps_say_nothing(make_step):
    objective, _ = loss_of(("cam", "cam", "cam"))
    step = make_step(TASK, shapes=[(3, 1, 1), (7, 6, 6)])
    step.teachers.maps[1].zero_()
    losses = objective(step)
    assert losses["look"].item() == 0
    sum(losses.values()).backward()
    assert step.student.map.grad is None or step.student.map.grad.abs().max() == 0


def test_maps_are_exact_under_autocast(make_step):
    step, (objective, _) = make_step(TASK, shapes=SHAPES), loss_of(("cam", "cam", "cam"))
    plain = objective(step)["look"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = objective(step)["look"]
    assert torch.equal(plain, mixed)
    assert mixed.dtype == torch.float32


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_refused(beta):
    with pytest.raises(UsageError, match="beta must be"):
        AttentionGuidedLoss(None, [None], beta=beta)
